//! Programs: what an artifact can do with a model, each a function of the spec and a shape.
use crate::cx::{Cx, Lengths};
use crate::language_model::LanguageModel;
use crate::lolm::{self, Noise};
use crate::spec::{Family, Spec};
use lolm_ir::graph::LeafKind;
use lolm_ir::{Graph, GraphError};

/// A program and its shape. Inputs are declared where they are used: `tokens` and `targets` `i32[b,t]` (-1 is ignored),
/// `pos` `i32[b]`, and for a LOLM `tau` `f32[]`, `seed` and `step` `i32[]`, `gate.force` `f32[]`, or `f32[b]` where tokens go
/// on from states (negative: as learned).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// Forward with losses: `loss.total`, `loss.tok` and every other `loss.<part>`, and `gate.mean`.
    Train { batch: usize, seq: usize, noise: Noise },
    /// Forward without noise: `logits`, and `h`, `z`, `mem_read`, `mem_attn`, `regime_probs`, `gate` where present.
    Forward { batch: usize, seq: usize, forced_gate: bool },
    /// `loss` of each token, and where present `gate.mean` by feature, `gate.histogram`, `regime.usage`,
    /// `memory.entropy`.
    Eval { batch: usize, seq: usize },
    /// Tokens that go on from states: `logits` of the last one, and of each, where present, `gate`, `regime`, which is its
    /// code, `memory.entry` and `memory.weight`, which are the entry of the memory that it attends to most, and how much.
    /// The tokens lie within one memory chunk: their number divides it and `pos`.
    Step { slots: usize, tokens: usize },
    /// As a step of one slot, with the `logits` of all tokens.
    Score { tokens: usize },
}

/// Why there is no such program.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    #[error("program {program}: {what} is {found}, expected {expected}")]
    Shape { program: &'static str, what: &'static str, found: usize, expected: String },
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Numbers of tokens that a step may take in, longest first.
const STEPS: [usize; 9] = [256, 128, 64, 32, 16, 8, 4, 2, 1];

/// The graph of a program.
pub fn build(spec: &Spec, program: &Program) -> Result<Graph, BuildError> {
    program.check(spec)?;
    match &spec.family {
        Family::Lolm(s) => lolm::build(spec, s, program),
        Family::Transformer(s) => plain(spec, s, program),
        Family::Mamba(s) => plain(spec, s, program),
        Family::Jamba(s) => plain(spec, s, program),
        Family::Griffin(s) => plain(spec, s, program),
        Family::Samba(s) => plain(spec, s, program),
    }
}

fn plain<S: LanguageModel>(spec: &Spec, family: &S, program: &Program) -> Result<Graph, BuildError> {
    let len = program.lengths(spec, family.hidden_size(), kept_keys(family.window(), spec.max_seq_len));
    let mut cx = Cx::new(program.name(), family, len, program.goes_on());
    crate::language_model::program(&mut cx, program);
    Ok(cx.into_builder().finish()?)
}

/// Names and shapes of the parameters of the model, in the order of the graph. The heads of the loss are not among
/// them: they are trained and stored beside the model, but the published counts leave them out.
pub fn parameters(spec: &Spec) -> Result<Vec<(String, Vec<usize>)>, BuildError> {
    Ok(all_parameters(spec)?.into_iter().filter(|(n, _)| !n.starts_with("loss.")).collect())
}

/// Names and shapes of the parameters that only training needs.
pub fn loss_parameters(spec: &Spec) -> Result<Vec<(String, Vec<usize>)>, BuildError> {
    Ok(all_parameters(spec)?.into_iter().filter(|(n, _)| n.starts_with("loss.")).collect())
}

fn all_parameters(spec: &Spec) -> Result<Vec<(String, Vec<usize>)>, BuildError> {
    let g = build(spec, &Program::Train { batch: 1, seq: spec.max_seq_len, noise: Noise::Random })?;
    let params = g.leaves.iter().filter(|l| matches!(l.kind, LeafKind::Param(_)));
    Ok(params.map(|l| (l.name.clone(), l.shape(&g))).collect())
}

