//! Generation: a prompt goes in by the chunks that the artifact was compiled for, then tokens come one by one.
//!
//! The model's states carry everything from token to token. A chunk of T tokens may only start at a position that T
//! divides, so that it ends at every border of the memory's chunks.
use crate::model::{Input, Model, ModelError, Output, ProgramId};
use crate::trace::{Ports, Trace};
use lolm_ir::DType;

mod choice;
mod sampler;
pub use choice::Choice;
pub use sampler::{Draw, Sampler, Sampling, SamplingError, argmax, log_total, most_probable};

/// Why nothing can be generated, or no more.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error("the prompt is empty: generation needs at least one token")]
    EmptyPrompt,
    #[error("token {index} of the prompt is {token}, but the vocabulary has {vocab} entries")]
    Token { index: usize, token: u32, vocab: usize },
    #[error("the context is full: {position} of max_seq_len = {limit} tokens are in it, and {more} more were to come")]
    ContextFull { position: usize, limit: usize, more: usize },
    #[error("program `{program}` takes tokens of the shape {found:?}, expected [slots, {expected}]")]
    Shape { program: String, found: Vec<usize>, expected: usize },
}

/// A token that was just chosen.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    pub token: u32,
    /// What the model was like at the token before it, which gave the logits.
    pub trace: Trace,
    model: &'a Model,
    logits: Output,
    vocab: usize,
}

impl<'a> Chosen<'a> {
    /// f32[v], from which it was chosen. On a device they are fetched now.
    pub fn logits(&self) -> &'a [f32] {
        self.model.output_part(self.logits, 0..self.vocab)
    }
    /// The logarithm of its probability as the model gives it, before temperature.
    pub fn logprob(&self) -> f32 {
        let logits = self.logits();
        (logits[self.token as usize] as f64 - log_total(logits)) as f32
    }
}

/// Tokens that were generated, each with its trace.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Generated {
    pub tokens: Vec<u32>,
    pub traces: Vec<Trace>,
}

/// A model with one sequence in its states (slot 0 of the artifact's slots).
pub struct Generator<'a> {
    model: &'a mut Model,
    /// Longest first; the last one takes single tokens.
    steps: Vec<Step>,
    vocab: usize,
    max_seq_len: usize,
    position: usize,
    trace: Trace,
    /// Of `steps`, the one that ran last: its logits are those of the last token.
    last: usize,
    /// How the token behind those that go in is chosen, where a step does so.
    draw: Option<Draw>,
}

/// A step program that takes this many tokens.
struct Step {
    tokens: usize,
    program: ProgramId,
    ids: Input,
    pos: Option<Input>,
    logits: Output,
    inside: Ports,
    choice: Option<Choice>,
}

/// A setting for each input that a step program may have beside tokens and position.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// The longest sequence that the model was made for.
    pub max_seq_len: usize,
    /// The gate's value for all features; negative leaves it as learned.
    pub gate_force: f32,
    /// The temperature of the regime.
    pub tau: f32,
}

impl<'a> Generator<'a> {
    /// Looks the programs `prefill_<T>` and `decode` up and starts an empty sequence.
    pub fn new(model: &'a mut Model, settings: Settings) -> Result<Generator<'a>, GenerateError> {
        let size = |name: &str| match name {
            "decode" => Some(1),
            _ => name.strip_prefix("prefill_").and_then(|t| t.parse::<usize>().ok()),
        };
        let sizes = model.plans().iter().filter_map(|p| Some((size(&p.program)?, p.program.clone())));
        let mut sizes: Vec<(usize, String)> = sizes.filter(|(t, name)| *t > 1 || name == "decode").collect();
        sizes.sort_by(|a, b| b.cmp(a));
        if !sizes.iter().any(|(t, _)| *t == 1) {
            model.program("decode")?;
        }
        let steps = sizes.iter().map(|(t, name)| Step::new(model, name, *t)).collect::<Result<Vec<_>, _>>()?;
        for s in &steps {
            set_scalar(model, s.program, "gate.force", settings.gate_force)?;
            set_scalar(model, s.program, "tau", settings.tau)?;
        }
        let last = steps.len() - 1;
        let logits = &model.plan(steps[last].program).outputs.iter().find(|o| o.name == "logits");
        let vocab = logits.and_then(|o| o.shape.last().copied()).unwrap_or(0);
        let max_seq_len = settings.max_seq_len;
        let trace = Trace::default();
        let mut g = Generator { model, steps, vocab, max_seq_len, position: 0, trace, last, draw: None };
        g.restart();
        Ok(g)
    }

    /// Forgets the sequence.
    pub fn restart(&mut self) {
        self.model.reset_states_if(|name| !name.starts_with("adam."));
        self.position = 0;
    }

    /// Tokens in the context.
    pub fn position(&self) -> usize {
        self.position
    }
    pub fn vocab(&self) -> usize {
        self.vocab
    }
    /// The logits of the last token that went in.
    pub fn logits(&self) -> &[f32] {
        self.model.output_part(self.steps[self.last].logits, 0..self.vocab)
    }
    /// What the model was like at the last token that went in.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Takes tokens in, after those that are in already.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<(), GenerateError> {
        if let Some(index) = tokens.iter().position(|t| *t as usize >= self.vocab) {
            return Err(GenerateError::Token { index, token: tokens[index], vocab: self.vocab });
        }
        if tokens.len() > self.max_seq_len - self.position {
            let (position, limit) = (self.position, self.max_seq_len);
            return Err(GenerateError::ContextFull { position, limit, more: tokens.len() });
        }
        let mut rest = tokens;
        while !rest.is_empty() {
            let i = self.step(self.position, rest.len());
            let (now, later) = rest.split_at(self.steps[i].tokens);
            self.take(i, now)?;
            rest = later;
        }
        Ok(())
    }

