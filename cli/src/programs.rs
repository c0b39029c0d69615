//! The programs of an artifact: which, in which shapes, and under which names the runtime finds them.
use crate::spec::Overrides;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use lolm_ir::Graph;
use lolm_ir::artifact::lanes_program;
use lolm_ir::threads::in_order;
use lolm_models::spec::Override;
use lolm_models::{Noise, Program, Spec, build, prefill_sizes};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Precision, Source, Weights};
use std::collections::BTreeSet;

/// What a program is for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Kind {
    /// A training step: forward, losses, backward, clipping, AdamW
    Train,
    /// Loss of each token, with statistics of gate, codes and memory
    Eval,
    /// Many tokens of a prompt at once, going on from the states
    Prefill,
    /// One token, going on from the states; with --slots also of several sequences side by side
    Decode,
    /// Logits of all of many tokens, going on from the states
    Score,
    /// Logits and what is inside of the model, for a whole sequence
    Forward,
    /// The gradient of every parameter
    Gradients,
}

/// What `lolm compile` puts into an artifact.
pub const USUAL: [Kind; 4] = [Kind::Train, Kind::Eval, Kind::Prefill, Kind::Decode];

/// What evaluates and generates, but does not train.
pub const READING: [Kind; 3] = [Kind::Eval, Kind::Prefill, Kind::Decode];

/// What serves.
pub const SERVING: [Kind; 3] = [Kind::Prefill, Kind::Decode, Kind::Score];

/// What weights are stored as.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug, Default)]
pub enum WeightsDtype {
    #[default]
    F32,
    /// What only feeds products and look-ups as bf16, for programs that do not train; sums stay in f32
    Bf16,
}

/// What products compute in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug, Default)]
pub enum PrecisionArg {
    #[default]
    F32,
    /// Operands rounded to bf16, sums in f32
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(p: PrecisionArg) -> Precision {
        match p {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        }
    }
}

impl From<WeightsDtype> for Weights {
    fn from(w: WeightsDtype) -> Weights {
        match w {
            WeightsDtype::F32 => Weights::F32,
            WeightsDtype::Bf16 => Weights::Bf16,
        }
    }
}

/// Lengths in which prompts are taken in, where the memory's chunks allow them.
const PREFILL: [usize; 4] = [256, 64, 16, 4];

/// Lengths in which the logits of all tokens are given, where the memory's chunks allow them.
const SCORE: [usize; 2] = [64, 8];

/// Which programs, and their shapes; what is left out comes from the spec.
#[derive(Args, Clone, PartialEq, Debug, Default)]
pub struct ProgramArgs {
    /// Programs, separated by commas
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub programs: Vec<Kind>,
    /// Sequences of a training step [default: training.batch]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Tokens of a training sequence [default: training.seq]
    #[arg(long, value_name = "N")]
    pub seq: Option<usize>,
    /// Sequences of an evaluation [default: that of training]
    #[arg(long, value_name = "N")]
    pub eval_batch: Option<usize>,
    /// Tokens of an evaluated sequence [default: that of training]
    #[arg(long, value_name = "N")]
    pub eval_seq: Option<usize>,
    /// Lengths in which prompts are taken in, separated by commas [default: of 256, 64, 16, 4 those that fit the memory]
    #[arg(long, value_name = "LENGTHS", value_delimiter = ',')]
    pub prefill: Option<Vec<usize>>,
    /// Sequences that a server may decode side by side; adds decode_1, decode_2, decode_4 and so on, and scores
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
}

impl ProgramArgs {
    /// The keys of the spec that batch and sequence stand for, so that the artifact's spec says what was compiled.
    pub fn add_to(&self, overrides: &mut Overrides) {
        for (key, value) in [("training.batch", self.batch), ("training.seq", self.seq)] {
            overrides.set.extend(value.map(|n| Override::new(key, n.to_string())));
        }
    }

    /// The graphs of these programs, or of the `default` ones if none is asked for.
    pub fn sources(&self, spec: &Spec, default: &[Kind]) -> Result<Vec<Source>> {
        if self.slots == Some(0) {
            bail!("--slots 0: a server decodes at least one sequence");
        }
        let score = [Kind::Score];
        let serves: &[Kind] = if self.slots.is_some() && !default.contains(&Kind::Score) { &score } else { &[] };
        let kinds = if self.programs.is_empty() { [default, serves].concat() } else { self.programs.clone() };
        let all: Vec<_> = kinds.iter().flat_map(|kind| self.of_kind(spec, *kind)).collect();
        for (i, (name, _, _)) in all.iter().enumerate() {
            if all[..i].iter().any(|other| other.0 == *name) {
                bail!("program {name} is asked for twice");
            }
        }
        graphs(spec, &all)
    }

