//! Selective scans as their generator makes them, in the emulator, against the interpreter.
#[allow(dead_code)]
mod common;
use common::attention::Build;
use common::{Numbers, decode, gpu};
use lolm_ir::DType;
use lolm_ir::interp::round_bf16;
use lolm_ir::kernel::{KAxis, KOp, KValue, Kernel, Mode, interp};
use lolm_ir::op::{Binary, Unary};

#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    batch: usize,
    steps: usize,
    channels: usize,
    states: usize,
    /// It goes on from a state, which the last one replaces.
    state: bool,
    what: What,
}

/// The results alone, or gated with their skip; only the last states; or these of a scan backwards.
#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    Results,
    Gated,
    Last,
    LastBack,
    ResultsBack,
}

const CASE: Case =
    Case { dtype: DType::F32, batch: 2, steps: 20, channels: 40, states: 16, state: true, what: What::Results };

impl Case {
    fn kernel(&self) -> Kernel {
        let mut b = Build(Kernel { name: "scan".into(), ..Kernel::default() });
        let lens = [self.batch, self.steps, self.channels, self.states];
        let mut lens = ["b", "t", "e", "n"].into_iter().zip(lens);
        let [bb, t, e, n] =
            std::array::from_fn(|_| lens.next().map(|(name, len)| b.0.add_axis(name, len)).expect("four"));
        let dt = b.load("dt", self.dtype, &[bb, t, e]);
        let a = b.load("a", DType::F32, &[e, n]);
        let [bs, cs] = ["b_in", "c_in"].map(|name| b.load(name, self.dtype, &[bb, t, n]));
        let u = b.load("u", self.dtype, &[bb, t, e]);
        let exponent = b.binary(Binary::Mul, dt, a);
        let decay = b.unary(Unary::Exp, exponent);
        let (view, len) = b.view(&[bb, e, n]);
        let state = self.state.then(|| b.0.add_operand("h", DType::F32, len, Mode::InOut));
        let first = match state {
            Some(o) => b.push(KOp::Load(o, view.clone()), &[], DType::F32),
            None => b.float(0.0),
        };
        let reverse = matches!(self.what, What::LastBack | What::ResultsBack);
        let driven = b.binary(Binary::Mul, if reverse { u } else { dt }, if reverse { bs } else { u });
        let input = if reverse { b.binary(Binary::Mul, decay, driven) } else { b.binary(Binary::Mul, driven, bs) };
        let h = b.push(KOp::Scan { axis: t, reverse }, &[decay, input, first], DType::F32);
        if !matches!(self.what, What::Last | What::LastBack) {
            self.results(&mut b, [bb, t, e, n], [h, cs, u]);
        }
        if let Some(o) = state {
            let last = b.push(KOp::Last(t), &[h], DType::F32);
            b.push(KOp::Store(o, view), &[last], DType::F32);
        }
        b.0.verify().unwrap_or_else(|e| panic!("{e}"));
        b.0
    }

    fn results(&self, b: &mut Build, [bb, t, e, n]: [KAxis; 4], [h, cs, u]: [KValue; 3]) {
        let mut y = b.push(KOp::Dot(n), &[h, cs], DType::F32);
        if self.what == What::Gated {
            let (skip, z) = (b.load("skip", DType::F32, &[e]), b.load("z", self.dtype, &[bb, t, e]));
            y = b.push(KOp::Fma, &[skip, u, y], DType::F32);
            let gate = b.unary(Unary::Silu, z);
            y = b.binary(Binary::Mul, y, gate);
        }
        b.store("y", &[bb, t, e], y);
    }

    /// Steps below 0.2 and rates below 0: states that last for a while.
    fn data(&self, k: &Kernel, seed: u64) -> Vec<Vec<f64>> {
        let mut numbers = Numbers(seed);
        let mut one = |name: &str| match name {
            "dt" => round_bf16(0.2 * numbers.unit().abs()),
            "a" => -2.0 * numbers.unit().abs(),
            "h" | "skip" => numbers.unit(),
            _ => round_bf16(numbers.unit()),
        };
        k.operands.iter().map(|o| (0..o.len).map(|_| one(&o.name)).collect()).collect()
    }
}

fn run(k: &Kernel, data: &[Vec<f64>]) -> Vec<Vec<u8>> {
    let claim = gpu::claim(k);
    assert_eq!(claim.generator, "scan", "{k}");
    gpu::run(k, &claim, data).0
}

