//! Plans and modules as text.
use crate::kernel::Kernel;
use crate::plan::{
    Access, Buffer, BufferId, Extent, Gemm, KernelStage, Launch, Matrix, Module, Place, Plan, Port, Span, Stage, Step,
};
use crate::text::print::{at, float32, init_text, state_text, table_text};
use std::collections::BTreeMap;

/// A plan; the names of the kernels stand in comments, where they are known.
pub fn plan(p: &Plan, kernels: &[Kernel]) -> String {
    let mut lines = vec![format!("plan {}", at(&p.program))];
    lines.push(format!("arena {}", p.arena));
    lines.push(format!("scratch {}", p.scratch));
    lines.extend(p.inputs.iter().map(|x| format!("input {}", port(x))));
    lines.extend(p.outputs.iter().map(|x| format!("output {}", port(x))));
    lines.push(String::new());
    let printer = Printer { names: names(&p.buffers), kernels };
    lines.extend(p.buffers.iter().zip(&printer.names).map(|(b, name)| buffer(b, name)));
    for s in &p.steps {
        lines.push(String::new());
        match s {
            Step::Launch(l) => printer.launch(l, "", &mut lines),
            Step::Repeat { times, body } => {
                lines.push(format!("repeat {times} {{"));
                body.iter().for_each(|l| printer.launch(l, "  ", &mut lines));
                lines.push("}".into());
            }
        }
    }
    lines.join("\n") + "\n"
}

pub fn module(m: &Module) -> String {
    let mut out = "module\n".to_string();
    let params =
        m.params.iter().map(|p| format!("param {}: {}{} {}", at(&p.name), p.dtype, shape(&p.shape), init(p.init)));
    let states = m.states.iter().map(|s| {
        let rest = state_text(s.rows, s.init.as_deref());
        format!("state {}: {}{}{rest}", at(&s.name), s.dtype, shape(&s.shape))
    });
    let tables = m.tables.iter().map(|t| format!("table {}{} {}", at(&t.name), shape(&t.shape), table_text(t.table)));
    params.chain(states).chain(tables).for_each(|line| out += &(line + "\n"));
    m.kernels.iter().for_each(|k| out += &format!("\n{k}"));
    m.plans.iter().for_each(|p| out += &format!("\n{}", plan(p, &m.kernels)));
    out
}

fn init(i: crate::graph::Init) -> String {
    format!("init {}", init_text(i))
}

fn shape(dims: &[usize]) -> String {
    format!("[{}]", join(dims.iter().map(usize::to_string), ", "))
}

fn join(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}

fn port(p: &Port) -> String {
    format!("{}: {}{}", at(&p.name), p.dtype, shape(&p.shape))
}

/// What each buffer is called: its name, and its number where others before it have the same name.
fn names(buffers: &[Buffer]) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let name = |b: &'_ Buffer, n: usize| if n == 1 { at(&b.name) } else { format!("{}~{n}", at(&b.name)) };
    let mut out = vec![];
    for b in buffers {
        let n = seen.entry(&b.name).or_insert(0);
        *n += 1;
        out.push(name(b, *n));
    }
    out
}

fn buffer(b: &Buffer, name: &str) -> String {
    let named = |word: &str, of: &String| if *of == b.name { word.into() } else { format!("{word} {}", at(of)) };
    let place = match &b.place {
        Place::Arena(x) => format!("arena {x}"),
        Place::Scratch(x) => format!("scratch {x}"),
        Place::Param(n) => named("param", n),
        Place::State(n) => named("state", n),
        Place::Table(n) => named("table", n),
        Place::Input(n) => named("input", n),
        Place::Output(n) => named("output", n),
    };
    format!("buffer {name}: {}[{}] {place}", b.dtype, b.len)
}

/// A sum of strides times indices. A term of stride 0 is left out unless it is `kept`.
#[derive(Default)]
pub(super) struct Sum(Vec<String>);

