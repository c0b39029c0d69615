//! What the runtime is told of a run, from the spec.
use lolm_models::LolmSpec;
use lolm_runtime::generate::Settings;
use lolm_runtime::train::{Config, LearningRate, Temperature};

/// The schedule of a whole run.
pub fn config(spec: &LolmSpec) -> Config {
    let (t, steps) = (&spec.training, spec.training.steps as u64);
    Config {
        seed: t.seed as u64,
        steps,
        learning_rate: LearningRate { peak: spec.optimizer.lr, warmup_steps: t.warmup as u64, steps, floor: t.floor },
        temperature: temperature(spec),
        vocab: spec.vocab_size,
        skip_limit: u32::try_from(t.skip_limit).unwrap_or(u32::MAX),
    }
}

fn temperature(spec: &LolmSpec) -> Temperature {
    match &spec.regime {
        Some(r) => Temperature { start: r.temp_start, end: r.temp_end, steps: r.temp_anneal_steps as u64 },
        None => Temperature { start: 1.0, end: 1.0, steps: 1 },
    }
}

/// The temperature of the regime after this many steps of training; without a number, at the end.
pub fn tau(spec: &LolmSpec, steps: Option<u64>) -> f32 {
    temperature(spec).at(steps.unwrap_or(u64::MAX)) as f32
}

/// How text is generated: at the temperature at which training ended, with the gate at this value or as learned.
pub fn settings(spec: &LolmSpec, gate: Option<f32>) -> Settings {
    Settings { max_seq_len: spec.max_seq_len, gate_force: gate.unwrap_or(-1.0), tau: tau(spec, None) }
}
