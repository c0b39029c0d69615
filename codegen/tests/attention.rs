//! Attention as the generator of its own makes it, in the emulator, against the interpreter.
#[allow(dead_code)]
mod common;
use common::{Numbers, decode, gpu};
use lolm_ir::interp::round_bf16;
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue, Kernel, Mode, OperandId, View, interp};
use lolm_ir::op::{Binary, Unary};
use lolm_ir::{DType, Scalar};
use lolm_ptx_emu::Counts;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mask {
    Full,
    Causal,
    Window(i32),
    Ring(i32),
}

/// Rows of queries `[b, t, h, r]` over keys `[b, s, h]`; the query heads of one r share keys.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    batch: usize,
    heads: usize,
    shared: usize,
    queries: usize,
    keys: usize,
    head: usize,
    wide: usize,
    mask: Mask,
    /// The position of the first query.
    start: i32,
    dropout: bool,
}

const CASE: Case = Case {
    dtype: DType::F32,
    batch: 2,
    heads: 2,
    shared: 1,
    queries: 70,
    keys: 70,
    head: 16,
    wide: 16,
    mask: Mask::Causal,
    start: 0,
    dropout: false,
};

/// Pushes values as lowering does.
struct Build(Kernel);

impl Build {
    fn push(&mut self, op: KOp, args: &[KValue], dtype: DType) -> KValue {
        self.0.push(op, args, dtype)
    }
    fn float(&mut self, x: f32) -> KValue {
        self.push(KOp::Const(Scalar::f32(x)), &[], DType::F32)
    }
    fn int(&mut self, x: i32) -> KValue {
        self.push(KOp::Const(Scalar::I32(x)), &[], DType::I32)
    }
    fn binary(&mut self, b: Binary, x: KValue, y: KValue) -> KValue {
        let dtype = if b.is_predicate() { DType::Bool } else { self.0.value(x).dtype };
        self.push(KOp::Binary(b), &[x, y], dtype)
    }
    fn unary(&mut self, u: Unary, x: KValue) -> KValue {
        self.push(KOp::Unary(u), &[x], DType::F32)
    }
    fn select(&mut self, c: KValue, x: KValue, y: KValue) -> KValue {
        self.push(KOp::Select, &[c, x, y], DType::F32)
    }
    /// A tensor over these axes, the last ones neighbours in memory.
    fn view(&self, axes: &[KAxis]) -> (View, usize) {
        let mut view = View::default();
        let mut stride = 1;
        for a in axes.iter().rev() {
            view.terms.push((*a, stride));
            stride *= self.0.axis(*a).len as i64;
        }
        view.terms.sort();
        (view, stride as usize)
    }
    fn load(&mut self, name: &str, dtype: DType, axes: &[KAxis]) -> KValue {
        let (view, len) = self.view(axes);
        let o = self.0.add_operand(name, dtype, len, Mode::In);
        let x = self.push(KOp::Load(o, view), &[], dtype);
        if dtype == DType::Bf16 { self.push(KOp::Cast(DType::F32), &[x], DType::F32) } else { x }
    }
    fn store(&mut self, name: &str, axes: &[KAxis], x: KValue) -> OperandId {
        let (view, len) = self.view(axes);
        let o = self.0.add_operand(name, DType::F32, len, Mode::Out);
        self.push(KOp::Store(o, view), &[x], DType::F32);
        o
    }
}

impl Case {
    fn visible(&self, b: &mut Build, t: KAxis, s: KAxis) -> Option<KValue> {
        if self.mask == Mask::Full {
            return None;
        }
        let now = b.load("qpos", DType::I32, &[t]);
        let key = b.push(KOp::Index(s), &[], DType::I32);
        let and = |b: &mut Build, x, y| b.binary(Binary::And, x, y);
        Some(match self.mask {
            Mask::Window(w) => {
                let causal = b.binary(Binary::Le, key, now);
                let w = b.int(w);
                let start = b.binary(Binary::Sub, now, w);
                let near = b.binary(Binary::Lt, start, key);
                and(b, causal, near)
            }
            Mask::Ring(w) => {
                let slots = b.int(self.keys as i32);
                let past = b.binary(Binary::Sub, now, key);
                let age = b.binary(Binary::Rem, past, slots);
                let past = b.binary(Binary::Le, age, now);
                let w = b.int(w);
                let near = b.binary(Binary::Lt, age, w);
                and(b, near, past)
            }
            Mask::Causal | Mask::Full => b.binary(Binary::Le, key, now),
        })
    }

