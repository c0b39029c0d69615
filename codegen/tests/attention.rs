//! Attention as the generator of its own makes it, in the emulator, against the interpreter.
#[allow(dead_code)]
mod common;
use common::attention::{CASE, Case, Mask, Scores};
use common::{decode, gpu};
use lolm_ir::DType;
use lolm_ir::kernel::{Fold, KOp, Kernel, interp};
use lolm_ir::op::{Binary, Unary};
use lolm_ptx_emu::Counts;

trait Forward {
    fn kernel(&self) -> Kernel;
    fn run(&self) -> (Kernel, Vec<Vec<f64>>, Vec<Vec<u8>>, Counts);
    fn check(&self, tolerance: f64) -> Counts;
}

impl Forward for Case {
    fn kernel(&self) -> Kernel {
        let (mut b, Scores { axes, masked, .. }) = self.scores();
        let [bb, t, h, r, _, s, j] = axes;
        let greatest = b.push(KOp::Reduce(Fold::Max, s), &[masked], DType::F32);
        let size = b.unary(Unary::Abs, greatest);
        let (inf, zero, one) = (b.float(f32::INFINITY), b.float(0.0), b.float(1.0));
        let infinite = b.binary(Binary::Eq, size, inf);
        let max = b.select(infinite, zero, greatest);
        let shifted = b.binary(Binary::Sub, masked, max);
        let e = b.unary(Unary::Exp, shifted);
        let sum = b.push(KOp::Reduce(Fold::Sum, s), &[e], DType::F32);
        let log = b.unary(Unary::Log, sum);
        let lse = b.binary(Binary::Add, max, log);
        let denominator = b.binary(Binary::Max, sum, one);
        let mut w = b.binary(Binary::Div, e, denominator);
        if let Some(kept) = self.kept(&mut b, axes) {
            w = b.binary(Binary::Mul, w, kept);
        }
        let v = b.load("v", self.dtype, &[bb, s, h, j]);
        let o = b.push(KOp::Dot(s), &[w, v], DType::F32);
        b.store("o", &[bb, t, h, r, j], o);
        b.store("lse", &[bb, h, r, t], lse);
        b.0.verify().unwrap_or_else(|e| panic!("{e}"));
        b.0
    }

    fn run(&self) -> (Kernel, Vec<Vec<f64>>, Vec<Vec<u8>>, Counts) {
        let k = self.kernel();
        let data = self.data(&k, 7);
        let c = gpu::claim(&k);
        assert_eq!(c.generator, "attention", "{k}");
        let (bytes, counts) = gpu::run(&k, &c, &data);
        (k, data, bytes, counts)
    }

