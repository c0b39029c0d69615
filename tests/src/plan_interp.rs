//! A plan run by the kernel interpreter and plain loops in f64: what lowering means, without code generation.
//!
//! Launches whose kernels take part of their units are not for this interpreter (the runtime's tests run them).
use lolm_ir::interp::table;
use lolm_ir::plan::{Extent, Gemm, Matrix, Module, Place, Plan, Span, Stage, Step};
use std::collections::BTreeMap;

pub type Named = BTreeMap<String, Vec<f64>>;

/// Runs the plan on parameters, states and inputs by name; gives its outputs, and parameters and states afterwards.
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
            Place::Param(n) | Place::State(n) | Place::Table(n) | Place::Input(n) => shared(n, len),
        });
    }
    for s in &p.steps {
        let Step::Launch(l) = s else { panic!("repeats are not for this interpreter") };
        for stage in &l.stages {
            match stage {
                Stage::Kernel(k) => {
                    assert_eq!(k.span, Span::Same, "partial kernels are not for this interpreter");
                    let take = |o: &lolm_ir::plan::Access| std::mem::take(&mut memory[o.buffer.0 as usize]);
                    let mut data: Vec<Vec<f64>> = k.operands.iter().map(take).collect();
                    let kernel = &m.kernels[k.kernel as usize];
                    kernel.verify().unwrap_or_else(|e| panic!("{}: {e}\n{kernel}", l.name));
                    lolm_ir::kernel::interp::run(kernel, &mut data).unwrap_or_else(|e| panic!("{}: {e}", l.name));
                    for (o, d) in k.operands.iter().zip(data) {
                        memory[o.buffer.0 as usize] = d;
                    }
                }
                Stage::Gemm(g) => {
                    for unit in 0..l.grid.iter().product::<u32>() {
                        gemm(g, &l.grid, unit, &mut memory);
                    }
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

fn gemm(g: &Gemm, grid: &[u32], unit: u32, memory: &mut [Vec<f64>]) {
    let mut at = vec![0i64; grid.len()];
    let mut rest = unit;
    for (i, n) in grid.iter().enumerate().rev() {
        at[i] = (rest % n) as i64;
        rest /= n;
    }
    let len = |e: &Extent| match e {
        Extent::Fixed(n) => *n as i64,
        Extent::Tile { dim, tile, len } => (*tile as i64).min(*len as i64 - at[*dim as usize] * *tile as i64),
        Extent::Seen { .. } => panic!("lengths that follow data are not for this interpreter"),
    };
    let base = |m: &Matrix| m.base + m.unit.iter().zip(&at).map(|(s, i)| s * i).sum::<i64>();
    let (a0, b0, c0) = (base(&g.a), base(&g.b), base(&g.c));
    for i in 0..len(&g.m) {
        for j in 0..len(&g.n) {
            let mut sum = 0.0;
            for k in 0..len(&g.k) {
                let x = memory[g.a.buffer.0 as usize][(a0 + i * g.a.row + k * g.a.col) as usize];
                sum += x * memory[g.b.buffer.0 as usize][(b0 + k * g.b.row + j * g.b.col) as usize];
            }
            let c = &mut memory[g.c.buffer.0 as usize][(c0 + i * g.c.row + j * g.c.col) as usize];
            *c = g.alpha as f64 * sum + if g.accumulate { *c } else { 0.0 };
        }
    }
}
