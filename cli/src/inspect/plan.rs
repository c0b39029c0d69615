//! Programs, launches, kernels and memory of a compiled module or an artifact.
use super::usage::Record;
use crate::output::{bytes, scaled};
use crate::table::Table;
use lolm_ir::artifact::{ParamRecord, StateRecord, TableRecord};
use lolm_ir::plan::{Buffer, Extent, Gemm, Kind, Launch, Module, Place, Plan, Port, Stage, Step};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The launches of a step and how often it takes them.
pub fn launches(p: &Plan) -> impl Iterator<Item = (&Launch, u64)> {
    p.steps.iter().flat_map(|s| match s {
        Step::Launch(l) => vec![(l, 1)],
        Step::Repeat { times, body } => body.iter().map(|l| (l, *times as u64)).collect(),
    })
}

/// What one program takes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Program {
    pub program: String,
    pub launches: u64,
    /// Distinct kernels.
    pub kernels: usize,
    pub flops: u64,
    /// Bytes that the launches read and write.
    pub bytes: u64,
    /// FLOPs a token of the program's input `tokens`.
    pub flops_per_token: Option<f64>,
    pub arena: u64,
    /// A thread.
    pub scratch: u64,
    pub kinds: Vec<Share>,
}

/// The launches of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Share {
    pub kind: Kind,
    pub launches: u64,
    pub flops: u64,
    pub bytes: u64,
}

impl Program {
    pub fn of(p: &Plan) -> Self {
        let mut kinds: BTreeMap<Kind, Share> = BTreeMap::new();
        let mut kernels = BTreeSet::new();
        for (l, times) in launches(p) {
            let s = kinds.entry(l.kind).or_insert(Share { kind: l.kind, launches: 0, flops: 0, bytes: 0 });
            s.launches += times;
            s.flops += times * l.flops;
            s.bytes += times * l.bytes;
            kernels.extend(l.stages.iter().filter_map(|s| match s {
                Stage::Kernel(k) => Some(k.kernel),
                Stage::Gemm(_) | Stage::Group(_) | Stage::Routed(_) => None,
            }));
        }
        let kinds: Vec<Share> = kinds.into_values().collect();
        let sum = |f: fn(&Share) -> u64| kinds.iter().map(f).sum();
        let flops = sum(|s| s.flops);
        Program {
            program: p.program.clone(),
            launches: sum(|s| s.launches),
            kernels: kernels.len(),
            flops,
            bytes: sum(|s| s.bytes),
            flops_per_token: tokens(p).map(|n| flops as f64 / n as f64),
            arena: p.arena,
            scratch: p.scratch,
            kinds,
        }
    }
}

/// Tokens that a run of the program takes in.
pub fn tokens(p: &Plan) -> Option<u64> {
    let port = p.inputs.iter().find(|i| i.name == "tokens")?;
    Some(port.shape.iter().map(|d| *d as u64).product())
}

/// A row a program.
pub fn show_programs(programs: &[Program]) -> String {
    let columns = [
        "program",
        ">launches",
        ">kernels",
        ">arithmetic",
        ">a token",
        ">memory traffic",
        ">arena",
        ">scratch a thread",
    ];
    let mut t = Table::new(&columns);
    for p in programs {
        t.row(&[
            p.program.clone(),
            p.launches.to_string(),
            p.kernels.to_string(),
            scaled(p.flops as f64, "FLOP"),
            p.flops_per_token.map_or("-".into(), |x| scaled(x, "FLOP")),
            bytes(p.bytes),
            bytes(p.arena),
            bytes(p.scratch),
        ]);
    }
    t.to_string()
}

/// A row a kind of launch.
pub fn show_kinds(p: &Program) -> String {
    let mut t = Table::new(&["kind", ">launches", ">arithmetic", ">memory traffic"]);
    for s in &p.kinds {
        let flops = scaled(s.flops as f64, "FLOP");
        t.row(&[word(&s.kind), s.launches.to_string(), flops, bytes(s.bytes)]);
    }
    format!("{}\n\n{t}", p.program)
}

/// The name of a plain enum as serde writes it.
pub fn word<T: Serialize>(x: &T) -> String {
    serde_json::to_value(x).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_else(|| "?".into())
}

