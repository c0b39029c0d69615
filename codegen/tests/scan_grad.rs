//! Gradients of selective scans as their generator makes them, in the emulator, against the interpreter.
#[allow(dead_code)]
mod common;
use common::attention::Build;
use common::{Numbers, decode, gpu};
use lolm_ir::DType;
use lolm_ir::interp::round_bf16;
use lolm_ir::kernel::{KAxis, KOp, KValue, Kernel, Mode, interp};
use lolm_ir::op::{Binary, Unary};

/// Channels go to `groups` blocks of `tile`; time begins with a state and goes on after its end if `between`.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    batch: usize,
    steps: usize,
    groups: usize,
    tile: usize,
    states: usize,
    between: bool,
    chunk: i32,
}

const CASE: Case =
    Case { dtype: DType::F32, batch: 2, steps: 20, groups: 2, tile: 32, states: 16, between: true, chunk: 8 };

/// The axes b, group, t, n, tile.
type Axes = [KAxis; 5];

impl Case {
    fn axes(&self, b: &mut Build) -> Axes {
        let lens = [self.batch, self.groups, self.steps, self.states, self.tile];
        let mut lens = ["b", "group", "t", "n", "tile"].into_iter().zip(lens);
        std::array::from_fn(|_| lens.next().map(|(name, len)| b.0.add_axis(name, len)).expect("five"))
    }

    /// As lowering makes it, but for what does not matter: the order of the axes in memory.
    fn kernel(&self) -> Kernel {
        let mut b = Build(Kernel { name: "scan_grad".into(), ..Kernel::default() });
        let axes = self.axes(&mut b);
        let [bb, group, t, n, tile] = axes;
        b.0.units = vec![(bb, 1), (group, 1)];
        let load = |b: &mut Build, name: &str, dtype, order: &[KAxis]| {
            let (view, len) = b.view(order);
            let o = b.0.add_operand(name, dtype, len, Mode::In);
            let x = b.push(KOp::Load(o, view), &[], dtype);
            if dtype == DType::Bf16 { b.push(KOp::Cast(DType::F32), &[x], DType::F32) } else { x }
        };
        let (wide, thin, ends) = ([bb, t, group, tile], [bb, t, n], [bb, n, group, tile]);
        let dt = load(&mut b, "dt", self.dtype, &wide);
        let a = load(&mut b, "a", DType::F32, &[group, tile, n]);
        let [bs, cs] = ["b_in", "c_in"].map(|name| load(&mut b, name, self.dtype, &thin));
        let [u, dy] = ["u", "dy"].map(|name| load(&mut b, name, self.dtype, &wide));
        let zero = b.float(0.0);
        let [first, later] = ["first", "later"].map(|name| match self.between {
            true => load(&mut b, name, DType::F32, &ends),
            false => zero,
        });
        let exponent = b.binary(Binary::Mul, dt, a);
        let decay = b.unary(Unary::Exp, exponent);
        let driven = b.binary(Binary::Mul, dt, u);
        let input = b.binary(Binary::Mul, driven, bs);
        let h = b.push(KOp::Scan { axis: t, reverse: false }, &[decay, input, first], DType::F32);
        let before = b.push(KOp::Prev(t), &[h], DType::F32);
        self.keep(&mut b, axes, before);
        let store = |b: &mut Build, name: &str, order: &[KAxis], x| {
            let (view, len) = b.view(order);
            let o = b.0.add_operand(name, DType::F32, len, Mode::Out);
            b.push(KOp::Store(o, view), &[x], DType::F32);
        };
        let d_c = b.push(KOp::Dot(tile), &[h, dy], DType::F32);
        store(&mut b, "d_c", &[bb, t, group, n], d_c);
        let carried = b.binary(Binary::Mul, before, decay);
        let from_y = b.binary(Binary::Mul, dy, cs);
        let decayed = b.binary(Binary::Mul, decay, from_y);
        let back = b.push(KOp::Scan { axis: t, reverse: true }, &[decay, decayed, later], DType::F32);
        let after = b.push(KOp::Prev(t), &[back], DType::F32);
        let slope = b.binary(Binary::Add, after, from_y);
        let d_exp = b.binary(Binary::Mul, slope, carried);
        let through_a = b.push(KOp::Dot(n), &[d_exp, a], DType::F32);
        let through_b = b.push(KOp::Dot(n), &[slope, bs], DType::F32);
        let d_dt = b.push(KOp::Fma, &[through_b, u, through_a], DType::F32);
        let d_u = b.binary(Binary::Mul, through_b, dt);
        store(&mut b, "d_dt", &wide, d_dt);
        store(&mut b, "d_u", &wide, d_u);
        let d_a = b.push(KOp::Dot(t), &[d_exp, dt], DType::F32);
        store(&mut b, "d_a", &ends, d_a);
        let d_b = b.push(KOp::Dot(tile), &[slope, driven], DType::F32);
        store(&mut b, "d_b", &[bb, t, group, n], d_b);
        b.0.verify().unwrap_or_else(|e| panic!("{e}"));
        b.0
    }

