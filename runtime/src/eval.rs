//! Evaluation of a text: loss, perplexity and bits per byte over windows, and what the gate, the regime and the memory did.
//!
//! Windows follow each other without overlap; each is read from an empty context. The last one may be short: the tokens
//! that are missing do not count. Statistics of gate, regime and memory are of whole batches of whole windows, as the
//! program has summed over its batch already; a text without one whole batch has its windows repeated for them.
use crate::generate::set_scalar;
use crate::model::{Input, Model, ModelError, Output, ProgramId};
use crate::train::{DataError, Tokens};
use lolm_ir::DType;

/// What an evaluation is told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// The gate's value for all features; negative leaves it as learned.
    pub gate_force: f32,
    /// The temperature of the regime.
    pub tau: f32,
    pub vocab: usize,
    /// Bytes of the text, for bits per byte.
    pub bytes: Option<u64>,
    /// At most this many windows; 0 for all.
    pub windows: usize,
}

/// What an evaluation found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Evaluation {
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Mean negative log likelihood of a token, in nats.
    pub loss: f64,
    pub perplexity: f64,
    /// If the number of bytes was given and the whole text evaluated.
    pub bits_per_byte: Option<f64>,
    pub gate: Option<GateStatistics>,
    /// How often each code of the regime was the strongest, as parts of 1.
    pub regime_usage: Option<Vec<f64>>,
    /// Mean entropy of the memory's read attention, as the program gives it.
    pub memory_entropy: Option<f64>,
}

/// The gate over all evaluated tokens.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GateStatistics {
    pub mean: f64,
    /// By feature.
    pub means: Vec<f64>,
    /// By feature and bin over [0, 1], as parts of 1.
    pub histogram: Vec<Vec<f64>>,
}

impl Evaluation {
    /// Codes that were ever the strongest.
    pub fn live_codes(&self) -> Option<usize> {
        self.regime_usage.as_ref().map(|u| u.iter().filter(|x| **x > 0.0).count())
    }
}

/// Why a text cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("the artifact has no program to evaluate with; it has {}", found.join(", "))]
    NoEvalProgram { found: Vec<String> },
    #[error("input `tokens` of `{program}` has the shape {found:?}, expected [batch, tokens]")]
    TokenShape { program: String, found: Vec<usize> },
}

struct Ports {
    program: ProgramId,
    tokens: Input,
    targets: Input,
    loss: Output,
    gate_mean: Option<Output>,
    histogram: Option<Output>,
    usage: Option<Output>,
    entropy: Option<Output>,
    /// Sequences and tokens of a batch.
    shape: (usize, usize),
}

/// Sums over batches.
#[derive(Default)]
struct Sums {
    loss: f64,
    tokens: u64,
    batches: u64,
    gate: Vec<f64>,
    histogram: Vec<f64>,
    usage: Vec<f64>,
    entropy: f64,
}