/// Bytes by what they are for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Memory {
    pub parameters: u64,
    /// Moments of the optimizer, which only training needs.
    pub optimizer: u64,
    /// What a sequence carries from token to token.
    pub states: u64,
    pub tables: u64,
    pub ports: u64,
    /// The largest arena: programs never run at the same time.
    pub arena: u64,
    /// The largest scratch, a thread.
    pub scratch: u64,
}

impl Memory {
    pub fn of(params: &[ParamRecord], states: &[StateRecord], tables: &[TableRecord], plans: &[Plan]) -> Self {
        let len = |shape: &[usize]| shape.iter().map(|d| *d as u64).product::<u64>();
        let of_states = |adam: bool| {
            let chosen = states.iter().filter(|s| s.name.starts_with("adam.") == adam);
            chosen.map(|s| len(&s.shape) * s.dtype.bytes() as u64).sum()
        };
        let port = |p: &Port| len(&p.shape) * p.dtype.bytes() as u64;
        Memory {
            parameters: params.iter().map(|p| p.dtype.bytes() as u64 * len(&p.shape)).sum(),
            optimizer: of_states(true),
            states: of_states(false),
            tables: tables.iter().map(|t| 4 * len(&t.shape)).sum(),
            ports: plans.iter().flat_map(|p| p.inputs.iter().chain(&p.outputs)).map(port).sum(),
            arena: plans.iter().map(|p| p.arena).max().unwrap_or(0),
            scratch: plans.iter().map(|p| p.scratch).max().unwrap_or(0),
        }
    }

    pub fn total(&self, threads: u64) -> u64 {
        let fixed = [self.parameters, self.optimizer, self.states, self.tables, self.ports, self.arena];
        fixed.iter().sum::<u64>() + threads * self.scratch
    }

    pub fn show(&self) -> String {
        let mut t = Table::new(&["memory", ">bytes"]);
        let rows = [
            ("parameters", self.parameters),
            ("optimizer", self.optimizer),
            ("states", self.states),
            ("tables", self.tables),
            ("inputs and outputs", self.ports),
            ("arena of the largest program", self.arena),
            ("scratch a thread", self.scratch),
            ("together, with 2 threads", self.total(2)),
        ];
        rows.iter().for_each(|(name, n)| t.row(&[name.to_string(), bytes(*n)]));
        t.to_string()
    }
}

/// A kernel and what it is used for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Kernel {
    pub kernel: usize,
    pub name: String,
    /// Its axes, such as `512x64`.
    pub axes: String,
    pub operands: usize,
    pub values: usize,
    /// Launches of all programs that use it.
    pub launches: u64,
    /// Of these launches, other stages included.
    pub flops: u64,
    pub bytes: u64,
}

/// The kernels of a module with their uses.
pub fn kernels(m: &Module) -> Vec<Kernel> {
    let row = |(i, k): (usize, &lolm_ir::kernel::Kernel)| Kernel {
        kernel: i,
        name: k.name.clone(),
        axes: k.axes.iter().map(|a| a.len.to_string()).collect::<Vec<_>>().join("x"),
        operands: k.operands.len(),
        values: k.values.len(),
        launches: 0,
        flops: 0,
        bytes: 0,
    };
    let mut out: Vec<Kernel> = m.kernels.iter().enumerate().map(row).collect();
    for (l, times) in m.plans.iter().flat_map(launches) {
        let used: BTreeSet<u32> = l.stages.iter().filter_map(kernel_of).collect();
        for k in used {
            let k = &mut out[k as usize];
            k.launches += times;
            k.flops += times * l.flops;
            k.bytes += times * l.bytes;
        }
    }
    out
}

fn kernel_of(s: &Stage) -> Option<u32> {
    match s {
        Stage::Kernel(k) => Some(k.kernel),
        Stage::Gemm(_) | Stage::Group(_) | Stage::Routed(_) => None,
    }
}

