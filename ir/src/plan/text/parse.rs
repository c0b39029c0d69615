//! Text to plans and modules.
use crate::artifact::{ParamRecord, StateRecord, TableRecord};
use crate::plan::{
    Access, Buffer, BufferId, Extent, Gemm, KernelStage, Kind, Launch, Matrix, Module, Place, Plan, Port, Span, Stage,
    Step,
};
use crate::text::TextError;
use crate::text::cursor::{Cursor, Result, bracketed, enclosed, read_f32};
use crate::text::lex::Kind as Token;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// No grid has as many dimensions as this.
const DIMS: usize = 64;

pub fn plan(text: &str) -> Result<Plan> {
    let mut p = Parser::new(text)?;
    p.skip_newlines();
    let plan = p.plan()?;
    match p.peek() {
        Token::End => Ok(plan),
        _ => p.fail("a step of the plan"),
    }
}

pub fn module(text: &str) -> Result<Module> {
    let (rest, blocks) = kernel_blocks(text);
    let mut m = Module::default();
    for (first, block) in blocks {
        let kernel = crate::kernel::text::parse(&block);
        let placed = |e: crate::kernel::text::ParseError| TextError {
            line: first + e.line,
            column: 1,
            found: format!("`{}`", e.found),
            expected: e.expected,
            near: None,
        };
        m.kernels.push(kernel.map_err(placed)?);
    }
    let mut p = Parser::new(&rest)?;
    p.skip_newlines();
    p.keyword("module")?;
    p.end_of_statement()?;
    while p.peek() != &Token::End {
        match p.peek().clone() {
            Token::Word(w) if w == "plan" => m.plans.push(p.plan()?),
            _ => p.tensor(&mut m)?,
        }
    }
    Ok(m)
}

/// The text without its kernels, line for line, and each kernel with the number of lines before it.
fn kernel_blocks(text: &str) -> (String, Vec<(usize, String)>) {
    let (mut rest, mut blocks) = (String::new(), vec![]);
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        if line.starts_with("kernel ") && !inside {
            blocks.push((i, String::new()));
            inside = true;
        }
        match blocks.last_mut() {
            Some((_, block)) if inside => *block += &format!("{line}\n"),
            _ => rest += line,
        }
        rest.push('\n');
        inside &= !line.starts_with('}');
    }
    (rest, blocks)
}

/// The plan so far, in which buffers are known by name and number.
pub(super) struct Parser {
    cursor: Cursor,
    buffers: BTreeMap<(String, usize), BufferId>,
}

impl Deref for Parser {
    type Target = Cursor;
    fn deref(&self) -> &Cursor {
        &self.cursor
    }
}
impl DerefMut for Parser {
    fn deref_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }
}

/// A sum of strides times indices, each index at most once.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) base: i64,
    pub(super) unit: Vec<i64>,
    others: BTreeMap<String, i64>,
}

impl Sum {
    pub(super) fn take(&mut self, index: &str) -> i64 {
        self.others.remove(index).unwrap_or(0)
    }
}

// ---- the plan
impl Parser {
    fn new(text: &str) -> Result<Self> {
        Ok(Parser { cursor: Cursor::new(text)?, buffers: BTreeMap::new() })
    }

    /// Up to the next plan, or the end of the text.
    fn plan(&mut self) -> Result<Plan> {
        const STATEMENTS: [&str; 7] = ["arena", "scratch", "input", "output", "buffer", "launch", "repeat"];
        self.buffers.clear();
        self.keyword("plan")?;
        let mut p = Plan { program: self.at_name("the program's name, as in `@train`")?, ..Plan::default() };
        self.end_of_statement()?;
        while *self.peek() != Token::End && *self.peek() != Token::Word("plan".into()) {
            match self.one_of("a statement", &STATEMENTS)?.as_str() {
                "arena" => p.arena = self.integer("bytes of the arena")?,
                "scratch" => p.scratch = self.integer("bytes of scratch memory")?,
                "input" => p.inputs.push(self.port()?),
                "output" => p.outputs.push(self.port()?),
                "buffer" => p.buffers.push(self.buffer(p.buffers.len())?),
                "launch" => p.steps.push(Step::Launch(self.launch()?)),
                _ => p.steps.push(self.repeat()?),
            }
            self.end_of_statement()?;
        }
        Ok(p)
    }

    fn shape(&mut self) -> Result<Vec<usize>> {
        bracketed(self, |p| p.integer("a length"))
    }

    fn port(&mut self) -> Result<Port> {
        let name = self.at_name("the port's name")?;
        self.mark(':')?;
        Ok(Port { name, dtype: self.dtype()?, shape: self.shape()? })
    }