    fn keep(&self, b: &mut Build, axes: Axes, before: KValue) {
        let [bb, group, t, n, tile] = axes;
        let (mut view, each) = b.view(&[n, group, tile]);
        let chunks = self.steps.div_ceil(self.chunk as usize);
        view.terms.push((bb, (each * chunks) as i64));
        view.terms.sort();
        let step = b.push(KOp::Index(t), &[], DType::I32);
        let (len, zero) = (b.int(self.chunk), b.int(0));
        let number = b.binary(Binary::Div, step, len);
        let within = b.binary(Binary::Rem, step, len);
        view.guard = Some(b.binary(Binary::Eq, within, zero));
        view.dynamic = vec![(number, each as i64)];
        let o = b.0.add_operand("starts", DType::F32, each * chunks * self.batch, Mode::Out);
        b.push(KOp::Store(o, view), &[before], DType::F32);
    }

    /// Steps below 0.2 and rates below 0: states that last for a while.
    fn data(&self, k: &Kernel, seed: u64) -> Vec<Vec<f64>> {
        let mut numbers = Numbers(seed);
        let mut one = |name: &str| match name {
            "dt" => round_bf16(0.2 * numbers.unit().abs()),
            "a" => -2.0 * numbers.unit().abs(),
            "first" | "later" => numbers.unit(),
            _ => round_bf16(numbers.unit()),
        };
        k.operands.iter().map(|o| (0..o.len).map(|_| one(&o.name)).collect()).collect()
    }
}

