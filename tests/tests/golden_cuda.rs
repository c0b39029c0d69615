//! Compiled for CUDA and run by the emulator, the golden cases give PyTorch's numbers in f32, and in bf16 about as nearly
//! as PyTorch's own bf16.
use lolm_models::{Noise, Program};
use lolm_passes::pipeline::{Goal, Options, Precision, Source, Target, Weights};
use lolm_runtime::Model;
use lolm_tests::compiled::{emulated, model, source};
use lolm_tests::golden::{CASES, Case};
use lolm_tests::golden_checks::{self, bf16_bound};

const F32: Options = Options { weights: Weights::F32, target: Target::Gpu, precision: Precision::F32 };

fn f32(case: &Case, sources: &[Source]) -> Model {
    emulated(case, sources, F32)
}
fn bf16(case: &Case, sources: &[Source]) -> Model {
    emulated(case, sources, Options { precision: Precision::Bf16, ..F32 })
}

#[test]
fn outputs_agree() {
    golden_checks::outputs_agree(&CASES, &f32, &|_, _| 1e-4);
}

#[test]
fn outputs_in_bf16_are_near() {
    golden_checks::outputs_agree(&CASES, &bf16, &bf16_bound);
}

#[test]
fn losses_and_gradients_agree() {
    golden_checks::losses_and_gradients_agree(&CASES, &f32);
}

#[test]
fn two_steps_agree() {
    golden_checks::steps_agree(&CASES, 2, &f32);
}

/// Draws of randomness are those of the CPU: with noise of its own, a step gives the same loss.
#[test]
fn noise_is_that_of_the_cpu() {
    for case in ["lolm_full", "lolm_full_mamba_ssm"].map(Case::load) {
        let program = Program::Train { batch: case.batch(), seq: case.seq(), noise: Noise::Random };
        let sources = [source(&case.spec, "noise", program, Goal::Gradients)];
        let mut losses = vec![];
        for mut m in [model(&case, &sources, 2), f32(&case, &sources)] {
            let out = golden_checks::call(&mut m, &case, "noise", &[("seed", 7.0), ("step", 3.0)]);
            losses.push(out["loss.total"][0]);
        }
        assert!((losses[0] - losses[1]).abs() <= 1e-5 * losses[0].abs(), "{}: {losses:?}", case.name);
    }
}
