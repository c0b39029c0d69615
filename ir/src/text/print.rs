//! A graph as text.
use super::lex::{is_name, is_word_start, quoted};
use crate::axis::AxisId;
use crate::dtype::{DType, Scalar};
use crate::graph::{Dim, Graph, Init, Leaf, LeafKind, Node, RopeScaling, RowKind, ScopeId, Table, Type};
use crate::op::{Attr, Op};

/// The widest line of axes.
const WIDTH: usize = 110;

/// The text of a graph; [`super::parse`] is the inverse.
pub fn print(g: &Graph) -> String {
    let mut lines = vec![format!("func {}", at(&g.name))];
    lines.extend(axis_lines(g));
    lines.extend(g.leaves.iter().map(|l| leaf_line(g, l)));
    lines.push(String::new());
    let mut scopes = Scopes { g, known: 1, current: ScopeId(0) };
    for (i, node) in g.nodes.iter().enumerate() {
        scopes.enter(node.scope, &mut lines);
        lines.push(node_line(g, i, node));
    }
    scopes.declare(g.scopes.len(), &mut lines);
    lines.extend(g.outputs.iter().map(|o| format!("output {}{} = %{}", at(&o.name), dims(g, &o.dims), o.value.0)));
    lines.extend(g.writes.iter().map(|w| format!("write {} = %{}", at(&g.leaf(w.leaf).name), w.value.0)));
    lines.join("\n") + "\n"
}

/// Which scopes have been declared, and which one the next operation would be in.
struct Scopes<'a> {
    g: &'a Graph,
    known: usize,
    current: ScopeId,
}

impl Scopes<'_> {
    /// Declares the scopes below `end` that are new; the last of them is the current one then.
    fn declare(&mut self, end: usize, lines: &mut Vec<String>) {
        while self.known < end {
            self.current = ScopeId(self.known as u32);
            lines.push(format!("scope {}", quoted(self.g.scope(self.current))));
            self.known += 1;
        }
    }
    fn enter(&mut self, s: ScopeId, lines: &mut Vec<String>) {
        self.declare(s.0 as usize + 1, lines);
        if self.current != s {
            lines.push(format!("scope {} {}", s.0, quoted(self.g.scope(s))));
            self.current = s;
        }
    }
}

/// A name behind `@`.
pub(crate) fn at(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(is_name);
    if bare { format!("@{name}") } else { format!("@{}", quoted(name)) }
}

/// Words that stand for something else than an axis.
fn is_reserved(word: &str) -> bool {
    let number = word == "inf" || word == "nan" || word.starts_with("nan.");
    number || word == "true" || word == "false" || DType::from_name(word).is_some()
}

fn axis_name(g: &Graph, a: AxisId) -> String {
    let name = &g.axis(a).name;
    let bare = name.starts_with(is_word_start) && name.chars().all(is_name) && !is_reserved(name);
    if bare { name.clone() } else { quoted(name) }
}

fn axis_lines(g: &Graph) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for i in 0..g.axes.len() {
        let a = AxisId(i as u8);
        let item = format!(" {}={}", axis_name(g, a), g.len(a));
        match lines.last_mut() {
            Some(line) if line.len() + item.len() <= WIDTH => line.push_str(&item),
            _ => lines.push(format!("axis{item}")),
        }
    }
    lines
}

/// Axes between brackets, in the order given.
fn list(g: &Graph, axes: impl Iterator<Item = AxisId>) -> String {
    format!("[{}]", axes.map(|a| axis_name(g, a)).collect::<Vec<_>>().join(","))
}

