//! Kernels as text, one value a line: `parse(print(k)) == k`.
//!
//! ```text
//! kernel @causal_rows {
//!   axis i 37
//!   axis j 64 in 0..%1
//!   in $x bf16 2368
//!   out $y f32 2368
//!   units i 8
//!   %0 i32[i] = index i
//!   %1 i32[i] = load $n[%0 + 3] if %7
//!   %2 f32[i j] = load $x[64*i + j]
//!   %3 f32[i] = sum.j %2
//! }
//! ```
//!
//! The type after `%n` is printed for the reader and checked by the parser, which infers it again. Names are free of white
//! space and of the characters ``[]+*%;$,{}=``.
use super::{Fold, KAxes, KAxis, KOp, KValue, Kernel, Mode, Operand, OperandId, Range, Value, View};
use crate::dtype::{DType, Scalar};
use crate::op::{Binary, Unary};
use std::fmt::{self, Write};

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel @{} {{", self.name)?;
        for a in &self.axes {
            writeln!(f, "  axis {}", range(a))?;
        }
        for o in &self.operands {
            writeln!(f, "  {} ${} {} {}", o.mode.name(), o.name, o.dtype, o.len)?;
        }
        if !self.units.is_empty() {
            let unit = |(a, tile): &(KAxis, u32)| format!("{} {tile}", self.axis(*a).name);
            writeln!(f, "  units {}", join(self.units.iter().map(unit), ", "))?;
        }
        for v in self.ids() {
            writeln!(f, "  {}", self.line(v))?;
        }
        writeln!(f, "}}")
    }
}

fn join(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}

fn range(a: &Range) -> String {
    let bound = |v: Option<KValue>, or: String| v.map_or(or, |v| format!("%{}", v.0));
    match (a.lo, a.hi) {
        (None, None) => format!("{} {}", a.name, a.len),
        (lo, hi) => {
            format!("{} {} in {}..{}", a.name, a.len, bound(lo, "0".into()), bound(hi, a.len.to_string()))
        }
    }
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::In => "in",
            Mode::Out => "out",
            Mode::InOut => "inout",
        }
    }
}

impl Kernel {
    /// A value as one line of text.
    pub fn line(&self, v: KValue) -> String {
        let value = self.value(v);
        let axes = join(value.axes.iter().map(|a| self.axis(a).name.clone()), " ");
        let mut s = format!("%{} {}[{axes}] = {}", v.0, value.dtype, self.head(value));
        value.args.iter().for_each(|a| write!(s, " %{}", a.0).unwrap_or_default());
        if let Some(g) = value.access().and_then(|(_, view)| view.guard) {
            write!(s, " if %{}", g.0).unwrap_or_default();
        }
        s
    }

    fn head(&self, value: &Value) -> String {
        let on = |a: KAxis| &self.axis(a).name;
        match &value.op {
            KOp::Const(c) => format!("const {}", scalar(*c)),
            KOp::Index(a) => format!("index {}", on(*a)),
            KOp::Load(o, v) => format!("load {}", self.view(*o, v)),
            KOp::Store(o, v) => format!("store {}", self.view(*o, v)),
            KOp::Accumulate(o, v) => format!("accumulate {}", self.view(*o, v)),
            KOp::Random { site } => format!("random {site}"),
            KOp::Unary(u) => u.name().into(),
            KOp::Binary(b) => b.name().into(),
            KOp::Fma => "fma".into(),
            KOp::Select => "select".into(),
            KOp::Cast(d) => format!("cast {d}"),
            KOp::Reduce(Fold::Sum, a) => format!("sum.{}", on(*a)),
            KOp::Reduce(Fold::Max, a) => format!("max.{}", on(*a)),
            KOp::ArgMax(a) => format!("argmax.{}", on(*a)),
            KOp::Sample(a) => format!("sample.{}", on(*a)),
            KOp::Dot(a) => format!("dot.{}", on(*a)),
            KOp::Scan { axis, reverse: false } => format!("scan.{}", on(*axis)),
            KOp::Scan { axis, reverse: true } => format!("rscan.{}", on(*axis)),
            KOp::Prev(a) => format!("prev.{}", on(*a)),
            KOp::Last(a) => format!("last.{}", on(*a)),
        }
    }

