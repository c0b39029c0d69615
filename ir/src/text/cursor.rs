//! Reading tokens in order: what the parsers of all texts share.
use super::TextError;
use super::lex::{Kind, Token, lex};
use super::near::near;
use crate::dtype::DType;
use crate::graph::{Init, RopeScaling, RowKind, Table};
use std::ops::DerefMut;
use std::str::FromStr;

pub(crate) type Result<T> = std::result::Result<T, TextError>;

/// The tokens of a text and the next one to read. Every method that fails leaves the cursor at the faulty token.
pub(crate) struct Cursor {
    tokens: Vec<Token>,
    pub at: usize,
}

/// Items between brackets, with commas.
pub(crate) fn bracketed<P, T>(p: &mut P, item: impl FnMut(&mut P) -> Result<T>) -> Result<Vec<T>>
where
    P: DerefMut<Target = Cursor>,
{
    enclosed(p, ['[', ']'], item)
}

/// Items between two marks, with commas.
pub(crate) fn enclosed<P, T>(p: &mut P, marks: [char; 2], mut item: impl FnMut(&mut P) -> Result<T>) -> Result<Vec<T>>
where
    P: DerefMut<Target = Cursor>,
{
    p.mark(marks[0])?;
    let mut items = vec![];
    while !p.eat(marks[1]) {
        if !items.is_empty() {
            p.mark(',')?;
        }
        items.push(item(p)?);
    }
    Ok(items)
}

// ---- tokens
impl Cursor {
    pub fn new(text: &str) -> Result<Cursor> {
        Ok(Cursor { tokens: lex(text)?, at: 0 })
    }
    pub fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }
    pub fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        // The last token is `End`, which is never passed.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }
    /// An error at token `at`.
    pub fn error(&self, at: usize, found: impl Into<String>, expected: impl Into<String>) -> TextError {
        let Token { line, column, .. } = self.tokens[at];
        TextError { line, column, found: found.into(), expected: expected.into(), near: None }
    }
    /// An error at the next token.
    pub fn fail<T>(&self, expected: impl Into<String>) -> Result<T> {
        Err(self.error(self.at, self.peek().to_string(), expected))
    }
    /// An error at the next token, with the known name that was perhaps meant.
    pub fn unknown<'a, T>(&self, expected: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Result<T> {
        let e = self.error(self.at, self.peek().to_string(), expected);
        Err(TextError { near: near(name, known), ..e })
    }
    pub fn eat(&mut self, mark: char) -> bool {
        let here = self.peek() == &Kind::Mark(mark);
        if here {
            self.next();
        }
        here
    }
    pub fn mark(&mut self, mark: char) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { self.fail(format!("`{mark}`")) }
    }
    pub fn eat_word(&mut self, word: &str) -> bool {
        let here = matches!(self.peek(), Kind::Word(w) if w == word);
        if here {
            self.next();
        }
        here
    }
    pub fn keyword(&mut self, word: &str) -> Result<()> {
        if self.eat_word(word) { Ok(()) } else { self.fail(format!("`{word}`")) }
    }
    /// One of these words.
    pub fn one_of(&mut self, expected: &str, words: &[&str]) -> Result<String> {
        let Kind::Word(word) = self.peek().clone() else { return self.fail(expected) };
        if !words.contains(&word.as_str()) {
            return self.unknown(expected, &word, words.iter().copied());
        }
        self.next();
        Ok(word)
    }
    pub fn skip_newlines(&mut self) {
        while self.peek() == &Kind::Newline {
            self.next();
        }
    }
    pub fn end_of_statement(&mut self) -> Result<()> {
        match self.peek() {
            Kind::Newline | Kind::End => {
                self.skip_newlines();
                Ok(())
            }
            _ => self.fail("the end of the line"),
        }
    }
}

// ---- names and numbers
impl Cursor {
    pub fn at_name(&mut self, expected: &str) -> Result<String> {
        match self.peek().clone() {
            Kind::At(name) => {
                self.next();
                Ok(name)
            }
            _ => self.fail(expected),
        }
    }
    pub fn integer<T: FromStr>(&mut self, expected: &str) -> Result<T> {
        match self.peek() {
            Kind::Number(n) => match n.parse() {
                Ok(n) => {
                    self.next();
                    Ok(n)
                }
                Err(_) => self.fail(expected),
            },
            _ => self.fail(expected),
        }
    }
    pub fn float32(&mut self) -> Result<f32> {
        match read_f32(self.peek()) {
            Some(x) => {
                self.next();
                Ok(x)
            }
            None => self.fail("a number with a point or an exponent"),
        }
    }
    pub fn float64(&mut self) -> Result<f64> {
        match read_f64(self.peek()) {
            Some(x) => {
                self.next();
                Ok(x)
            }
            None => self.fail("a number with a point or an exponent"),
        }
    }
    pub fn dtype(&mut self) -> Result<DType> {
        let Kind::Word(name) = self.peek().clone() else { return self.fail("a dtype") };
        match DType::from_name(&name) {
            Some(d) => {
                self.next();
                Ok(d)
            }
            None => self.unknown("a dtype", &name, DType::ALL.into_iter().map(DType::name)),
        }
    }
}