    fn of_kind(&self, spec: &Spec, kind: Kind) -> Vec<(String, Program, Goal)> {
        let t = &spec.training;
        let (batch, seq) = (self.batch.unwrap_or(t.batch), self.seq.unwrap_or(t.seq));
        let whole = |name: &str| format!("{name}_{batch}x{seq}");
        let train = |noise| Program::Train { batch, seq, noise };
        match kind {
            Kind::Train => vec![(whole("train"), train(Noise::Random), Goal::Train(adamw(spec)))],
            Kind::Gradients => vec![(whole("gradients"), train(Noise::Input), Goal::Gradients)],
            Kind::Forward => {
                vec![(whole("forward"), Program::Forward { batch, seq, forced_gate: false }, Goal::Forward)]
            }
            Kind::Eval => {
                let (batch, seq) = (self.eval_batch.unwrap_or(batch), self.eval_seq.unwrap_or(seq));
                vec![(format!("eval_{batch}x{seq}"), Program::Eval { batch, seq }, Goal::Forward)]
            }
            Kind::Prefill => {
                let sizes = self.prefill.clone().unwrap_or_else(|| possible(spec, &PREFILL));
                let one = |tokens| (format!("prefill_{tokens}"), Program::Step { slots: 1, tokens }, Goal::Forward);
                sizes.into_iter().map(one).collect()
            }
            Kind::Decode => {
                let step = |name, slots| (name, Program::Step { slots, tokens: 1 }, Goal::Forward);
                let wide = lane_counts(self.slots.unwrap_or(0)).into_iter().map(|n| step(lanes_program(n), n));
                [step("decode".into(), 1)].into_iter().chain(wide).collect()
            }
            Kind::Score => {
                let one = |tokens| (format!("score_{tokens}"), Program::Score { tokens }, Goal::Forward);
                possible(spec, &SCORE).into_iter().map(one).collect()
            }
        }
    }
}

/// The graphs of programs that decode in these numbers of lanes, and of those that read a prompt for them.
pub fn lanes_of(spec: &Spec, counts: &[usize]) -> Result<Vec<Source>> {
    let mut all = [Kind::Prefill, Kind::Decode].map(|kind| ProgramArgs::default().of_kind(spec, kind)).concat();
    let counts: BTreeSet<usize> = counts.iter().copied().collect();
    let lanes = |n: usize| (lanes_program(n), Program::Step { slots: n, tokens: 1 }, Goal::Forward);
    all.extend(counts.into_iter().map(lanes));
    graphs(spec, &all)
}

fn graphs(spec: &Spec, programs: &[(String, Program, Goal)]) -> Result<Vec<Source>> {
    let one = |i: usize| {
        let (name, program, goal) = &programs[i];
        let graph = Graph { name: name.clone(), ..build(spec, program)? };
        Ok(Source { graph, goal: *goal })
    };
    in_order(programs.len(), one).into_iter().collect()
}

/// Those of these lengths that the model can take in.
fn possible(spec: &Spec, lengths: &[usize]) -> Vec<usize> {
    let possible = prefill_sizes(spec);
    lengths.iter().copied().filter(|n| possible.contains(n)).collect()
}

/// In how many lanes sequences are decoded when up to `slots` of them run: powers of two, and all of them.
pub fn lane_counts(slots: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1usize), |n| n.checked_mul(2)).take_while(|n| *n < slots);
    powers.chain((slots > 0).then_some(slots)).collect()
}

/// The optimizer as the spec says it.
pub fn adamw(spec: &Spec) -> AdamW {
    let o = &spec.optimizer;
    AdamW {
        beta1: o.betas[0],
        beta2: o.betas[1],
        eps: o.eps,
        weight_decay: o.weight_decay,
        clip: Some(o.clip),
        skip_above: spec.training.loss_limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(args: &ProgramArgs) -> Vec<String> {
        let spec = lolm_models::spec::library("lolm-demo").unwrap().unwrap();
        args.sources(&spec, &USUAL).unwrap().into_iter().map(|s| s.graph.name).collect()
    }

    #[test]
    fn programs_are_named_by_their_shapes() {
        let usual = names(&ProgramArgs::default());
        assert_eq!(usual, ["train_8x256", "eval_8x256", "prefill_64", "prefill_16", "prefill_4", "decode"]);
        let args = ProgramArgs { batch: Some(2), eval_seq: Some(64), prefill: Some(vec![32]), ..Default::default() };
        assert_eq!(names(&args), ["train_2x256", "eval_2x64", "prefill_32", "decode"]);
        let args = ProgramArgs { programs: vec![Kind::Decode], ..Default::default() };
        assert_eq!(names(&args), ["decode"]);
        let args = ProgramArgs { programs: SERVING.to_vec(), prefill: Some(vec![4]), slots: Some(6), ..args };
        let lanes = ["decode_1", "decode_2", "decode_4", "decode_6"];
        assert_eq!(names(&args), [&["prefill_4", "decode"], &lanes[..], &["score_64", "score_8"]].concat());
        let args = ProgramArgs { slots: Some(1), prefill: Some(vec![4]), ..Default::default() };
        let usual = ["train_8x256", "eval_8x256", "prefill_4", "decode", "decode_1", "score_64", "score_8"];
        assert_eq!(names(&args), usual);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let spec = lolm_models::spec::library("lolm-demo").unwrap().unwrap();
        let wrong = [
            ProgramArgs { seq: Some(4096), ..Default::default() },
            ProgramArgs { batch: Some(0), ..Default::default() },
            ProgramArgs { slots: Some(0), ..Default::default() },
            ProgramArgs { prefill: Some(vec![63]), ..Default::default() },
            ProgramArgs { prefill: Some(vec![4, 4]), ..Default::default() },
        ];
        for args in wrong {
            assert!(args.sources(&spec, &USUAL).is_err(), "{args:?}");
        }
    }
}