    fn buffer(&mut self, index: usize) -> Result<Buffer> {
        let at = self.at;
        let key = self.buffer_name()?;
        let next = 1 + self.buffers.range((key.0.clone(), 0)..=(key.0.clone(), usize::MAX)).count();
        if key.1 != next {
            return Err(self.error(at, format!("buffer {} of this name", key.1), format!("`~{next}`")));
        }
        let name = key.0.clone();
        self.buffers.insert(key, BufferId(index as u32));
        self.mark(':')?;
        let dtype = self.dtype()?;
        self.mark('[')?;
        let len = self.integer("a number of elements")?;
        self.mark(']')?;
        let place = self.place(&name)?;
        Ok(Buffer { name, dtype, len, place })
    }

    fn place(&mut self, buffer: &str) -> Result<Place> {
        let kinds = ["arena", "scratch", "param", "state", "table", "input", "output"];
        let kind = self.one_of("where the buffer lies", &kinds)?;
        if kind == "arena" || kind == "scratch" {
            let at = self.integer("an offset in bytes")?;
            return Ok(if kind == "arena" { Place::Arena(at) } else { Place::Scratch(at) });
        }
        let name = match self.peek() {
            Token::At(_) => self.at_name("a name")?,
            _ => buffer.into(),
        };
        Ok(match kind.as_str() {
            "param" => Place::Param(name),
            "state" => Place::State(name),
            "table" => Place::Table(name),
            "input" => Place::Input(name),
            _ => Place::Output(name),
        })
    }

    /// `@name` or, for the second buffer of a name and later ones, `@name~2`.
    fn buffer_name(&mut self) -> Result<(String, usize)> {
        let name = self.at_name("a buffer, as in `@name`")?;
        let number = if self.eat('~') { self.integer("which buffer of this name")? } else { 1 };
        Ok((name, number))
    }

    fn repeat(&mut self) -> Result<Step> {
        let times = self.integer("how often")?;
        let mut body = vec![];
        self.block(|p| {
            p.keyword("launch")?;
            body.push(p.launch()?);
            Ok(())
        })?;
        Ok(Step::Repeat { times, body })
    }

    /// Statements between braces, one a line.
    fn block(&mut self, mut statement: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.mark('{')?;
        self.end_of_statement()?;
        while !self.eat('}') {
            statement(self)?;
            self.end_of_statement()?;
        }
        Ok(())
    }

    /// A tensor that the programs of a module share.
    fn tensor(&mut self, m: &mut Module) -> Result<()> {
        let kind = self.one_of("a statement", &["param", "state", "table", "plan", "kernel"])?;
        let name = self.at_name("the tensor's name")?;
        match kind.as_str() {
            "param" => {
                self.mark(':')?;
                let (dtype, shape) = (self.dtype()?, self.shape()?);
                m.params.push(ParamRecord { name, dtype, shape, init: self.init()? });
            }
            "state" => {
                self.mark(':')?;
                let (dtype, shape) = (self.dtype()?, self.shape()?);
                let rows = self.state_rows()?;
                m.states.push(StateRecord { name, dtype, shape, rows, init: self.state_init()? });
            }
            "table" => {
                let shape = self.shape()?;
                m.tables.push(TableRecord { name, shape, table: self.table()? });
            }
            _ => return self.fail("a kernel at the beginning of a line, up to a line `}`"),
        }
        self.end_of_statement()
    }
}

// ---- launches
impl Parser {
    fn launch(&mut self) -> Result<Launch> {
        let name = self.at_name("the launch's name")?;
        self.mark(':')?;
        let kind = self.one_of("the kind of the launch", &Kind::ALL.map(Kind::name))?;
        let kind = Kind::ALL.into_iter().find(|k| k.name() == kind).unwrap_or(Kind::Map);
        let grid = bracketed(self, |p| p.integer("a length of the grid"))?;
        self.keyword("flops")?;
        let flops = self.integer("a number of operations")?;
        self.keyword("bytes")?;
        let bytes = self.integer("a number of bytes")?;
        let mut stages = vec![];
        self.block(|p| {
            stages.push(match p.one_of("a stage", &["call", "gemm", "group", "routed"])?.as_str() {
                "call" => Stage::Kernel(p.call()?),
                "group" => Stage::Group(Box::new(p.group()?)),
                "routed" => Stage::Routed(Box::new(p.routed()?)),
                _ => Stage::Gemm(Box::new(p.gemm()?)),
            });
            Ok(())
        })?;
        Ok(Launch { name, kind, grid, stages, flops, bytes })
    }

