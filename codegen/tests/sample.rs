//! Draws as the generator of their own makes them, in the emulator, against the interpreter.
#[allow(dead_code)]
mod common;
use common::{Numbers, decode, gpu, kernel};
use lolm_ir::DType;
use lolm_ir::kernel::{Kernel, interp};

/// Draws from rows of so many elements, which lie so far apart.
fn draws(rows: usize, len: usize, pitch: usize) -> Kernel {
    let operand = |name: &str, dtype: &str| format!("  in ${name} {dtype} {rows}\n");
    let load = |i: usize, name: &str, dtype: &str| format!("  %{i} {dtype}[b] = load ${name}[b]\n");
    let settings = [("temperature", "f32"), ("top_k", "i32"), ("top_p", "f32"), ("min_p", "f32"), ("uniform", "f32")];
    let operands: String = settings.iter().map(|(name, dtype)| operand(name, dtype)).collect();
    let loads: String = settings.iter().enumerate().map(|(i, (name, dtype))| load(i + 1, name, dtype)).collect();
    kernel(&format!(
        "kernel @sample {{\n  axis b {rows}\n  axis v {len}\n  in $x f32 {}\n{operands}  out $y i32 {rows}\n  \
         %0 f32[b v] = load $x[{pitch}*b + v]\n{loads}  %6 i32[b] = sample.v %0 %1 %2 %3 %4 %5\n  \
         %7 i32[b] = store $y[b] %6\n}}",
        rows * pitch
    ))
}

/// Temperature, top-k, top-p, min-p and the uniform number.
type Settings = [f64; 5];

fn operands(rows: &[(Vec<f32>, Settings)], pitch: usize) -> Vec<Vec<f64>> {
    let mut x = vec![9e9; rows.len() * pitch];
    for (row, (logits, _)) in rows.iter().enumerate() {
        let of = logits.iter().map(|x| *x as f64);
        x[row * pitch..].iter_mut().zip(of).for_each(|(to, x)| *to = x);
    }
    let setting = |i: usize| rows.iter().map(|r| r.1[i] as f32 as f64).collect();
    [x].into_iter().chain((0..5).map(setting)).chain([vec![-1.0; rows.len()]]).collect()
}

/// What is drawn from these rows, as the emulator and as the interpreter have it.
fn both(rows: &[(Vec<f32>, Settings)]) -> (Vec<f64>, Vec<f64>) {
    let len = rows[0].0.len();
    let k = draws(rows.len(), len, len + 3);
    let c = gpu::claim(&k);
    assert_eq!(c.generator, "sample", "{k}");
    let data = operands(rows, len + 3);
    let mut expected = data.clone();
    interp::run(&k, &mut expected).unwrap();
    let found = gpu::run(&k, &c, &data).0;
    (decode(DType::I32, &found[6]), expected.swap_remove(6))
}

fn check(rows: &[(Vec<f32>, Settings)]) {
    let (found, expected) = both(rows);
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        let (logits, settings) = &rows[i];
        let few = &logits[..logits.len().min(20)];
        assert_eq!(f, e, "row {i} of {}: {settings:?} of {few:?}", logits.len());
    }
}

/// Settings of every kind, in all combinations.
fn settings(n: &mut Numbers) -> Settings {
    let mut of = |choices: &[f64]| choices[n.below(choices.len() as u64) as usize];
    let (t, k) = (of(&[0.0, 0.3, 0.7, 1.0, 1.0, 2.5]), of(&[0.0, 0.0, 1.0, 2.0, 5.0, 40.0, 999.0]));
    let (p, m) = (of(&[1.0, 1.0, 0.2, 0.5, 0.9, 0.99]), of(&[0.0, 0.0, 0.0, 0.05, 0.5]));
    [t, k, p, m, (n.word() >> 40) as f64 / (1 << 24) as f64]
}

#[test]
fn draws_are_those_of_the_interpreter() {
    let mut n = Numbers(3);
    for len in [1, 2, 3, 31, 32, 33, 100, 300, 1000, 4100] {
        let mut row = |i: usize| {
            let spread = [0.5, 3.0, 8.0, 30.0][i % 4];
            let logits = (0..len).map(|_| ((n.unit() + n.unit() + n.unit()) * spread) as f32).collect();
            (logits, settings(&mut n))
        };
        let rows: Vec<_> = (0..if len > 500 { 12 } else { 48 }).map(&mut row).collect();
        check(&rows);
    }
}