/// The numbers of tokens in which a prompt may be taken in, longest first. Taken greedily, with each only at a position
/// that it divides, they end at every border of the memory's chunks. No step is longer than the window of the model.
pub fn prefill_sizes(spec: &Spec) -> Vec<usize> {
    let (len, whole) = (spec.chunk_len(), spec.memory().is_none_or(|m| m.n_chunks == 1));
    let window = window(spec).unwrap_or(usize::MAX);
    let fits = |n: &usize| *n <= window && if whole { *n <= len } else { len % n == 0 };
    STEPS.into_iter().filter(fits).collect()
}

/// The window of the model's attention, if it has one.
pub fn window(spec: &Spec) -> Option<usize> {
    match &spec.family {
        Family::Lolm(_) => None,
        Family::Transformer(s) => s.window(),
        Family::Mamba(s) => s.window(),
        Family::Jamba(s) => s.window(),
        Family::Griffin(s) => s.window(),
        Family::Samba(s) => s.window(),
    }
}

/// How many keys are kept when tokens go on from states: all, or for a window a ring buffer in which the longest step
/// overwrites nothing that its first token still sees.
pub fn kept_keys(window: Option<usize>, context: usize) -> usize {
    let longest = |w: usize| STEPS.into_iter().find(|n| *n <= w).unwrap_or(1);
    window.map_or(context, |w| (w + longest(w) - 1).min(context))
}

impl Program {
    pub fn name(&self) -> &'static str {
        match self {
            Program::Train { .. } => "train",
            Program::Forward { .. } => "forward",
            Program::Eval { .. } => "eval",
            Program::Step { .. } => "step",
            Program::Score { .. } => "score",
        }
    }

    /// Its tokens go on from states.
    pub fn goes_on(&self) -> bool {
        match self {
            Program::Step { .. } | Program::Score { .. } => true,
            Program::Train { .. } | Program::Forward { .. } | Program::Eval { .. } => false,
        }
    }

    /// Sequences and tokens of each.
    pub fn shape(&self) -> (usize, usize) {
        match *self {
            Program::Train { batch, seq, .. } | Program::Forward { batch, seq, .. } | Program::Eval { batch, seq } => {
                (batch, seq)
            }
            Program::Step { slots, tokens } => (slots, tokens),
            Program::Score { tokens } => (1, tokens),
        }
    }

    pub(crate) fn lengths(&self, spec: &Spec, hidden: usize, kept: usize) -> Lengths {
        let (batch, tokens) = self.shape();
        Lengths { batch, tokens, hidden, vocab: spec.vocab_size, context: spec.max_seq_len, kept }
    }

    fn check(&self, spec: &Spec) -> Result<(), BuildError> {
        let (batch, tokens) = self.shape();
        let program = self.name();
        let shape = |what, found, expected: String| Err(BuildError::Shape { program, what, found, expected });
        if batch == 0 {
            return shape("the batch", batch, "1 or more".into());
        }
        if tokens == 0 || tokens > spec.max_seq_len {
            return shape("the number of tokens", tokens, format!("1 to max_seq_len = {}", spec.max_seq_len));
        }
        match self {
            Program::Step { .. } | Program::Score { .. } if !prefill_sizes(spec).contains(&tokens) => {
                shape("the number of tokens", tokens, format!("one of {:?}", prefill_sizes(spec)))
            }
            Program::Step { .. } | Program::Score { .. } => Ok(()),
            Program::Train { .. } | Program::Forward { .. } | Program::Eval { .. } => match spec.memory() {
                Some(m) if tokens < m.n_chunks => {
                    shape("the number of tokens", tokens, format!("at least memory.n_chunks = {}", m.n_chunks))
                }
                _ => Ok(()),
            },
        }
    }
}