fn dims(g: &Graph, dims: &[Dim]) -> String {
    let dim = |d: &Dim| match d[..] {
        [] => "1".to_string(),
        _ => d.iter().map(|a| axis_name(g, *a)).collect::<Vec<_>>().join("*"),
    };
    format!("[{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", "))
}

fn leaf_line(g: &Graph, leaf: &Leaf) -> String {
    let (word, rest) = match &leaf.kind {
        LeafKind::Param(init) => ("param", format!(" init {}", init_text(*init))),
        LeafKind::Input => ("input", String::new()),
        LeafKind::State { init, rows } => ("state", state_text(*rows, init.as_deref())),
        LeafKind::Table(table) => ("table", format!(" {}", table_text(*table))),
    };
    format!("{word} {}: {}{}{rest}", at(&leaf.name), leaf.dtype, dims(g, &leaf.dims))
}

/// What follows the type of a state.
pub(crate) fn state_text(rows: RowKind, init: Option<&str>) -> String {
    let rows = match rows {
        RowKind::None => String::new(),
        RowKind::Whole | RowKind::Kept | RowKind::Ring => format!(" rows {}", rows.name()),
    };
    rows + &init.map_or(String::new(), |from| format!(" init {}", at(from)))
}

pub(crate) fn init_text(init: Init) -> String {
    match init {
        Init::Zeros => "zeros".into(),
        Init::Constant(x) => format!("constant {}", float32(x)),
        Init::Normal(x) => format!("normal {}", float32(x)),
        Init::LogRange => "log_range".into(),
        Init::Decay { lo, hi } => format!("decay {} {}", float32(lo), float32(hi)),
        Init::DtBias { lo, hi } => format!("dt_bias {} {}", float32(lo), float32(hi)),
    }
}

pub(crate) fn table_text(table: Table) -> String {
    match table {
        Table::RopeCos { theta, scaling } => format!("rope_cos {}{}", float64(theta), scaling_text(scaling)),
        Table::RopeSin { theta, scaling } => format!("rope_sin {}{}", float64(theta), scaling_text(scaling)),
    }
}

fn scaling_text(scaling: Option<RopeScaling>) -> String {
    let Some(s) = scaling else { return String::new() };
    let factors = [s.factor, s.low_freq_factor, s.high_freq_factor].map(float64).join(" ");
    format!(" llama3 {factors} {}", s.original_context)
}

fn node_line(g: &Graph, i: usize, node: &Node) -> String {
    let ty = |t: &Type| format!("{}{}", t.dtype, list(g, t.axes.iter()));
    let types = node.types.iter().map(ty).collect::<Vec<_>>().join(", ");
    let args = node.args.iter().map(|a| format!("%{}", a.0)).collect::<Vec<_>>().join(", ");
    let parts = node.op.parts();
    let attrs = match node.op {
        // The only attribute of these two needs no name.
        Op::Leaf(_) | Op::Const(_) => parts.iter().map(|(_, v)| attr(g, v)).collect(),
        _ if parts.is_empty() => String::new(),
        _ => format!("{{{}}}", parts.iter().map(|(k, v)| format!("{k}={}", attr(g, v))).collect::<Vec<_>>().join(", ")),
    };
    let words = [node.op.mnemonic(), &attrs, &args].into_iter().filter(|s| !s.is_empty());
    format!("%{i}: {types} = {}", words.collect::<Vec<_>>().join(" "))
}

fn attr(g: &Graph, a: &Attr) -> String {
    match a {
        Attr::Axis(a) => axis_name(g, *a),
        Attr::Axes(axes) => list(g, axes.iter()),
        Attr::List(axes) => list(g, axes.iter().copied()),
        Attr::Int(i) => i.to_string(),
        Attr::Scalar(Scalar::I32(i)) => i.to_string(),
        Attr::Float(bits) | Attr::Scalar(Scalar::F32(bits)) => float32(f32::from_bits(*bits)),
        Attr::Scalar(Scalar::Bool(b)) | Attr::Flag(b) => b.to_string(),
        Attr::DType(d) => d.to_string(),
        Attr::Leaf(l) => at(&g.leaf(*l).name),
    }
}

/// The shortest digits that read back to the same bits, always with a point or an exponent.
pub(crate) fn float32(x: f32) -> String {
    match x.to_bits() {
        0x7fc0_0000 => "nan".into(),
        bits if x.is_nan() => format!("nan.{bits:08x}"),
        _ => format!("{x:?}"),
    }
}

fn float64(x: f64) -> String {
    match x.to_bits() {
        0x7ff8_0000_0000_0000 => "nan".into(),
        bits if x.is_nan() => format!("nan.{bits:016x}"),
        _ => format!("{x:?}"),
    }
}
