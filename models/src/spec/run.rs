//! The sections [optimizer] and [training], which every family has.
use super::reader::{Result, Section};
use super::{OptimizerSpec, TrainingSpec};

const OPTIMIZER: &[&str] = &["lr", "betas", "eps", "weight_decay", "clip"];
const TRAINING: &[&str] =
    &["batch", "seq", "accumulate", "steps", "warmup", "floor", "loss_limit", "skip_limit", "seed"];

const MAX_STEPS: usize = 1 << 40;

pub fn optimizer(top: &Section) -> Result<OptimizerSpec> {
    let Some(s) = top.section("optimizer", OPTIMIZER)? else {
        return top.refuse("optimizer", "a section [optimizer]");
    };
    Ok(OptimizerSpec {
        lr: s.number("lr", 0.0..=10.0)?,
        betas: s.pair("betas", 0.0..=0.999999)?,
        eps: s.number_or("eps", 1e-16..=1.0, 1e-8)?,
        weight_decay: s.number("weight_decay", 0.0..=10.0)?,
        clip: s.number("clip", 1e-6..=1e9)?,
    })
}

pub fn training(top: &Section, max_seq_len: usize) -> Result<TrainingSpec> {
    let Some(s) = top.section("training", TRAINING)? else {
        return top.refuse("training", "a section [training]");
    };
    let seq = s.length("seq")?;
    if seq > max_seq_len {
        return s.refuse("seq", format!("at most max_seq_len = {max_seq_len}"));
    }
    Ok(TrainingSpec {
        batch: s.length("batch")?,
        seq,
        accumulate: s.count_or("accumulate", 1..=1 << 20, 1)?,
        steps: s.count("steps", 1..=MAX_STEPS)?,
        warmup: s.count_or("warmup", 0..=MAX_STEPS, 0)?,
        floor: s.number_or("floor", 0.0..=1.0, 0.1)?,
        loss_limit: s.number_or("loss_limit", 1e-3..=1e30, 1000.0)?,
        skip_limit: s.count_or("skip_limit", 1..=MAX_STEPS, 100)?,
        seed: s.count_or("seed", 0..=i32::MAX as usize, 0)?,
    })
}