    fn kernel(&self) -> Kernel {
        let mut b = Build(Kernel { name: "attention".into(), ..Kernel::default() });
        let mut axis = |name: &str, len: usize| b.0.add_axis(name, len);
        let [bb, t, h, r, d, s, j] = [
            axis("b", self.batch),
            axis("t", self.queries),
            axis("h", self.heads),
            axis("r", self.shared),
            axis("d", self.head),
            axis("s", self.keys),
            axis("j", self.wide),
        ];
        let q = b.load("q", self.dtype, &[bb, t, h, r, d]);
        let k = b.load("k", self.dtype, &[bb, s, h, d]);
        let product = b.push(KOp::Dot(d), &[q, k], DType::F32);
        let scale = b.float((self.head as f32).sqrt().recip());
        let scaled = b.binary(Binary::Mul, product, scale);
        let visible = self.visible(&mut b, t, s);
        let masked = match visible {
            None => scaled,
            Some(c) => {
                let hidden = b.float(f32::NEG_INFINITY);
                b.select(c, scaled, hidden)
            }
        };
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
        if self.dropout {
            let (bi, ti) = (b.push(KOp::Index(bb), &[], DType::I32), b.push(KOp::Index(t), &[], DType::I32));
            let (hi, si) = (b.push(KOp::Index(h), &[], DType::I32), b.push(KOp::Index(s), &[], DType::I32));
            let mut at = bi;
            for (len, i) in [(self.heads, hi), (self.queries, ti), (self.keys, si)] {
                let len = b.int(len as i32);
                at = b.binary(Binary::Mul, at, len);
                at = b.binary(Binary::Add, at, i);
            }
            let (seed, step) = (b.load("seed", DType::I32, &[]), b.load("step", DType::I32, &[]));
            let draw = b.push(KOp::Random { site: 3 }, &[seed, step, at], DType::F32);
            let (rate, factor) = (b.float(0.25), b.float(1.0 / 0.75));
            let keep = b.binary(Binary::Le, rate, draw);
            let kept = b.select(keep, factor, zero);
            w = b.binary(Binary::Mul, w, kept);
        }
        let v = b.load("v", self.dtype, &[bb, s, h, j]);
        let o = b.push(KOp::Dot(s), &[w, v], DType::F32);
        b.store("o", &[bb, t, h, r, j], o);
        b.store("lse", &[bb, h, r, t], lse);
        b.0.verify().unwrap_or_else(|e| panic!("{e}"));
        b.0
    }

    fn data(&self, k: &Kernel, seed: u64) -> Vec<Vec<f64>> {
        let mut n = Numbers(seed);
        let mut one = |name: &str, i: usize, dtype: DType| match (name, dtype) {
            ("qpos", _) => (self.start + i as i32) as f64,
            (_, DType::F32) => 2.0 * n.unit(),
            (_, DType::Bf16) => round_bf16(2.0 * n.unit()),
            _ => 5.0,
        };
        k.operands.iter().map(|o| (0..o.len as usize).map(|i| one(&o.name, i, o.dtype)).collect()).collect()
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
    let ptxas = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ptx-tools/ptxas");
    if !ptxas.exists() {
        eprintln!("skipped: 20 attentions were not assembled; scripts/ptxas.sh fetches ptxas");
        return;
    }
    let folder = std::env::temp_dir().join(format!("lolm-attention-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for dtype in [DType::F32, DType::Bf16] {
        for head in [8, 16, 64, 80, 128] {
            for (queries, mask) in [(2048, Mask::Causal), (1, Mask::Ring(2048))] {
                let case = Case { dtype, mask, queries, keys: 2048, head, wide: head, ..CASE };
                let c = gpu::claim(&case.kernel());
                let (path, out) = (folder.join("a.ptx"), folder.join("a.cubin"));
                std::fs::write(&path, gpu::text(&c)).unwrap();
                let mut run = std::process::Command::new(&ptxas);
                let run = run.args(["-v", "-arch=sm_80"]).arg(&path).arg("-o").arg(&out).output().unwrap();
                let said = String::from_utf8(run.stderr).unwrap();
                assert!(said.contains("0 bytes stack frame, 0 bytes spill stores"), "{case:?} {}\n{said}", c.schedule);
                assert!(!said.contains("warning") && !said.contains("error"), "{said}");
                assert_eq!(c.code.text.contains("mma.sync"), dtype == DType::Bf16);
                if let Some(used) = said.lines().find(|l| l.contains("registers")) {
                    eprintln!("{head} x{queries} {}: {used}", c.schedule);
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