/// Compares every result: the error of a tensor relative to its norm.
fn check(c: &Case) {
    let k = c.kernel();
    let data = c.data(&k, 5);
    let claim = gpu::claim(&k);
    assert_eq!(claim.generator, "scan_grad", "{k}");
    let (bytes, _) = gpu::run(&k, &claim, &data);
    let mut expected = data.clone();
    interp::run(&k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
    for ((o, e), b) in k.operands.iter().zip(&expected).zip(&bytes) {
        let found = decode(o.dtype, b);
        let norm = e.iter().map(|e| e * e).sum::<f64>().sqrt();
        let off = e.iter().zip(&found).map(|(e, f)| (e - f) * (e - f)).sum::<f64>().sqrt();
        assert!(off <= 2e-6 * norm, "{c:?} ${}: {off} of {norm}\n{}", o.name, claim.schedule);
    }
}

#[test]
fn chunks_whole_and_not() {
    for steps in [1, 7, 8, 9, 16, 37] {
        for between in [false, true] {
            check(&Case { steps, between, batch: 1, groups: 1, ..CASE });
        }
    }
    check(&Case { chunk: 16, steps: 41, ..CASE });
}

/// States of less than a lane, of one, and of up to all lanes of a warp; channels of a part of a warp, and of several.
#[test]
fn states_by_channels() {
    for states in [1, 3, 4, 7, 8, 12, 16, 17, 32, 64, 100, 128] {
        for tile in [1, 6, 8] {
            check(&Case { states, tile, batch: 1, steps: 11, ..CASE });
        }
    }
    for (states, tile) in [(2, 128), (5, 100), (16, 128), (16, 70), (30, 64), (32, 64), (64, 16)] {
        check(&Case { states, tile, batch: 1, groups: 2, ..CASE });
    }
}

#[test]
fn inputs_of_bf16() {
    check(&Case { dtype: DType::Bf16, ..CASE });
    check(&Case { dtype: DType::Bf16, steps: 13, tile: 128, groups: 1, ..CASE });
}

/// The emulator sees it if any barrier is missing: none is there in vain.
#[test]
fn every_barrier_is_needed() {
    let c = Case { batch: 1, groups: 1, tile: 64, ..CASE };
    let k = c.kernel();
    let (claim, data) = (gpu::claim(&k), c.data(&k, 7));
    assert!(gpu::barriers_are_needed(&k, &claim, &data) >= 5);
}

/// Lanes that read and write shared memory at once do so in different banks.
#[test]
fn shared_memory_is_used_without_conflicts() {
    let c = Case { tile: 128, batch: 1, groups: 1, ..CASE };
    let k = c.kernel();
    let claim = gpu::claim(&k);
    let counts = gpu::run(&k, &claim, &c.data(&k, 7)).1;
    let text = gpu::text(&claim);
    let lines: Vec<&str> = text.lines().collect();
    let shared = |line: u32| lines[line as usize - 1].contains(".shared.");
    let (mut n, mut conflicts) = (0, 0);
    for (_, x) in counts.lines.iter().filter(|(line, _)| shared(**line)) {
        (n, conflicts) = (n + x.requests, conflicts + x.bank_conflicts);
    }
    assert!(n > 0 && conflicts == 0, "{conflicts} conflicts in {n} accesses");
}

/// Of each state and step: what the way forwards and the way back take of the issue slots of a warp, the start of the kernel
/// left out; and what moves, each sector of global memory once.
#[test]
fn little_is_done_for_each_state() {
    let run = |steps: usize| {
        let c = Case { tile: 128, groups: 1, batch: 1, between: false, steps, ..CASE };
        let k = c.kernel();
        gpu::run(&k, &gpu::claim(&k), &c.data(&k, 7)).1
    };
    let (short, long) = (run(64), run(128));
    let states = (64 * 128 * CASE.states) as f64;
    let instructions = 32.0 * (long.total.warps - short.total.warps) as f64 / states;
    let sectors = (long.global.sectors - short.global.sectors) as f64;
    let exponentials = 2.0;
    assert!((exponentials..24.5).contains(&instructions), "{instructions} instructions");
    let bytes = 32.0 * sectors / (64.0 * 128.0);
    // Of a channel and step: five values in, two out, a state in eight steps out and in; and its share of b and c, which each
    // warp reads, and of their sums.
    assert!(bytes < 4.0 * 7.0 + 2.0 * 4.0 * 16.0 / 8.0 + 8.0, "{bytes} bytes");
}

/// NVIDIA's assembler keeps all values in registers, of two blocks at once.
#[test]
fn values_are_in_registers() {
    let Some(assembly) = gpu::Assembly::of(5, "gradients of scans") else { return };
    for (states, tile, steps) in [(16, 128, 2048), (16, 128, 2045), (32, 64, 2048), (64, 16, 2048), (128, 8, 2048)] {
        let c = Case { states, tile, groups: 16, steps, between: false, ..CASE };
        let usage = assembly.usage(&gpu::claim(&c.kernel()), "sm_80");
        eprintln!("{usage:?}");
        assert!(usage.registers <= 255);
    }
}