    fn call(&mut self) -> Result<KernelStage> {
        let kernel = self.integer("the number of a kernel")?;
        let operands = enclosed(self, ['(', ')'], Self::access)?;
        let span = if self.eat_word("tiles") {
            let tile = self.integer("units of a tile")?;
            self.keyword("of")?;
            Span::Tiles { len: self.integer("units of the last axis")?, tile }
        } else if self.eat_word("rows") {
            let lo = self.integer("the first row")?;
            self.keyword("to")?;
            let hi = self.integer("the row after the last")?;
            self.keyword("of")?;
            Span::Rows { len: self.integer("units of the last axis")?, lo, hi }
        } else {
            Span::Same
        };
        Ok(KernelStage { kernel, operands, span })
    }

    fn gemm(&mut self) -> Result<Gemm> {
        let m = self.extent("m")?;
        self.mark(',')?;
        let n = self.extent("n")?;
        self.mark(',')?;
        let k = self.extent("k")?;
        self.mark(':')?;
        let c = self.matrix("m", "n")?;
        let accumulate = self.eat('+');
        self.mark('=')?;
        let alpha = match read_f32(self.peek()) {
            Some(x) => {
                self.next();
                self.mark('*')?;
                x
            }
            None => 1.0,
        };
        let a = self.matrix("m", "k")?;
        self.mark('*')?;
        let b = self.matrix("k", "n")?;
        Ok(Gemm { m, n, k, a, b, c, alpha, accumulate })
    }

    pub(super) fn extent(&mut self, name: &str) -> Result<Extent> {
        self.keyword(name)?;
        self.mark('=')?;
        let n = self.integer("a length")?;
        if self.eat_word("seen") {
            self.keyword("from")?;
            return Ok(Extent::Seen { len: n, position: self.access()? });
        }
        if !self.eat_word("of") {
            return Ok(Extent::Fixed(n));
        }
        let len = self.integer("the whole length")?;
        self.keyword("by")?;
        let Token::Word(word) = self.peek().clone() else { return self.fail("a dimension of the grid, as in `g0`") };
        match word.strip_prefix('g').and_then(|d| d.parse().ok()) {
            Some(dim) => {
                self.next();
                Ok(Extent::Tile { dim, tile: n, len })
            }
            None => self.fail("a dimension of the grid, as in `g0`"),
        }
    }

    fn access(&mut self) -> Result<Access> {
        let (buffer, mut at) = self.element(&["iter", "begin"])?;
        let (iter, rebase) = (at.take("iter"), at.take("begin").wrapping_neg());
        Ok(Access { buffer, base: at.base, unit: at.unit, iter, rebase })
    }

    fn matrix(&mut self, row: &str, col: &str) -> Result<Matrix> {
        let (buffer, mut at) = self.element(&["iter", row, col])?;
        let (iter, row, col) = (at.take("iter"), at.take(row), at.take(col));
        Ok(Matrix { buffer, base: at.base, unit: at.unit, iter, row, col })
    }

    /// A buffer, and an element of it as a sum of strides times the grid's indices and these.
    pub(super) fn element(&mut self, indices: &[&str]) -> Result<(BufferId, Sum)> {
        let here = self.at;
        let key = self.buffer_name()?;
        let Some(buffer) = self.buffers.get(&key).copied() else {
            self.at = here;
            return self.unknown("a buffer that is declared above", &key.0, self.buffers.keys().map(|k| k.0.as_str()));
        };
        let mut sum = Sum::default();
        if !self.eat('[') {
            return Ok((buffer, sum));
        }
        loop {
            self.term(&mut sum, indices)?;
            if self.eat(']') {
                return Ok((buffer, sum));
            }
            self.mark('+')?;
        }
    }

    fn term(&mut self, sum: &mut Sum, indices: &[&str]) -> Result<()> {
        let stride = match self.peek() {
            Token::Number(_) => {
                let n = self.integer("an integer of 64 bits")?;
                if !self.eat('*') {
                    sum.base = n;
                    return Ok(());
                }
                n
            }
            _ => 1,
        };
        let Token::Word(word) = self.peek().clone() else { return self.fail("an index") };
        match word.strip_prefix('g').and_then(|d| d.parse::<usize>().ok()).filter(|d| *d < DIMS) {
            Some(d) => {
                sum.unit.resize(sum.unit.len().max(d + 1), 0);
                sum.unit[d] = stride;
            }
            None if indices.contains(&word.as_str()) => drop(sum.others.insert(word, stride)),
            None => {
                return self.unknown("an index of the grid, as in `g0`, or another", &word, indices.iter().copied());
            }
        }
        self.next();
        Ok(())
    }
}