    /// The programs by which so many tokens would go in now, in order.
    pub fn cut(&self, tokens: usize) -> Vec<ProgramId> {
        let (mut out, mut done) = (vec![], 0);
        while done < tokens {
            let s = &self.steps[self.step(self.position + done, tokens - done)];
            out.push(s.program);
            done += s.tokens;
        }
        out
    }

    /// The longest step that may start here.
    fn step(&self, position: usize, rest: usize) -> usize {
        let fits = |s: &Step| position.is_multiple_of(s.tokens) && rest >= s.tokens;
        // The last step takes one token, so one always fits.
        self.steps.iter().position(fits).unwrap_or(self.steps.len() - 1)
    }

    pub fn program_name(&self, p: ProgramId) -> &str {
        &self.model.plan(p).program
    }

    /// Runs one step program. Nothing is allocated.
    fn take(&mut self, i: usize, tokens: &[u32]) -> Result<(), ModelError> {
        let s = &self.steps[i];
        let ids = self.model.input_mut::<i32>(s.ids);
        ids.fill(0);
        ids.iter_mut().zip(tokens).for_each(|(to, t)| *to = *t as i32);
        if let Some(pos) = s.pos {
            self.model.input_mut::<i32>(pos).fill(self.position as i32);
        }
        if let Some(c) = s.choice {
            c.set(self.model, |_| self.draw);
        }
        self.model.run(s.program);
        self.position += tokens.len();
        self.last = i;
        self.trace = s.inside.at(self.model, tokens.len() - 1);
        Ok(self.model.check()?)
    }

    /// Takes a prompt in and generates up to `count` tokens; `stop` ends early (that token is kept). `each` sees every
    /// token as it comes; false from it ends too.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        count: usize,
        sampling: Sampling,
        stop: &[u32],
        each: &mut dyn FnMut(&Chosen) -> bool,
    ) -> Result<Generated, GenerateError> {
        if prompt.is_empty() && self.position == 0 {
            return Err(GenerateError::EmptyPrompt);
        }
        // The last token that comes out need not go in.
        let needed = prompt.len() + count.saturating_sub(1);
        if needed > self.max_seq_len - self.position {
            let (position, limit) = (self.position, self.max_seq_len);
            return Err(GenerateError::ContextFull { position, limit, more: needed });
        }
        sampling.check()?;
        let mut sampler = Sampler::new(self.vocab);
        self.draw = Some(sampling.draw(0));
        self.extend(prompt)?;
        let mut out = Generated::default();
        for i in 0..count {
            // What went in before was not drawn for.
            let choice = self.steps[self.last].choice.filter(|_| i > 0 || !prompt.is_empty());
            let token = match choice {
                Some(c) => c.token(self.model, 0),
                None => sampler.choose(&sampling, self.logits(), i as u64),
            };
            out.tokens.push(token);
            out.traces.push(self.trace);
            let logits = self.steps[self.last].logits;
            let chosen = Chosen { token, trace: self.trace, model: self.model, logits, vocab: self.vocab };
            if !each(&chosen) || stop.contains(&token) || i + 1 == count {
                break;
            }
            self.draw = Some(sampling.draw(i as u64 + 1));
            self.extend(&[token])?;
        }
        Ok(out)
    }
}

impl Step {
    fn new(m: &Model, name: &str, tokens: usize) -> Result<Step, GenerateError> {
        let p = m.program(name)?;
        let ids = m.input(p, "tokens", DType::I32)?;
        let step = Step {
            tokens,
            program: p,
            ids,
            pos: m.has_input(p, "pos").then(|| m.input(p, "pos", DType::I32)).transpose()?,
            logits: m.output(p, "logits", DType::F32)?,
            inside: Ports::of(m, p, ids)?,
            choice: Choice::of(m, p)?,
        };
        let shape = m.plan(p).inputs.iter().find(|i| i.name == "tokens").map(|i| i.shape.clone()).unwrap_or_default();
        match shape[..] {
            [slots, t] if slots > 0 && t == tokens => Ok(step),
            _ => Err(GenerateError::Shape { program: name.into(), found: shape, expected: tokens }),
        }
    }
}

/// Sets all of an input of floats, if the program has it.
pub fn set_scalar(m: &mut Model, p: ProgramId, name: &str, x: f32) -> Result<(), ModelError> {
    if m.has_input(p, name) {
        let port = m.input(p, name, DType::F32)?;
        m.input_mut::<f32>(port).fill(x);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