    fn view(&self, o: OperandId, v: &View) -> String {
        let term = |s: &i64, name: String| if *s == 1 { name } else { format!("{s}*{name}") };
        let axes = v.terms.iter().map(|(a, s)| term(s, self.axis(*a).name.clone()));
        let values = v.dynamic.iter().map(|(d, s)| term(s, format!("%{}", d.0)));
        let base = (v.base != 0 || v.terms.len() + v.dynamic.len() == 0).then(|| v.base.to_string());
        format!("${}[{}]", self.operand(o).name, join(axes.chain(values).chain(base), " + "))
    }

    /// Text without the names: equal for kernels that differ in names only, so it is the key of deduplication.
    pub fn canonical(&self) -> String {
        let mut k = Kernel { name: "_".into(), ..self.clone() };
        k.axes.iter_mut().enumerate().for_each(|(i, a)| a.name = format!("a{i}"));
        k.operands.iter_mut().enumerate().for_each(|(i, o)| o.name = format!("o{i}"));
        k.to_string()
    }
}

/// Shortest decimals that read back as the same bits; other bit patterns in hexadecimal.
fn scalar(c: Scalar) -> String {
    match c {
        Scalar::I32(i) => i.to_string(),
        Scalar::Bool(b) => b.to_string(),
        Scalar::F32(bits) => {
            let text = format!("{:?}", f32::from_bits(bits));
            match text.parse::<f32>() {
                Ok(x) if x.to_bits() == bits => text,
                _ => format!("{bits:#x}"),
            }
        }
    }
}

/// Why a text is not a kernel: the line, counted from 1, and what was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: expected {expected}, found `{found}`")]
pub struct ParseError {
    pub line: usize,
    pub expected: String,
    pub found: String,
}

/// Reads one kernel. The result is not verified.
pub fn parse(text: &str) -> Result<Kernel, ParseError> {
    let mut k = Kernel::default();
    for (i, line) in text.lines().enumerate() {
        let mut r = Reader { k: &mut k, line: i + 1, rest: line };
        r.statement()?;
    }
    Ok(k)
}