/// Evaluates a text with the artifact's eval program; `progress` sees windows done and windows in all.
pub fn evaluate(
    model: &mut Model,
    text: &Tokens,
    options: &Options,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, EvalError> {
    let ports = Ports::new(model)?;
    let (batch, window) = ports.shape;
    text.check(options.vocab, window)?;
    set_scalar(model, ports.program, "gate.force", options.gate_force)?;
    set_scalar(model, ports.program, "tau", options.tau)?;
    let predicted = text.len() - 1;
    let whole = predicted / window;
    let all = predicted.div_ceil(window);
    let windows = if options.windows == 0 { all } else { all.min(options.windows) };
    let mut sums = Sums::default();
    for first in (0..windows).step_by(batch) {
        let counted = batch.min(windows - first);
        for row in 0..batch {
            let count = if row < counted { window } else { 0 };
            // Rows beyond the text repeat earlier windows and count for nothing.
            fill(model, &ports, text, row, (first + row) % windows, count);
        }
        model.run(ports.program);
        sums.add_loss(model, &ports);
        if counted == batch && first + batch <= whole || first == 0 {
            sums.add_statistics(model, &ports);
        }
        model.check().map_err(ModelError::from)?;
        progress(first + counted, windows);
    }
    Ok(sums.finish(&ports, options, windows == all))
}

/// Puts window `w` into a row of the batch, with targets for its first `count` tokens that have one.
fn fill(model: &mut Model, ports: &Ports, text: &Tokens, row: usize, w: usize, count: usize) {
    let window = ports.shape.1;
    let start = w * window;
    let here = row * window..(row + 1) * window;
    let present = window.min(text.len() - 1 - start);
    let tokens = &mut model.input_mut::<i32>(ports.tokens)[here.clone()];
    tokens.fill(0);
    text.copy(start, &mut tokens[..present]);
    let targets = &mut model.input_mut::<i32>(ports.targets)[here];
    targets.fill(-1);
    text.copy(start + 1, &mut targets[..present.min(count)]);
}

impl Ports {
    fn new(m: &Model) -> Result<Ports, EvalError> {
        let names = || m.plans().iter().map(|p| p.program.clone());
        let name = names().find(|p| p == "eval" || p.starts_with("eval_"));
        let name = name.ok_or_else(|| EvalError::NoEvalProgram { found: names().collect() })?;
        let p = m.program(&name)?;
        let shape = m.plan(p).inputs.iter().find(|i| i.name == "tokens").map(|i| i.shape.clone()).unwrap_or_default();
        let [batch, window] = shape[..] else { return Err(EvalError::TokenShape { program: name, found: shape }) };
        let optional = |name: &str| m.has_output(p, name).then(|| m.output(p, name, DType::F32)).transpose();
        Ok(Ports {
            program: p,
            tokens: m.input(p, "tokens", DType::I32)?,
            targets: m.input(p, "targets", DType::I32)?,
            loss: m.output(p, "loss", DType::F32)?,
            gate_mean: optional("gate.mean")?,
            histogram: optional("gate.histogram")?,
            usage: optional("regime.usage")?,
            entropy: optional("memory.entropy")?,
            shape: (batch, window),
        })
    }
}

impl Sums {
    fn add_loss(&mut self, m: &mut Model, p: &Ports) {
        let counts = m.input_mut::<i32>(p.targets).iter().filter(|t| **t >= 0).count();
        self.tokens += counts as u64;
        self.loss += m.output_slice::<f32>(p.loss).iter().map(|x| *x as f64).sum::<f64>();
    }

    fn add_statistics(&mut self, m: &Model, p: &Ports) {
        self.batches += 1;
        let parts = [(&mut self.gate, p.gate_mean), (&mut self.histogram, p.histogram), (&mut self.usage, p.usage)];
        for (sums, port) in parts {
            let Some(port) = port else { continue };
            let found = m.output_slice::<f32>(port);
            sums.resize(found.len(), 0.0);
            sums.iter_mut().zip(found).for_each(|(sum, x)| *sum += *x as f64);
        }
        self.entropy += p.entropy.map_or(0.0, |e| m.output_slice::<f32>(e)[0] as f64);
    }

    fn finish(self, p: &Ports, o: &Options, whole_text: bool) -> Evaluation {
        let loss = self.loss / self.tokens as f64;
        let batches = self.batches as f64;
        let bits = |bytes: u64| self.loss / std::f64::consts::LN_2 / bytes as f64;
        let parts = |counts: &[f64]| {
            let total = counts.iter().sum::<f64>().max(1.0);
            counts.iter().map(|c| c / total).collect::<Vec<f64>>()
        };
        let means: Vec<f64> = self.gate.iter().map(|x| x / batches).collect();
        let bins = self.histogram.len() / means.len().max(1);
        let gate = p.gate_mean.map(|_| GateStatistics {
            mean: means.iter().sum::<f64>() / means.len() as f64,
            histogram: self.histogram.chunks_exact(bins.max(1)).map(parts).collect(),
            means,
        });
        Evaluation {
            tokens: self.tokens,
            loss,
            perplexity: libm::exp(loss),
            bits_per_byte: o.bytes.filter(|b| whole_text && *b > 0).map(bits),
            gate,
            regime_usage: p.usage.map(|_| parts(&self.usage)),
            memory_entropy: p.entropy.map(|_| self.entropy / batches),
        }
    }
}

#[cfg(test)]
mod tests;