pub fn show_kernels(kernels: &[Kernel]) -> String {
    let mut t =
        Table::new(&[">#", "kernel", "axes", ">operands", ">values", ">launches", ">arithmetic", ">memory traffic"]);
    for k in kernels {
        t.row(&[
            k.kernel.to_string(),
            k.name.clone(),
            k.axes.clone(),
            k.operands.to_string(),
            k.values.to_string(),
            k.launches.to_string(),
            scaled(k.flops as f64, "FLOP"),
            bytes(k.bytes),
        ]);
    }
    format!("{t}\narithmetic and traffic are those of the launches, with their other stages\n")
}

/// The launches of a program in order, as a table.
pub fn show_launches(p: &Plan) -> String {
    let mut t = Table::new(&[">#", "launch", "kind", "grid", "stages", ">arithmetic", ">memory traffic"]);
    for (i, (l, times)) in launches(p).enumerate() {
        let grid = l.grid.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
        let name = if times > 1 { format!("{} ({times} times)", l.name) } else { l.name.clone() };
        let stages = l.stages.iter().map(stage).collect::<Vec<_>>().join(", ");
        let flops = scaled(l.flops as f64, "FLOP");
        t.row(&[i.to_string(), name, word(&l.kind), grid, stages, flops, bytes(l.bytes)]);
    }
    format!("{}\n\n{t}", p.program)
}

fn stage(s: &Stage) -> String {
    match s {
        Stage::Kernel(k) => format!("k{}", k.kernel),
        Stage::Gemm(g) => gemm(g),
        Stage::Group(g) => format!("group {} by {}", g.rows, g.experts),
        Stage::Routed(r) => format!("routed {}x{}x{}", length(&r.taken), length(&r.width), length(&r.depth)),
    }
}

fn gemm(g: &Gemm) -> String {
    format!("gemm {}x{}x{}", length(&g.m), length(&g.n), length(&g.k))
}

fn length(e: &Extent) -> String {
    match e {
        Extent::Fixed(n) => n.to_string(),
        Extent::Tile { tile, .. } => tile.to_string(),
        Extent::Seen { len, .. } => format!("..{len}"),
    }
}

/// The largest buffers of a program's arena and where they lie.
pub fn show_arena(p: &Plan, most: usize) -> String {
    let in_arena = |b: &&Buffer| matches!(b.place, Place::Arena(_));
    let mut buffers: Vec<(u64, &Buffer)> = p.buffers.iter().filter(in_arena).map(|b| (size(b), b)).collect();
    let (count, sum) = (buffers.len(), buffers.iter().map(|b| b.0).sum::<u64>());
    buffers.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let mut t = Table::new(&[">bytes", ">offset", "buffer"]);
    for (n, b) in buffers.into_iter().take(most) {
        let Place::Arena(at) = b.place else { continue };
        t.row(&[bytes(n), at.to_string(), b.name.clone()]);
    }
    let share = bytes(p.arena);
    format!("{}: {count} buffers of {} share {share}; the largest:\n\n{t}", p.program, bytes(sum))
}

fn size(b: &Buffer) -> u64 {
    b.len * b.dtype.bytes() as u64
}

/// The kernels of an artifact.
pub fn show_records(records: &[Record]) -> String {
    let blocks = records.iter().any(|r| r.kernel.block.is_some());
    let known = records.iter().any(|r| r.usage.is_some());
    let of_blocks: &[&str] = if blocks { &[">blocks", ">threads"] } else { &[] };
    let of_usage: &[&str] = if known { &[">registers", ">shared", "complaints"] } else { &[] };
    let mut t = Table::new(&[&[">#", "kernel", "units", ">operands", ">code"], of_blocks, of_usage].concat());
    for (i, Record { kernel: k, usage }) in records.iter().enumerate() {
        let units = k.unit_dims.iter().map(u32::to_string).collect::<Vec<_>>().join("x");
        let mut row = vec![i.to_string(), k.name.clone(), units, k.operands.len().to_string(), bytes(k.len)];
        if let Some(b) = k.block {
            row.extend([k.units.div_ceil(b.units as u64).to_string(), b.threads.to_string()]);
        }
        if let Some(u) = usage {
            row.extend([u.registers.to_string(), bytes(u.shared as u64), u.complaints.join("; ")]);
        }
        t.row(&row);
    }
    t.to_string()
}