impl Sum {
    pub(super) fn new(base: i64, unit: &[i64]) -> Self {
        let mut s = Sum::default();
        if base != 0 {
            s.0.push(base.to_string());
        }
        for (d, stride) in unit.iter().enumerate() {
            s.term(*stride, &format!("g{d}"), d + 1 == unit.len());
        }
        s
    }
    pub(super) fn term(&mut self, stride: i64, index: &str, kept: bool) {
        match stride {
            0 if !kept => {}
            1 => self.0.push(index.into()),
            _ => self.0.push(format!("{stride}*{index}")),
        }
    }
}

/// The names of a plan's buffers and of the kernels it calls.
pub(super) struct Printer<'a> {
    names: Vec<String>,
    kernels: &'a [Kernel],
}

impl Printer<'_> {
    pub(super) fn element(&self, b: BufferId, at: Sum) -> String {
        let unknown = format!("@\"buffer {}, which does not exist\"", b.0);
        let name = self.names.get(b.0 as usize).unwrap_or(&unknown);
        if at.0.is_empty() { name.clone() } else { format!("{name}[{}]", at.0.join(" + ")) }
    }

    fn launch(&self, l: &Launch, indent: &str, lines: &mut Vec<String>) {
        let grid = join(l.grid.iter().map(u32::to_string), ", ");
        let head = format!("launch {}: {} [{grid}] flops {} bytes {}", at(&l.name), l.kind.name(), l.flops, l.bytes);
        lines.push(format!("{indent}{head} {{"));
        for s in &l.stages {
            let stage = match s {
                Stage::Kernel(k) => self.call(k),
                Stage::Gemm(g) => self.gemm(g),
                Stage::Group(g) => self.group(g),
                Stage::Routed(r) => self.routed(r),
            };
            lines.push(format!("{indent}  {stage}"));
        }
        lines.push(format!("{indent}}}"));
    }

    fn call(&self, k: &KernelStage) -> String {
        let operands = join(k.operands.iter().map(|a| self.access(a)), ", ");
        let span = match k.span {
            Span::Same => String::new(),
            Span::Tiles { len, tile } => format!(" tiles {tile} of {len}"),
            Span::Rows { len, lo, hi } => format!(" rows {lo} to {hi} of {len}"),
        };
        let name = self.kernels.get(k.kernel as usize).map_or(String::new(), |k| format!(" ; {}", k.name));
        format!("call {} ({operands}){span}{name}", k.kernel)
    }

    fn access(&self, a: &Access) -> String {
        let mut at = Sum::new(a.base, &a.unit);
        at.term(a.iter, "iter", false);
        at.term(a.rebase.wrapping_neg(), "begin", false);
        self.element(a.buffer, at)
    }

    fn matrix(&self, m: &Matrix, row: &str, col: &str) -> String {
        let mut at = Sum::new(m.base, &m.unit);
        at.term(m.iter, "iter", false);
        at.term(m.row, row, false);
        at.term(m.col, col, false);
        self.element(m.buffer, at)
    }

    fn gemm(&self, g: &Gemm) -> String {
        let lengths = [("m", &g.m), ("n", &g.n), ("k", &g.k)].map(|(name, e)| format!("{name}={}", self.extent(e)));
        let (c, a, b) = (self.matrix(&g.c, "m", "n"), self.matrix(&g.a, "m", "k"), self.matrix(&g.b, "k", "n"));
        let becomes = if g.accumulate { "+=" } else { "=" };
        let alpha = if g.alpha == 1.0 { String::new() } else { format!("{} * ", float32(g.alpha)) };
        format!("gemm {}: {c} {becomes} {alpha}{a} * {b}", lengths.join(", "))
    }

    pub(super) fn extent(&self, e: &Extent) -> String {
        match e {
            Extent::Fixed(n) => n.to_string(),
            Extent::Tile { dim, tile, len } => format!("{tile} of {len} by g{dim}"),
            Extent::Seen { len, position } => format!("{len} seen from {}", self.access(position)),
        }
    }
}