    /// The largest error of `o` and of `lse`: of a tensor, relative to its norm.
    fn check(&self, tolerance: f64) -> Counts {
        let (k, data, bytes, counts) = self.run();
        let mut expected = data.clone();
        interp::run(&k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
        for ((o, e), b) in k.operands.iter().zip(&expected).zip(&bytes) {
            let found = decode(o.dtype, b);
            // Rows that see nothing have a logarithm of -∞.
            let same = e.iter().zip(&found).all(|(e, f)| e.is_finite() == f.is_finite());
            let pairs = || e.iter().zip(&found).filter(|(e, _)| e.is_finite());
            let norm = pairs().map(|(e, _)| e * e).sum::<f64>().sqrt();
            let off = pairs().map(|(e, f)| (e - f) * (e - f)).sum::<f64>().sqrt();
            assert!(same && off <= tolerance * norm, "{self:?} ${}: {} of {norm}", o.name, off);
        }
        counts
    }
}

#[test]
fn f32_of_every_mask() {
    for mask in [Mask::Full, Mask::Causal, Mask::Window(20), Mask::Ring(70), Mask::Ring(30)] {
        Case { mask, ..CASE }.check(1e-6);
        Case { mask, start: 100, keys: 90, ..CASE }.check(1e-6);
    }
}

#[test]
fn f32_of_odd_lengths_and_heads() {
    for (queries, keys, head, wide) in
        [(1, 1, 8, 8), (7, 33, 8, 24), (65, 31, 64, 64), (3, 130, 80, 80), (20, 40, 128, 20)]
    {
        Case { queries, keys, head, wide, start: keys as i32 - queries as i32, ..CASE }.check(1e-6);
    }
}

/// Rows that see no key have results of 0 and a logarithm of -∞, and change nothing of the rows beside them.
#[test]
fn rows_that_see_nothing() {
    for dtype in [DType::F32, DType::Bf16] {
        for mask in [Mask::Causal, Mask::Window(20), Mask::Ring(30)] {
            Case { mask, dtype, start: -5, ..CASE }.check(if dtype == DType::F32 { 1e-6 } else { 3e-3 });
            Case { mask, dtype, start: -500, ..CASE }.check(0.0);
        }
        Case { mask: Mask::Window(20), dtype, start: 500, ..CASE }.check(0.0);
    }
}

#[test]
fn f32_of_shared_keys() {
    Case { shared: 3, queries: 40, keys: 40, ..CASE }.check(1e-6);
    Case { shared: 4, queries: 1, keys: 90, start: 77, ..CASE }.check(1e-6);
}

#[test]
fn dropout() {
    Case { dropout: true, ..CASE }.check(1e-6);
    Case { dropout: true, dtype: DType::Bf16, ..CASE }.check(4e-3);
}

/// What is rounded besides the operands are the weights: half a unit in the last place of a bf16 each, at random.
#[test]
fn bf16_of_every_mask() {
    for mask in [Mask::Full, Mask::Causal, Mask::Window(20), Mask::Ring(70), Mask::Ring(30)] {
        Case { mask, dtype: DType::Bf16, ..CASE }.check(3e-3);
        Case { mask, start: 100, keys: 150, queries: 80, dtype: DType::Bf16, ..CASE }.check(3e-3);
    }
}

#[test]
fn bf16_of_odd_lengths_and_heads() {
    for (queries, keys, head, wide) in [
        (1, 1, 8, 8),
        (7, 65, 8, 24),
        (9, 70, 20, 12),
        (65, 31, 64, 64),
        (3, 130, 80, 80),
        (20, 70, 128, 128),
        (5, 70, 256, 256),
    ] {
        let start = keys as i32 - queries as i32;
        Case { queries, keys, head, wide, start, dtype: DType::Bf16, ..CASE }.check(3e-3);
    }
    Case { batch: 1, heads: 1, queries: 300, keys: 300, head: 64, wide: 64, dtype: DType::Bf16, ..CASE }.check(3e-3);
}

/// Results and logarithms of the last query of each batch and head, as bytes.
fn last_rows(c: &Case, head: &Case) -> Vec<Vec<u8>> {
    let (k, _, bytes, _) = with_data(c, head);
    let mut out = vec![];
    for b in 0..c.batch {
        let (t, width) = (c.queries, c.heads * c.shared * c.wide * 4);
        let o = k.operands.iter().position(|o| o.name == "o").unwrap();
        out.push(bytes[o][(b * t + t - 1) * width..(b * t + t) * width].to_vec());
        let lse = k.operands.iter().position(|o| o.name == "lse").unwrap();
        for h in 0..c.heads * c.shared {
            let at = ((b * c.heads * c.shared + h) * t + t - 1) * 4;
            out.push(bytes[lse][at..at + 4].to_vec());
        }
    }
    out
}

/// Runs with the last queries of a longer case, whose keys and values it shares.
fn with_data(c: &Case, whole: &Case) -> (Kernel, Vec<Vec<f64>>, Vec<Vec<u8>>, Counts) {
    let all = whole.data(&whole.kernel(), 11);
    let k = c.kernel();
    let mut data = c.data(&k, 11);
    for (i, o) in k.operands.iter().enumerate() {
        let (row, long) = (c.heads * c.shared * c.head, whole.queries);
        match o.name.as_str() {
            "q" => {
                let last = |b: usize| &all[i][(b * long + long - c.queries) * row..(b + 1) * long * row];
                data[i] = (0..c.batch).flat_map(|b| last(b).to_vec()).collect();
            }
            "k" | "v" => data[i] = all[i].clone(),
            _ => {}
        }
    }
    let claim = gpu::claim(&k);
    let (bytes, counts) = gpu::run(&k, &claim, &data);
    (k, data, bytes, counts)
}

/// A token that is decoded alone has the bits that it has in a prompt, whatever stands beside it.
#[test]
fn decoding_gives_the_bits_of_a_prompt() {
    for dtype in [DType::F32, DType::Bf16] {
        for mask in [Mask::Causal, Mask::Window(90)] {
            let whole = Case { dtype, mask, shared: 2, queries: 150, keys: 170, head: 32, wide: 32, start: 0, ..CASE };
            let expected = last_rows(&whole, &whole);
            for queries in [1, 3, 16, 50] {
                let part = Case { queries, start: 150 - queries as i32, ..whole };
                assert_eq!(last_rows(&part, &whole), expected, "{part:?}");
            }
        }
    }
}

/// Fragments come without conflicts of banks, and keys that no row sees are not read.
#[test]
fn shared_memory_is_used_without_conflicts() {
    for (dtype, load) in [(DType::Bf16, "ldmatrix"), (DType::F32, "ld.shared")] {
        for head in [8, 16, 64, 80, 128] {
            let case = Case { dtype, batch: 1, heads: 1, queries: 64, keys: 64, head, wide: head, ..CASE };
            let (k, _, _, counts) = case.run();
            let text = gpu::text(&gpu::claim(&k));
            let lines: Vec<&str> = text.lines().collect();
            let of = |(line, _): &(&u32, &_)| lines[**line as usize - 1].contains(load);
            let loads = counts.lines.iter().filter(of);
            let (n, conflicts) = loads.fold((0, 0), |(n, c), (_, x)| (n + x.requests, c + x.bank_conflicts));
            assert!(n > 0 && conflicts == 0, "{case:?}: {conflicts} conflicts in {n} loads");
        }
    }
    let read = |mask| Case { mask, batch: 1, heads: 1, queries: 64, keys: 1024, ..CASE }.run().3.global.bytes;
    assert!(read(Mask::Causal) * 4 < read(Mask::Full));
}

/// NVIDIA's assembler keeps all values in registers, and makes the instructions that are meant.
#[test]
fn attentions_assemble_in_registers() {
    let Some(ptxas) = gpu::Assembly::of(24, "attentions") else { return };
    for dtype in [DType::F32, DType::Bf16] {
        for head in [8, 16, 64, 80, 128, 256] {
            for (queries, mask) in [(2048, Mask::Causal), (1, Mask::Ring(2048))] {
                let case = Case { dtype, mask, queries, keys: 2048, head, wide: head, ..CASE };
                let c = gpu::claim(&case.kernel());
                let used = ptxas.usage(&c, "sm_80");
                assert_eq!(c.code.text.contains("mma.sync"), dtype == DType::Bf16);
                eprintln!("{head} x{queries} {}: {used:?}", c.schedule);
            }
        }
    }
}
