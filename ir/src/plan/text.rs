//! The text form of plans and modules: `parse(print(p)) == p`, and the same for a module.
//!
//! One statement a line; a comment runs from `;` to the end of its line. A launch says its kind and its grid, whose
//! indices are `g0`, `g1`, …; below it stand its stages, which read as what a loop body would say:
//!
//! ```text
//! plan @forward
//! arena 4096
//! scratch 1024
//! input @x: f32[2, 64, 32]
//! output @y: f32[2, 64, 32]
//!
//! buffer @x: f32[4096] input                             ; `input @z` if the port has another name
//! buffer @v7: f32[4096] arena 0
//! buffer @v7~2: f32[64] scratch 256                      ; the second buffer of the name `v7`
//!
//! launch @dot_64x32x32: contract [2, 4] flops 262144 bytes 20480 {
//!   gemm m=16 of 64 by g1, n=32, k=32: @v7[2048*g0 + 512*g1 + 32*m + n] += 0.5 * @x[2048*g0 + 512*g1 + 32*m + k] * @w[n + 32*k]
//!   call 3 (@v7, @y[2048*g0 + -32*begin]) tiles 16 of 64
//! }
//! repeat 24 {
//!   launch @copy: map [] flops 0 bytes 8192 {
//!     call 4 (@x, @y[512*iter])
//!   }
//! }
//! ```
//!
//! * `m=16 of 64 by g1` is tile g1 of 16 rows out of 64, `k=64 seen from @pos[g0]` as many keys as that position sees.
//! * In a matrix, `m`, `n` and `k` stand for its row and column; `iter` is the iteration of a repeat, and `begin` the
//!   first unit of the kernel. The last stride over the grid is printed even if it is 0: it says how many there are.
//! * A call covers its own units, `tiles 16 of 64` of the last axis, or `rows 0 to 16 of 64` of it.
//! * `group` and `routed` are the stages of a mixture of experts; `text/routed.rs` says how they read.
//!
//! A module is `module`, its tensors (`param @w[32, 32] init normal 0.02`, `state`, `table`), its kernels as
//! [`crate::kernel::text`] says them, and its plans.
use super::{Module, Plan};
use crate::text::TextError;

mod parse;
mod print;
mod routed;
#[cfg(test)]
mod tests;

/// The text of a plan; [`parse`] is the inverse.
pub fn print(p: &Plan) -> String {
    print::plan(p, &[])
}

/// The plan that a text says.
pub fn parse(text: &str) -> Result<Plan, TextError> {
    parse::plan(text)
}

/// The text of a module; [`parse_module`] is the inverse.
pub fn print_module(m: &Module) -> String {
    print::module(m)
}

/// The module that a text says. Its kernels are not verified.
pub fn parse_module(text: &str) -> Result<Module, TextError> {
    parse::module(text)
}
