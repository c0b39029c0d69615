//! Compiled for the CPU, the golden cases give PyTorch's outputs, losses, gradients and trajectory.
use lolm_passes::pipeline::Source;
use lolm_runtime::Model;
use lolm_tests::compiled::model;
use lolm_tests::golden::{CASES, Case};
use lolm_tests::golden_checks;

fn make(case: &Case, sources: &[Source]) -> Model {
    model(case, sources, 2)
}

#[test]
fn outputs_agree() {
    golden_checks::outputs_agree(&CASES, &make, &|_, _| 1e-4);
}

#[test]
fn losses_and_gradients_agree() {
    golden_checks::losses_and_gradients_agree(&CASES, &make);
}

#[test]
fn five_steps_agree() {
    golden_checks::steps_agree(&CASES, 6, &make);
}