/// The rest of one line, and the kernel so far.
struct Reader<'a> {
    k: &'a mut Kernel,
    line: usize,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn wrong<T>(&self, expected: impl Into<String>, found: &str) -> Result<T, ParseError> {
        Err(ParseError { line: self.line, expected: expected.into(), found: found.trim().into() })
    }
    /// The next word: up to white space or one of the marks.
    fn word(&mut self) -> &'a str {
        let s = self.rest.trim_start();
        let end = s.find(|c: char| c.is_whitespace() || "[]+*;$,{}=".contains(c)).unwrap_or(s.len());
        self.rest = &s[end..];
        &s[..end]
    }
    fn eat(&mut self, mark: &str) -> bool {
        let s = self.rest.trim_start();
        let found = s.strip_prefix(mark);
        self.rest = found.unwrap_or(s);
        found.is_some()
    }
    fn expect(&mut self, mark: &str) -> Result<(), ParseError> {
        if self.eat(mark) { Ok(()) } else { self.wrong(format!("`{mark}`"), self.rest) }
    }
    fn end(&mut self) -> Result<(), ParseError> {
        let rest = self.rest.trim();
        if rest.is_empty() || rest.starts_with(';') { Ok(()) } else { self.wrong("the end of the line", rest) }
    }
    fn number<T: std::str::FromStr>(&mut self) -> Result<T, ParseError> {
        let w = self.word();
        w.parse().or_else(|_| self.wrong("a number", w))
    }
    fn value_of(&self, w: &str) -> Result<KValue, ParseError> {
        match w.strip_prefix('%').and_then(|n| n.parse().ok()) {
            Some(n) => Ok(KValue(n)),
            None => self.wrong("a value", w),
        }
    }
    /// A value that stands before this line, so that its type is known.
    fn value(&mut self) -> Result<KValue, ParseError> {
        let w = self.word();
        let v = self.value_of(w)?;
        if (v.0 as usize) < self.k.values.len() { Ok(v) } else { self.wrong("a value of an earlier line", w) }
    }
    fn axis_named(&self, w: &str) -> Result<KAxis, ParseError> {
        match self.k.axes.iter().position(|a| a.name == w) {
            Some(i) => Ok(KAxis(i as u8)),
            None => self.wrong("an axis", w),
        }
    }
    fn dtype(&mut self) -> Result<DType, ParseError> {
        let w = self.word();
        DType::from_name(w).map_or_else(|| self.wrong("a dtype", w), Ok)
    }

    fn statement(&mut self) -> Result<(), ParseError> {
        let start = self.rest;
        match self.word() {
            "kernel" => {
                self.k.name = self.word().trim_start_matches('@').into();
                self.expect("{")?;
            }
            "" if self.eat("}") || self.rest.is_empty() || self.rest.starts_with(';') => {}
            "axis" => self.axis()?,
            "in" => self.operand(Mode::In)?,
            "out" => self.operand(Mode::Out)?,
            "inout" => self.operand(Mode::InOut)?,
            "units" => self.units()?,
            w if w.starts_with('%') => self.define(w)?,
            _ => return self.wrong("a kernel, an axis, an operand, units or a value", start),
        }
        self.end()
    }

    fn axis(&mut self) -> Result<(), ParseError> {
        let (name, len) = (self.word().to_string(), self.number()?);
        let (mut lo, mut hi) = (None, None);
        if self.eat("in ") {
            let w = self.word();
            let Some((l, h)) = w.split_once("..") else { return self.wrong("a range `lo..hi`", w) };
            lo = l.starts_with('%').then(|| self.value_of(l)).transpose()?;
            hi = h.starts_with('%').then(|| self.value_of(h)).transpose()?;
        }
        self.k.axes.push(Range { name, len, lo, hi });
        Ok(())
    }

    fn operand(&mut self, mode: Mode) -> Result<(), ParseError> {
        self.expect("$")?;
        let name = self.word().to_string();
        let (dtype, len) = (self.dtype()?, self.number()?);
        self.k.operands.push(Operand { name, dtype, len, mode });
        Ok(())
    }

    fn units(&mut self) -> Result<(), ParseError> {
        loop {
            let w = self.word();
            let unit = (self.axis_named(w)?, self.number()?);
            self.k.units.push(unit);
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    fn define(&mut self, name: &str) -> Result<(), ParseError> {
        let next = format!("%{}", self.k.values.len());
        if name != next {
            return self.wrong(format!("`{next}`"), name);
        }
        let dtype = self.dtype()?;
        self.expect("[")?;
        let mut axes = KAxes::EMPTY;
        while !self.eat("]") {
            let w = self.word();
            axes = axes.with(self.axis_named(w)?);
        }
        self.expect("=")?;
        let op = self.op(dtype)?;
        let (op, args) = self.args(op)?;
        if let Some(a) = op.folds().filter(|a| self.k.bounds(*a).any(|v| v.0 as usize >= self.k.values.len())) {
            return self.wrong("bounds of the axis before their use", &self.k.axis(a).name.clone());
        }
        let v = self.k.push(op, &args, dtype);
        if self.k.value(v).axes != axes {
            let found = self.k.line(v);
            return self.wrong("the axes that follow from the operands", &found);
        }
        Ok(())
    }

    fn args(&mut self, mut op: KOp) -> Result<(KOp, Vec<KValue>), ParseError> {
        let mut args = vec![];
        while self.rest.trim_start().starts_with('%') {
            args.push(self.value()?);
        }
        if let KOp::Load(_, v) | KOp::Store(_, v) | KOp::Accumulate(_, v) = &mut op
            && self.eat("if ")
        {
            v.guard = Some(self.value()?);
        }
        Ok((op, args))
    }

    fn op(&mut self, dtype: DType) -> Result<KOp, ParseError> {
        let w = self.word();
        if let Some((fold, axis)) = w.split_once('.') {
            return self.along(w, fold, self.axis_named(axis)?);
        }
        if let Some(u) = Unary::ALL.into_iter().find(|u| u.name() == w) {
            return Ok(KOp::Unary(u));
        }
        if let Some(b) = Binary::ALL.into_iter().find(|b| b.name() == w) {
            return Ok(KOp::Binary(b));
        }
        Ok(match w {
            "const" => KOp::Const(self.scalar(dtype)?),
            "index" => {
                let w = self.word();
                KOp::Index(self.axis_named(w)?)
            }
            "load" => self.view().map(|(o, v)| KOp::Load(o, v))?,
            "store" => self.view().map(|(o, v)| KOp::Store(o, v))?,
            "accumulate" => self.view().map(|(o, v)| KOp::Accumulate(o, v))?,
            "random" => KOp::Random { site: self.number()? },
            "fma" => KOp::Fma,
            "select" => KOp::Select,
            "cast" => KOp::Cast(self.dtype()?),
            _ => return self.wrong("an operation", w),
        })
    }

    fn along(&self, w: &str, fold: &str, a: KAxis) -> Result<KOp, ParseError> {
        Ok(match fold {
            "sum" => KOp::Reduce(Fold::Sum, a),
            "max" => KOp::Reduce(Fold::Max, a),
            "argmax" => KOp::ArgMax(a),
            "sample" => KOp::Sample(a),
            "dot" => KOp::Dot(a),
            "scan" => KOp::Scan { axis: a, reverse: false },
            "rscan" => KOp::Scan { axis: a, reverse: true },
            "prev" => KOp::Prev(a),
            "last" => KOp::Last(a),
            _ => return self.wrong("an operation along an axis", w),
        })
    }

    fn scalar(&mut self, dtype: DType) -> Result<Scalar, ParseError> {
        let w = self.word();
        let c = match (dtype, w.strip_prefix("0x")) {
            (DType::F32, Some(hex)) => u32::from_str_radix(hex, 16).ok().map(Scalar::F32),
            (DType::F32, None) => w.parse().ok().map(Scalar::f32),
            (DType::I32, _) => w.parse().ok().map(Scalar::I32),
            (DType::Bool, _) => w.parse().ok().map(Scalar::Bool),
            (DType::Bf16, _) => None,
        };
        c.map_or_else(|| self.wrong(format!("a constant of {dtype}"), w), Ok)
    }

    fn view(&mut self) -> Result<(OperandId, View), ParseError> {
        self.expect("$")?;
        let w = self.word();
        let Some(o) = self.k.operands.iter().position(|o| o.name == w) else { return self.wrong("an operand", w) };
        self.expect("[")?;
        let mut v = View::default();
        loop {
            self.term(&mut v)?;
            if self.eat("]") {
                return Ok((OperandId(o as u16), v));
            }
            self.expect("+")?;
        }
    }

    fn term(&mut self, v: &mut View) -> Result<(), ParseError> {
        let w = self.word();
        let (stride, of) = match w.parse::<i64>() {
            Ok(n) if self.eat("*") => (n, self.word()),
            Ok(n) => {
                v.base += n;
                return Ok(());
            }
            Err(_) => (1, w),
        };
        if of.starts_with('%') {
            let d = self.value_of(of)?;
            if d.0 as usize >= self.k.values.len() {
                return self.wrong("a value of an earlier line", of);
            }
            v.dynamic.push((d, stride));
        } else {
            v.terms.push((self.axis_named(of)?, stride));
        }
        Ok(())
    }
}