/// Equal elements at every border, which no rounding moves.
#[test]
fn of_equals_the_first_are_kept() {
    let mut n = Numbers(4);
    let halves = |x: u64| -(x as f32) * std::f32::consts::LN_2;
    for len in [7, 40, 700] {
        let mut row = |_| {
            let logits = (0..len).map(|_| halves(n.below(4))).collect();
            let mut s = settings(&mut n);
            s[0] = 1.0;
            s[2] = [1.0, 0.3137, 0.5519, 0.777][n.below(4) as usize];
            s[3] = [0.0, 0.0, 0.3, 0.2][n.below(4) as usize];
            s[4] = n.below(64) as f64 / 64.0 + 1.0 / 4096.0;
            (logits, s)
        };
        check(&(0..48).map(&mut row).collect::<Vec<_>>());
    }
    check(&(0..40).map(|k| (vec![0.5; 50], [1.0, k as f64, 1.0, 0.0, 0.999])).collect::<Vec<_>>());
    check(
        &(1..40).map(|p| (vec![-0.0, 0.0, -0.0, 0.0, 0.0], [1.0, 0.0, p as f64 / 40.0, 0.0, 0.99])).collect::<Vec<_>>(),
    );
}

#[test]
fn edges_are_those_of_the_interpreter() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        vec![nan, nan, nan, nan],
        vec![nan, -inf, nan, -inf],
        vec![-inf, nan, -inf, -inf],
        vec![0.0, inf, 88.0, inf],
        vec![nan, 1.0, -inf, nan],
        vec![-0.0, 0.0, -1.0, nan],
        vec![f32::MAX, f32::MIN, f32::MAX, 0.0],
        vec![1e-40, -1e-40, 0.0, 1e-45],
        vec![-inf, 3.0, 3.0, 3.0],
    ];
    let settings: [Settings; 12] = [
        [0.0, 0.0, 1.0, 0.0, 0.5],
        [1.0, 0.0, 1.0, 0.0, 0.0],
        [1.0, 0.0, 1.0, 0.0, 0.999_999_9],
        [1.0, 1.0, 1.0, 0.0, 0.9],
        [1.0, 2.0, 1.0, 0.0, 0.9],
        [1.0, 3.0, 0.6, 0.0, 0.9],
        [1.0, 0.0, 1e-9, 0.0, 0.9],
        [1.0, 0.0, 0.5, 0.0, 0.4],
        [1.0, 0.0, 1.0, 1.0, 0.8],
        [1e-38, 0.0, 1.0, 0.0, 0.8],
        [1e30, 0.0, 1.0, 0.0, 0.6],
        [-1.0, -3.0, 2.0, -1.0, 0.6],
    ];
    for s in settings {
        check(&rows.iter().map(|r| (r.clone(), s)).collect::<Vec<_>>());
    }
}

/// A vocabulary as models have it: rows do not lie at multiples of anything.
#[test]
fn a_whole_vocabulary() {
    let mut n = Numbers(5);
    let mut row = |s: Settings| ((0..50257).map(|_| ((n.unit() + n.unit()) * 6.0) as f32).collect(), s);
    let rows = [row([0.8, 0.0, 1.0, 0.0, 0.73]), row([0.8, 40.0, 0.9, 0.0, 0.73]), row([1.0, 0.0, 0.9, 0.01, 0.3])];
    check(&rows);
}

/// The longest rows that are drawn from, and those that are refused.
#[test]
fn longer_rows_are_refused_by_name() {
    let error = |len: usize| lolm_codegen::claim(&draws(1, len, len), "k").unwrap_err().to_string();
    assert!(lolm_codegen::claim(&draws(1, 1 << 20, 1 << 20), "k").is_ok());
    let said = error((1 << 20) + 1);
    assert!(said.contains("limit: a draw from 1048577 elements, more than 1048576"), "{said}");
}

#[test]
fn the_cpu_has_no_draws_in_kernels() {
    let said = lolm_codegen::compile_kernel(&draws(2, 5, 5)).unwrap_err().to_string();
    assert!(said.contains("limit: a draw has code for CUDA alone"), "{said}");
}

/// The emulator sees it if any barrier is missing: none is there in vain.
#[test]
fn every_barrier_is_needed() {
    let mut n = Numbers(6);
    let row: Vec<f32> = (0..3000).map(|_| (n.unit() * 9.0) as f32).collect();
    let rows = [(row.clone(), [1.0, 50.0, 0.9, 0.0, 0.7]), (row, [0.0, 0.0, 1.0, 0.0, 0.7])];
    let k = draws(2, 3000, 3000);
    let (claim, data) = (gpu::claim(&k), operands(&rows, 3000));
    assert!(gpu::barriers_are_needed(&k, &claim, &data) >= 8);
}

/// NVIDIA's assembler keeps all values in registers.
#[test]
fn draws_assemble_in_registers() {
    let Some(ptxas) = gpu::Assembly::of(8, "draws") else { return };
    for len in [50, 2000, 50257, 1 << 20] {
        let c = gpu::claim(&draws(64, len, len));
        for chip in ["sm_80", "sm_90"] {
            eprintln!("{len} {}: {:?}", c.schedule, ptxas.usage(&c, chip));
        }
    }
}
