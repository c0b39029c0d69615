//! Times kernels on one core: `cargo run --release --example speed [file.kir ...]`. Without files, a few typical ones.
#[allow(dead_code)]
#[path = "../tests/common/mod.rs"]
mod common;
use common::{Mapped, compile, encode, inputs, kernel, unit_count};
use lolm_ir::kernel::{KOp, Kernel};
use std::time::Instant;

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        TYPICAL.iter().for_each(|source| time(&kernel(source)));
    }
    for f in files {
        match std::fs::read_to_string(&f) {
            Ok(source) => time(&kernel(&source)),
            Err(e) => println!("{f}: {e}"),
        }
    }
}

/// The best of several runs, as bytes of operands and as scan steps a second.
fn time(k: &Kernel) {
    let code = compile(k);
    let mapped = Mapped::new(&code.code);
    let data = inputs(k, 1);
    let mut operands: Vec<Vec<u8>> = k.operands.iter().zip(&data).map(|(o, d)| encode(o.dtype, d)).collect();
    let units = unit_count(k, &code);
    let mut best = f64::INFINITY;
    let start = Instant::now();
    for _ in 0..100 {
        let t = Instant::now();
        mapped.call(&mut operands, 0, units);
        best = best.min(t.elapsed().as_secs_f64());
        if start.elapsed().as_secs_f64() > 1.0 {
            break;
        }
    }
    let bytes: u64 = k.operands.iter().map(|o| o.len * o.dtype.bytes() as u64).sum();
    let elements = |v: &lolm_ir::kernel::Value| v.axes.iter().map(|a| k.axis(a).len as f64).product::<f64>();
    let steps: f64 = k.values.iter().filter(|v| matches!(v.op, KOp::Scan { .. })).map(elements).sum();
    println!(
        "{:16} {:9.1} us {:6.2} GB/s {:7.0} M steps/s {:6} bytes  {}",
        k.name,
        best * 1e6,
        bytes as f64 / best / 1e9,
        steps / best / 1e6,
        code.code.len(),
        code.schedule_text
    );
}

const TYPICAL: [&str; 7] = [
    include_str!("kernels/add.kir"),
    include_str!("kernels/adamw.kir"),
    include_str!("kernels/add_norm.kir"),
    include_str!("kernels/softmax.kir"),
    include_str!("kernels/gelu.kir"),
    include_str!("kernels/scan.kir"),
    include_str!("kernels/column_sums.kir"),
];