// ---- how tensors start
impl Cursor {
    pub fn init(&mut self) -> Result<Init> {
        self.keyword("init")?;
        let kinds = ["zeros", "constant", "normal", "log_range", "dt_bias", "decay"];
        Ok(match self.one_of("how the parameter starts", &kinds)?.as_str() {
            "zeros" => Init::Zeros,
            "constant" => Init::Constant(self.float32()?),
            "normal" => Init::Normal(self.float32()?),
            "log_range" => Init::LogRange,
            "decay" => Init::Decay { lo: self.float32()?, hi: self.float32()? },
            _ => Init::DtBias { lo: self.float32()?, hi: self.float32()? },
        })
    }

    pub fn state_rows(&mut self) -> Result<RowKind> {
        if !self.eat_word("rows") {
            return Ok(RowKind::None);
        }
        let name = self.one_of("what lies in a row", &RowKind::ALL.map(RowKind::name))?;
        Ok(RowKind::ALL.into_iter().find(|r| r.name() == name).unwrap_or_default())
    }

    pub fn state_init(&mut self) -> Result<Option<String>> {
        match self.peek() {
            Kind::Newline | Kind::End => Ok(None),
            _ => {
                self.keyword("init")?;
                Ok(Some(self.at_name("the parameter that the state starts as")?))
            }
        }
    }

    pub fn table(&mut self) -> Result<Table> {
        let kind = self.one_of("the table's formula", &["rope_cos", "rope_sin"])?;
        let theta = self.float64()?;
        let scaling = self.rope_scaling()?;
        Ok(match kind.as_str() {
            "rope_cos" => Table::RopeCos { theta, scaling },
            _ => Table::RopeSin { theta, scaling },
        })
    }

    fn rope_scaling(&mut self) -> Result<Option<RopeScaling>> {
        if !self.eat_word("llama3") {
            return Ok(None);
        }
        let (factor, low_freq_factor, high_freq_factor) = (self.float64()?, self.float64()?, self.float64()?);
        Ok(Some(RopeScaling {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context: self.integer("the context of the frequencies")?,
        }))
    }
}

/// A float has a point, an exponent or no digits; digits alone are an integer.
pub(super) fn is_float(number: &str) -> bool {
    number.contains(['.', 'e', 'E', 'i'])
}

/// The bits behind `nan` and `nan.<hex>`.
fn nan_bits(word: &str, quiet: u64) -> Option<u64> {
    match word.strip_prefix("nan")? {
        "" => Some(quiet),
        rest => u64::from_str_radix(rest.strip_prefix('.')?, 16).ok(),
    }
}

/// A number so large that it would read as infinity is refused; infinity is written `inf`.
pub(crate) fn read_f32(kind: &Kind) -> Option<f32> {
    match kind {
        Kind::Number(n) if is_float(n) => n.parse().ok().filter(|x: &f32| x.is_finite() || n == "-inf"),
        Kind::Word(w) if w == "inf" => Some(f32::INFINITY),
        Kind::Word(w) => Some(f32::from_bits(u32::try_from(nan_bits(w, 0x7fc0_0000)?).ok()?)),
        Kind::Quoted(_) | Kind::At(_) | Kind::Value(_) | Kind::Number(_) => None,
        Kind::Mark(_) | Kind::Newline | Kind::End => None,
    }
}

fn read_f64(kind: &Kind) -> Option<f64> {
    match kind {
        Kind::Number(n) if is_float(n) => n.parse().ok().filter(|x: &f64| x.is_finite() || n == "-inf"),
        Kind::Word(w) if w == "inf" => Some(f64::INFINITY),
        Kind::Word(w) => Some(f64::from_bits(nan_bits(w, 0x7ff8_0000_0000_0000)?)),
        Kind::Quoted(_) | Kind::At(_) | Kind::Value(_) | Kind::Number(_) => None,
        Kind::Mark(_) | Kind::Newline | Kind::End => None,
    }
}