/// Compares every result: the error of a tensor relative to its norm.
fn check(c: &Case) {
    let k = c.kernel();
    let data = c.data(&k, 5);
    let bytes = run(&k, &data);
    let mut expected = data.clone();
    interp::run(&k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
    for ((o, e), b) in k.operands.iter().zip(&expected).zip(&bytes) {
        let found = decode(o.dtype, b);
        let norm = e.iter().map(|e| e * e).sum::<f64>().sqrt();
        let off = e.iter().zip(&found).map(|(e, f)| (e - f) * (e - f)).sum::<f64>().sqrt();
        assert!(off <= 2e-6 * norm, "{c:?} ${}: {off} of {norm}", o.name);
    }
}

#[test]
fn chunks_whole_and_not() {
    for steps in [1, 2, 7, 8, 9, 16, 37] {
        for state in [false, true] {
            check(&Case { steps, state, ..CASE });
            check(&Case { steps, state, what: What::ResultsBack, ..CASE });
        }
        check(&Case { steps, what: What::Last, ..CASE });
        check(&Case { steps, what: What::LastBack, ..CASE });
    }
}

/// States of less than a lane, of one, and of up to all lanes of a warp; channels of a part of a warp, and of several blocks.
#[test]
fn states_by_channels() {
    for states in [1, 3, 4, 7, 8, 16, 17, 32, 100, 128] {
        for channels in [1, 6, 33, 140] {
            check(&Case { states, channels, batch: 1, steps: 11, ..CASE });
        }
    }
}

#[test]
fn inputs_of_bf16() {
    check(&Case { dtype: DType::Bf16, ..CASE });
}

#[test]
fn skip_and_gate() {
    check(&Case { what: What::Gated, ..CASE });
    check(&Case { what: What::Gated, dtype: DType::Bf16, channels: 33, ..CASE });
}

/// Steps one by one, and of two sequences at once, give the bits of all of them together.
#[test]
fn pieces_give_the_same_bits() {
    let whole = Case { batch: 1, steps: 21, ..CASE };
    let k = whole.kernel();
    let data = whole.data(&k, 9);
    let expected = run(&k, &data);
    let at = |k: &Kernel, name: &str| k.operands.iter().position(|o| o.name == name).expect("an operand");
    for (batch, pieces) in [(1, vec![13, 8]), (1, vec![1; 21]), (2, vec![16, 5]), (3, vec![2, 19])] {
        let mut h = data[at(&k, "h")].clone();
        let mut done = 0;
        for steps in pieces {
            let c = Case { batch, steps, ..whole };
            let piece = c.kernel();
            let one = |(o, all): (&lolm_ir::kernel::Operand, &Vec<f64>)| {
                let each = match o.name.as_str() {
                    "h" => h.clone(),
                    "a" => return all.clone(),
                    _ => {
                        let of_step = all.len() / whole.steps;
                        all[done * of_step..(done + steps) * of_step].to_vec()
                    }
                };
                each.repeat(batch)
            };
            let feeds: Vec<Vec<f64>> = piece.operands.iter().zip(&data).map(one).collect();
            let found = run(&piece, &feeds);
            let of_step = 4 * whole.channels;
            let y = &found[at(&piece, "y")];
            let last = &y[(batch - 1) * steps * of_step..];
            assert!(last == &expected[at(&k, "y")][done * of_step..(done + steps) * of_step], "{c:?} at {done}");
            let states = decode(DType::F32, &found[at(&piece, "h")]);
            h = states[states.len() - h.len()..].to_vec();
            done += steps;
        }
    }
}

/// The emulator sees it if any barrier is missing: none is there in vain.
#[test]
fn every_barrier_is_needed() {
    for what in [What::Results, What::ResultsBack] {
        let c = Case { batch: 1, steps: 27, what, ..CASE };
        let k = c.kernel();
        assert!(gpu::barriers_are_needed(&k, &gpu::claim(&k), &c.data(&k, 7)) >= 4);
    }
}

/// Of each state and step: what the walk takes of the issue slots of a warp, the start of the kernel left out.
#[test]
fn little_is_done_for_each_state() {
    let run = |steps: usize| {
        let c = Case { channels: 128, batch: 1, steps, ..CASE };
        let k = c.kernel();
        gpu::run(&k, &gpu::claim(&k), &c.data(&k, 7)).1.total.warps
    };
    let instructions = 32.0 * (run(128) - run(64)) as f64 / (64 * 128 * CASE.states) as f64;
    assert!((1.0..7.5).contains(&instructions), "{instructions} instructions");
}

/// NVIDIA's assembler keeps all values in registers, of several blocks at once.
#[test]
fn values_are_in_registers() {
    let Some(assembly) = gpu::Assembly::of(2, "scans") else { return };
    for what in [What::Results, What::Gated] {
        let c = Case { channels: 2048, steps: 2048, what, ..CASE };
        let usage = assembly.usage(&gpu::claim(&c.kernel()), "sm_80");
        eprintln!("{usage:?}");
        assert!(usage.registers <= 128, "{usage:?}");
    }
}
