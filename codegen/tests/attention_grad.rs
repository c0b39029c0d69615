//! Gradients of attention as their generator makes them, in the emulator, against the interpreter.
#[allow(dead_code)]
mod common;
use common::attention::{Build, CASE, Case, Mask, Scores};
use common::{decode, gpu};
use lolm_ir::DType;
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue, Kernel, interp};
use lolm_ir::op::{Binary, Unary};
use lolm_ptx_emu::Counts;

/// The gradients that a kernel makes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Of {
    Queries,
    Keys,
    Values,
    KeysAndValues,
}

const ALL: [Of; 4] = [Of::Queries, Of::Keys, Of::Values, Of::KeysAndValues];

/// Σ over these axes, the last one a product.
fn contract(b: &mut Build, over: &[KAxis], x: KValue, y: KValue) -> KValue {
    let (last, rest) = over.split_last().expect("an axis");
    let dot = b.push(KOp::Dot(*last), &[x, y], DType::F32);
    rest.iter().rev().fold(dot, |d, a| b.push(KOp::Reduce(Fold::Sum, *a), &[d], DType::F32))
}

fn kernel(c: &Case, of: Of) -> Kernel {
    let (mut b, Scores { axes, q, k, scale, visible, masked }) = c.scores();
    let [bb, t, h, r, d, s, j] = axes;
    let lse = b.load("lse", DType::F32, &[bb, h, r, t]);
    let shifted = b.binary(Binary::Sub, masked, lse);
    let mut p = b.unary(Unary::Exp, shifted);
    if let Some(visible) = visible {
        let zero = b.float(0.0);
        p = b.select(visible, p, zero);
    }
    let kept = c.kept(&mut b, axes);
    let dropped = |b: &mut Build, x| kept.map_or(x, |k| b.binary(Binary::Mul, x, k));
    let rounded = |b: &mut Build, x| match c.dtype {
        DType::Bf16 => {
            let half = b.push(KOp::Cast(DType::Bf16), &[x], DType::Bf16);
            b.push(KOp::Cast(DType::F32), &[half], DType::F32)
        }
        _ => x,
    };
    let d_o = b.load("do", c.dtype, &[bb, t, h, r, j]);
    let slopes = |b: &mut Build| {
        let v = b.load("v", c.dtype, &[bb, s, h, j]);
        let d_weights = b.push(KOp::Dot(j), &[d_o, v], DType::F32);
        let d_weights = dropped(b, d_weights);
        let delta = b.load("delta", DType::F32, &[bb, h, r, t]);
        let difference = b.binary(Binary::Sub, d_weights, delta);
        let slopes = b.binary(Binary::Mul, p, difference);
        let slopes = b.binary(Binary::Mul, slopes, scale);
        rounded(b, slopes)
    };
    if of == Of::Queries {
        let x = slopes(&mut b);
        let dq = contract(&mut b, &[s], x, k);
        b.store("dq", &[bb, t, h, r, d], dq);
    }
    if matches!(of, Of::Keys | Of::KeysAndValues) {
        let x = slopes(&mut b);
        let dk = contract(&mut b, &[r, t], x, q);
        b.store("dk", &[bb, s, h, d], dk);
    }
    if matches!(of, Of::Values | Of::KeysAndValues) {
        let w = dropped(&mut b, p);
        let w = rounded(&mut b, w);
        let dv = contract(&mut b, &[r, t], w, d_o);
        b.store("dv", &[bb, s, h, j], dv);
    }
    b.0.verify().unwrap_or_else(|e| panic!("{e}"));
    b.0
}

