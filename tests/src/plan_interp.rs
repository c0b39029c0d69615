//! A plan run by the kernel interpreter and plain loops in f64: what lowering means, without code generation.
use lolm_ir::interp::{round_bf16, table};
use lolm_ir::kernel::{KAxis, KOp, Kernel, Mode};
use lolm_ir::plan::{
    Buffer, BufferId, Extent, Gemm, KernelStage, Launch, Matrix, Module, Place, Plan, Span, Stage, Step,
};
use lolm_ir::{DType, Scalar};
use std::collections::BTreeMap;

mod routed;

pub type Named = BTreeMap<String, Vec<f64>>;

/// Runs the plan on parameters, states and inputs by name; gives its outputs, and parameters and states afterwards. A
/// buffer of the arena whose bytes another one takes over is full of NaN from then on.
pub fn run(m: &Module, p: &Plan, given: &Named) -> (Named, Named) {
    let shared = |name: &String, len: usize| match m.tables.iter().find(|t| t.name == *name) {
        Some(t) => table(&t.table, t.shape[0], t.shape[1]),
        None => given.get(name).cloned().unwrap_or_else(|| vec![0.0; len]),
    };
    let mut memory: Vec<Vec<f64>> = vec![];
    for b in &p.buffers {
        let len = b.len as usize;
        memory.push(match &b.place {
            Place::Arena(_) | Place::Scratch(_) | Place::Output(_) => vec![f64::NAN; len],
            Place::Param(n) | Place::State(n) | Place::Table(n) | Place::Input(n) => stored(shared(n, len), b.dtype),
        });
    }
    let shared = shared_bytes(p);
    for s in &p.steps {
        match s {
            Step::Launch(l) => launch(m, l, &shared, &mut memory),
            Step::Repeat { times, body } => {
                for round in 0..*times {
                    body.iter().for_each(|l| launch(m, &at_round(l, round as i64), &shared, &mut memory));
                }
            }
        }
    }
    let (mut outputs, mut after) = (Named::new(), Named::new());
    for (b, d) in p.buffers.iter().zip(memory) {
        match &b.place {
            Place::Output(n) => drop(outputs.insert(n.clone(), d)),
            Place::Param(n) | Place::State(n) => drop(after.insert(n.clone(), d)),
            Place::Arena(_) | Place::Scratch(_) | Place::Table(_) | Place::Input(_) => {}
        }
    }
    (outputs, after)
}

/// Runs all units of a launch; what shares bytes with the memory that it writes is lost.
fn launch(m: &Module, l: &Launch, shared: &[Vec<usize>], memory: &mut [Vec<f64>]) {
    for other in written(m, l).iter().flat_map(|b| &shared[b.0 as usize]) {
        memory[*other].fill(f64::NAN);
    }
    for unit in 0..l.grid.iter().product::<u32>() {
        let at = grid_index(&l.grid, unit);
        for stage in &l.stages {
            match stage {
                Stage::Kernel(k) => kernel(m, &l.name, k, unit, &at, memory),
                Stage::Gemm(g) => gemm(g, &at, memory),
                Stage::Group(g) => routed::group(g, memory),
                Stage::Routed(r) => routed::product(r, &at, memory),
            }
        }
    }
}

/// A launch of one kernel as it is in a round of its loop.
fn at_round(l: &Launch, round: i64) -> Launch {
    let mut l = l.clone();
    for stage in &mut l.stages {
        let Stage::Kernel(k) = stage else { panic!("only kernels are repeated in this interpreter") };
        k.operands.iter_mut().for_each(|o| o.base += o.iter * round);
    }
    l
}

/// Numbers as memory of this dtype holds them.
fn stored(mut x: Vec<f64>, dtype: DType) -> Vec<f64> {
    if dtype == DType::Bf16 {
        x.iter_mut().for_each(|x| *x = round_bf16(*x));
    }
    x
}

/// For each buffer of the arena, the others that have bytes in common with it: writing it ends their lives.
fn shared_bytes(p: &Plan) -> Vec<Vec<usize>> {
    let range = |b: &Buffer| match b.place {
        Place::Arena(at) => at..at + b.len * b.dtype.bytes() as u64,
        _ => 0..0,
    };
    let ranges: Vec<_> = p.buffers.iter().map(range).collect();
    let meet = |i: usize, j: usize| i != j && ranges[i].start < ranges[j].end && ranges[j].start < ranges[i].end;
    (0..ranges.len()).map(|i| (0..ranges.len()).filter(|j| meet(i, *j)).collect()).collect()
}

/// The buffers that a launch writes.
fn written(m: &Module, l: &Launch) -> Vec<BufferId> {
    let mut out = vec![];
    for stage in &l.stages {
        match stage {
            Stage::Gemm(g) => out.push(g.c.buffer),
            Stage::Group(g) => out.extend(g.touched().1),
            Stage::Routed(r) => out.extend(r.touched().1),
            Stage::Kernel(s) => {
                let operands = s.operands.iter().zip(&m.kernels[s.kernel as usize].operands);
                out.extend(operands.filter(|(_, o)| o.mode != Mode::In).map(|(a, _)| a.buffer));
            }
        }
    }
    out
}

fn grid_index(grid: &[u32], unit: u32) -> Vec<i64> {
    let mut at = vec![0i64; grid.len()];
    let mut rest = unit;
    for (i, n) in grid.iter().enumerate().rev() {
        at[i] = (rest % n) as i64;
        rest /= n;
    }
    at
}

