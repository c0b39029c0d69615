//! The text form of a graph: `parse(print(g)) == g`, scopes included, for every graph that the verifier accepts.
//!
//! One statement a line; a comment runs from `;` to the end of its line.
//!
//! ```text
//! func @attention
//! axis b=4 t=512 s=512 d=64
//! param @wq.weight: f32[d, 1] init normal 0.02          ; `1` is a dimension of no axes
//! state @kv: f32[b, s, d] rows kept init @kv0           ; also: input, table … rope_cos 10000.0
//!
//! scope "decoder.layers.0"                              ; a new scope; `scope 1 "decoder.layers.0"` goes back to it
//! %0: f32[d] = leaf @wq.weight
//! %1: f32[] = const 0.125
//! %2: f32[] = dot {axes=[d]} %0, %0
//! output @y[] = %2
//! write @kv = %9
//! ```
//!
//! Axes in a type stand in the order of their declaration, in a leaf or an output outermost first; `h*i` is one stored
//! dimension of two axes. By hand, values may have names (`%q`) instead of numbers, an operation may leave out its types
//! (where they are given they must be the inferred ones), and an operand may be a leaf or a constant itself, as in
//! `%y = mul @x, 0.5`. A number with a point or an exponent is an f32, one without is
//! an integer; floats read back to the same bits (`inf`, `-inf`, `nan`, and `nan.7fc00001` for other payloads). A name
//! that is not made of letters, digits and `_ .` is written in quotes.
pub(crate) mod cursor;
pub(crate) mod lex;
mod near;
mod parse;
pub(crate) mod print;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use parse::mnemonics;
pub use parse::parse;
pub use print::print;

/// What a text fails to say: where, what stands there, and what should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: found {found}, expected {expected}{}", hint(.near))]
pub struct TextError {
    pub line: usize,
    pub column: usize,
    pub found: String,
    pub expected: String,
    /// A known name that is close to what was found.
    pub near: Option<String>,
}

fn hint(near: &Option<String>) -> String {
    near.as_ref().map_or(String::new(), |n| format!("; did you mean `{n}`?"))
}