/// Runs on these data, and compares every result: the error of a tensor relative to its norm.
fn check_on(c: &Case, k: &Kernel, data: &[Vec<f64>], tolerance: f64) -> Counts {
    let claim = gpu::claim(k);
    assert_eq!(claim.generator, "attention_grad", "{k}");
    let (bytes, counts) = gpu::run(k, &claim, data);
    let mut expected = data.to_vec();
    interp::run(k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
    for ((o, e), b) in k.operands.iter().zip(&expected).zip(&bytes) {
        let found = decode(o.dtype, b);
        let norm = e.iter().filter(|e| e.is_finite()).map(|e| e * e).sum::<f64>().sqrt();
        let off = |(e, f): (&f64, &f64)| if e == f { 0.0 } else { (e - f) * (e - f) };
        let off = e.iter().zip(&found).map(off).sum::<f64>().sqrt();
        assert!(off <= tolerance * norm, "{c:?} ${}: {off} of {norm}\n{}", o.name, claim.schedule);
    }
    counts
}

fn check(c: &Case, of: &[Of], tolerance: f64) {
    for of in of {
        let k = kernel(c, *of);
        check_on(c, &k, &c.data(&k, 7), tolerance);
    }
}

const F32: f64 = 2e-6;
/// Weights and slopes are rounded: half a unit in the last place of a bf16 each, at random.
const BF16: f64 = 4e-3;

#[test]
fn f32_of_every_mask() {
    for mask in [Mask::Full, Mask::Causal, Mask::Window(20), Mask::Ring(70), Mask::Ring(30)] {
        check(&Case { mask, ..CASE }, &ALL, F32);
        check(&Case { mask, start: 100, keys: 90, batch: 1, ..CASE }, &[Of::Queries, Of::KeysAndValues], F32);
    }
}

#[test]
fn f32_of_odd_lengths_and_heads() {
    for (queries, keys, head, wide) in
        [(1, 1, 8, 8), (7, 33, 8, 24), (65, 31, 64, 64), (3, 130, 80, 80), (20, 40, 128, 20)]
    {
        let c = Case { queries, keys, head, wide, start: keys as i32 - queries as i32, batch: 1, ..CASE };
        check(&c, &[Of::Queries, Of::KeysAndValues], F32);
    }
    check(&Case { batch: 1, heads: 1, head: 256, wide: 256, ..CASE }, &[Of::Queries, Of::Keys, Of::Values], F32);
}

#[test]
fn bf16_of_every_mask() {
    for mask in [Mask::Full, Mask::Causal, Mask::Window(20), Mask::Ring(70), Mask::Ring(30)] {
        check(&Case { mask, dtype: DType::Bf16, ..CASE }, &ALL, BF16);
        let long = Case { mask, start: 100, keys: 150, queries: 80, batch: 1, dtype: DType::Bf16, ..CASE };
        check(&long, &[Of::Queries, Of::KeysAndValues], BF16);
    }
}

#[test]
fn bf16_of_odd_lengths_and_heads() {
    let lengths =
        [(1, 1, 8, 8), (7, 65, 8, 24), (9, 70, 20, 12), (65, 31, 64, 64), (3, 130, 80, 80), (20, 70, 128, 128)];
    for (queries, keys, head, wide) in lengths {
        let start = keys as i32 - queries as i32;
        let c = Case { queries, keys, head, wide, start, batch: 1, dtype: DType::Bf16, ..CASE };
        check(&c, &[Of::Queries, Of::KeysAndValues], BF16);
    }
    let wide = Case { batch: 1, heads: 1, head: 256, wide: 256, dtype: DType::Bf16, ..CASE };
    check(&wide, &[Of::Queries, Of::Keys, Of::Values], BF16);
    let long = Case { batch: 1, heads: 1, queries: 300, keys: 300, head: 64, wide: 64, dtype: DType::Bf16, ..CASE };
    check(&long, &[Of::Queries, Of::KeysAndValues], BF16);
}

/// Keys that several query heads share get the gradients of all of them.
#[test]
fn shared_keys() {
    for (dtype, tolerance) in [(DType::F32, F32), (DType::Bf16, BF16)] {
        check(&Case { shared: 3, queries: 40, keys: 40, dtype, ..CASE }, &ALL, tolerance);
        check(&Case { shared: 4, queries: 5, keys: 90, start: 77, dtype, ..CASE }, &ALL, tolerance);
    }
}

#[test]
fn dropout() {
    check(&Case { dropout: true, ..CASE }, &ALL, F32);
    check(&Case { dropout: true, dtype: DType::Bf16, ..CASE }, &ALL, BF16);
}

/// Rows that see no key have a logarithm of -∞, and give nothing to any gradient.
#[test]
fn rows_that_see_nothing() {
    for (dtype, tolerance) in [(DType::F32, F32), (DType::Bf16, BF16)] {
        for start in [-5, -500] {
            let c = Case { dtype, start, batch: 1, mask: Mask::Window(20), ..CASE };
            for of in ALL {
                let k = kernel(&c, of);
                let mut data = c.data(&k, 7);
                let lse = k.operands.iter().position(|o| o.name == "lse").unwrap();
                let blind = |i: usize| start + (i % c.queries) as i32 <= -1;
                let n = data[lse].len();
                (0..n).filter(|i| blind(*i)).for_each(|i| data[lse][i] = f64::NEG_INFINITY);
                check_on(&c, &k, &data, tolerance);
            }
        }
    }
}

/// Rows and keys that do not see each other are not read.
#[test]
fn what_is_hidden_is_not_read() {
    for of in [Of::Queries, Of::KeysAndValues] {
        let read = |mask, queries| {
            let c = Case { mask, batch: 1, heads: 1, queries, keys: queries, ..CASE };
            let k = kernel(&c, of);
            gpu::run(&k, &gpu::claim(&k), &c.data(&k, 3)).1.global.bytes
        };
        assert!(read(Mask::Window(16), 640) * 3 < read(Mask::Full, 640), "{of:?}");
        assert!(read(Mask::Causal, 640) * 4 < read(Mask::Full, 640) * 3, "{of:?}");
    }
}

/// Fragments come without conflicts of banks.
#[test]
fn shared_memory_is_used_without_conflicts() {
    for (dtype, load) in [(DType::Bf16, "ldmatrix"), (DType::F32, "ld.shared.v4")] {
        for head in [16, 64, 80, 128] {
            for of in [Of::Queries, Of::KeysAndValues] {
                let c = Case { dtype, batch: 1, heads: 1, queries: 64, keys: 64, head, wide: head, ..CASE };
                let k = kernel(&c, of);
                let claim = gpu::claim(&k);
                let counts = gpu::run(&k, &claim, &c.data(&k, 7)).1;
                let text = gpu::text(&claim);
                let lines: Vec<&str> = text.lines().collect();
                let of = |(line, _): &(&u32, &_)| lines[**line as usize - 1].contains(load);
                let loads = counts.lines.iter().filter(of);
                let (n, conflicts) = loads.fold((0, 0), |(n, c), (_, x)| (n + x.requests, c + x.bank_conflicts));
                assert!(n > 0 && conflicts == 0, "{c:?}: {conflicts} conflicts in {n} loads");
            }
        }
    }
}

/// The emulator sees it if any barrier is missing, or any wait for what was copied: none is there in vain.
#[test]
fn every_barrier_is_needed() {
    for dtype in [DType::F32, DType::Bf16] {
        for of in [Of::Queries, Of::KeysAndValues] {
            let c = Case { dtype, batch: 1, heads: 1, queries: 150, keys: 150, head: 64, wide: 64, ..CASE };
            let k = kernel(&c, of);
            let (claim, data) = (gpu::claim(&k), c.data(&k, 7));
            assert!(gpu::barriers_are_needed(&k, &claim, &data) >= 3, "{dtype:?} {of:?}");
        }
    }
}

/// NVIDIA's assembler keeps all values in registers, and makes the instructions that are meant.
#[test]
fn gradients_assemble_in_registers() {
    let Some(ptxas) = gpu::Assembly::of(32, "gradients") else { return };
    for dtype in [DType::F32, DType::Bf16] {
        for head in [16, 64, 80, 128, 256] {
            let of: &[Of] =
                if head == 256 { &[Of::Queries, Of::Keys, Of::Values] } else { &[Of::Queries, Of::KeysAndValues] };
            for of in of {
                let case = Case { dtype, mask: Mask::Causal, queries: 2048, keys: 2048, head, wide: head, ..CASE };
                let c = gpu::claim(&kernel(&case, *of));
                let used = ptxas.usage(&c, "sm_80");
                assert_eq!(c.code.text.contains("mma.sync"), dtype == DType::Bf16);
                eprintln!("{of:?} {head} {} shared {}: {used:?}", c.schedule, c.code.block.shared);
            }
        }
    }
}