/// The units of a kernel stage that belong to one unit of its launch.
fn kernel(m: &Module, launch: &str, stage: &KernelStage, unit: u32, at: &[i64], memory: &mut [Vec<f64>]) {
    let k = &m.kernels[stage.kernel as usize];
    k.verify().unwrap_or_else(|e| panic!("{launch}: {e}\n{k}"));
    let units = match stage.span {
        Span::Same => return call(k, launch, stage, at, 0, memory),
        Span::Tiles { len, tile } => {
            let (outer, i) = (unit as i64 / tiles(len, tile), *at.last().unwrap());
            let lo = outer * len as i64 + i * tile as i64;
            lo..lo + (tile as i64).min(len as i64 - i * tile as i64)
        }
        Span::Rows { len, lo, hi } => {
            let first = unit as i64 * len as i64;
            first + lo as i64..first + hi as i64
        }
    };
    let begin = units.start;
    for u in units {
        call(&at_unit(k, u), launch, stage, at, begin, memory);
    }
}

fn tiles(len: u32, tile: u32) -> i64 {
    len.div_ceil(tile) as i64
}

/// The kernel at one unit: unit axes become constants.
fn at_unit(k: &Kernel, unit: i64) -> Kernel {
    let mut rest = unit;
    let mut fixed = vec![];
    for (a, tile) in k.units.iter().rev() {
        assert_eq!(*tile, 1, "only units of one coordinate are for this interpreter");
        let len = k.axis(*a).len as i64;
        fixed.push((*a, rest % len));
        rest /= len;
    }
    let value = |a: &KAxis| fixed.iter().find(|f| f.0 == *a).map(|f| f.1);
    let mut out = k.clone();
    out.units.clear();
    out.values.clear();
    for v in &k.values {
        let mut op = v.op.clone();
        match &mut op {
            KOp::Load(_, w) | KOp::Store(_, w) | KOp::Accumulate(_, w) => {
                w.base += w.terms.iter().filter_map(|(a, s)| value(a).map(|i| i * s)).sum::<i64>();
                w.terms.retain(|t| value(&t.0).is_none());
            }
            KOp::Index(a) => {
                if let Some(i) = value(a) {
                    op = KOp::Const(Scalar::I32(i as i32));
                }
            }
            _ => {}
        }
        out.push(op, &v.args, v.dtype);
    }
    out
}

/// Runs a kernel on buffers as the stage addresses them.
fn call(k: &Kernel, launch: &str, stage: &KernelStage, at: &[i64], begin: i64, memory: &mut [Vec<f64>]) {
    let mut k = k.clone();
    for (i, o) in stage.operands.iter().enumerate() {
        let shift = o.base + o.unit.iter().zip(at).map(|(s, i)| s * i).sum::<i64>() - o.rebase * begin;
        k.operands[i].len = memory[o.buffer.0 as usize].len() as u64;
        for v in &mut k.values {
            if let KOp::Load(x, w) | KOp::Store(x, w) | KOp::Accumulate(x, w) = &mut v.op
                && x.0 as usize == i
            {
                w.base += shift;
            }
        }
    }
    // Operands that are only read may lie in one buffer: the first of them holds its contents, the others a copy.
    let first = |i: usize| stage.operands.iter().position(|o| o.buffer == stage.operands[i].buffer).unwrap_or(i);
    let mut data: Vec<Vec<f64>> = vec![];
    for (i, o) in stage.operands.iter().enumerate() {
        let content =
            if first(i) == i { std::mem::take(&mut memory[o.buffer.0 as usize]) } else { data[first(i)].clone() };
        data.push(content);
    }
    lolm_ir::kernel::interp::run(&k, &mut data).unwrap_or_else(|e| panic!("{launch}: {e}\n{k}"));
    for (i, (o, d)) in stage.operands.iter().zip(data).enumerate() {
        assert!(first(i) == i || k.operands[i].mode == Mode::In, "{launch}: a buffer is written through two operands");
        if first(i) == i {
            memory[o.buffer.0 as usize] = d;
        }
    }
}

fn gemm(g: &Gemm, at: &[i64], memory: &mut [Vec<f64>]) {
    let len = |e: &Extent| match e {
        Extent::Fixed(n) => *n as i64,
        Extent::Tile { dim, tile, len } => (*tile as i64).min(*len as i64 - at[*dim as usize] * *tile as i64),
        Extent::Seen { len, position: p } => {
            let i = p.base + p.unit.iter().zip(at).map(|(s, i)| s * i).sum::<i64>();
            (memory[p.buffer.0 as usize][i as usize] as i64 + 1).clamp(0, *len as i64)
        }
    };
    let base = |m: &Matrix| m.base + m.unit.iter().zip(at).map(|(s, i)| s * i).sum::<i64>();
    let (a0, b0, c0) = (base(&g.a), base(&g.b), base(&g.c));
    let (m, n, k) = (len(&g.m), len(&g.n), len(&g.k));
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0;
            for k in 0..k {
                let x = memory[g.a.buffer.0 as usize][(a0 + i * g.a.row + k * g.a.col) as usize];
                sum += x * memory[g.b.buffer.0 as usize][(b0 + k * g.b.row + j * g.b.col) as usize];
            }
            let c = &mut memory[g.c.buffer.0 as usize][(c0 + i * g.c.row + j * g.c.col) as usize];
            *c = g.alpha as f64 * sum + if g.accumulate { *c } else { 0.0 };
        }
    }
}
