//! A model as the engine's backend: which of its programs take which steps.
use super::backend::{Backend, Facts, Lane, Steps};
use super::request::{Gate, Memory, Trace};
use crate::generate::GenerateError;
use crate::model::{Input, Model, Output, ProgramId};
use lolm_ir::DType;
use std::ops::Range;

/// A model whose states have one row, in which one sequence after the other is read and answered.
pub struct ModelRows {
    model: Model,
    facts: Facts,
    /// Over a prompt, longest first; the last takes one token.
    reads: Vec<Step>,
    scores: Vec<Step>,
    /// What ran last.
    last: Last,
}

/// A step program and its ports.
struct Step {
    tokens: usize,
    program: ProgramId,
    ids: Input,
    pos: Option<Input>,
    gate: Option<Input>,
    logits: Output,
    gates: Option<Output>,
    regime: Option<Output>,
    entry: Option<Output>,
    weight: Option<Output>,
}

#[derive(Clone, Copy)]
enum Last {
    Read(usize),
    Score(usize),
}

impl ModelRows {
    pub fn new(mut model: Model, tau: f32) -> Result<ModelRows, GenerateError> {
        let (mut reads, scores) = (steps(&model, "prefill_")?, steps(&model, "score_")?);
        reads.push(Step::new(&model, "decode", 1)?);
        for s in reads.iter().chain(&scores) {
            if model.has_input(s.program, "tau") {
                let tau_input = model.input(s.program, "tau", DType::F32)?;
                model.input_mut::<f32>(tau_input).fill(tau);
            }
        }
        let last = reads.len() - 1;
        let one = &reads[last];
        let sizes = |steps: &[Step]| steps.iter().map(|s| s.tokens).chain([1]).collect();
        let facts = Facts {
            vocab: model.output_len(one.logits),
            max_len: usize::MAX,
            slots: 1,
            chunks: reads.iter().map(|s| s.tokens).collect(),
            scores: sizes(&scores),
            gate: one.gate.is_some(),
            row_bytes: model.states().bytes(),
        };
        Ok(ModelRows { model, facts, reads, scores, last: Last::Read(last) })
    }

    fn step(&self) -> &Step {
        match self.last {
            Last::Read(i) => &self.reads[i],
            Last::Score(i) => &self.scores[i],
        }
    }

    fn run(&mut self, last: Last, first: Lane, tokens: &[u32]) -> Result<(), String> {
        self.last = last;
        let s = match last {
            Last::Read(i) => &self.reads[i],
            Last::Score(i) => &self.scores[i],
        };
        let m = &mut self.model;
        m.input_mut::<i32>(s.ids).iter_mut().zip(tokens).for_each(|(to, t)| *to = *t as i32);
        if let Some(pos) = s.pos {
            m.input_mut::<i32>(pos).fill(first.position as i32);
        }
        if let Some(gate) = s.gate {
            m.input_mut::<f32>(gate).fill(first.gate);
        }
        m.run(s.program);
        m.check().map_err(|e| e.to_string())
    }
}

/// The programs `<prefix><T>`, longest first.
fn steps(m: &Model, prefix: &str) -> Result<Vec<Step>, GenerateError> {
    let names = m.plans().iter().map(|p| p.program.clone());
    let sized = |name: String| Some((name.strip_prefix(prefix)?.parse::<usize>().ok()?, name));
    let mut sizes: Vec<(usize, String)> = names.filter_map(sized).filter(|s| s.0 > 1).collect();
    sizes.sort_by(|a, b| b.cmp(a));
    sizes.iter().map(|(t, name)| Step::new(m, name, *t)).collect()
}

impl Step {
    fn new(m: &Model, name: &str, tokens: usize) -> Result<Step, GenerateError> {
        let p = m.program(name)?;
        let input = |name: &str, dtype| m.has_input(p, name).then(|| m.input(p, name, dtype)).transpose();
        let output = |name: &str, dtype| m.has_output(p, name).then(|| m.output(p, name, dtype)).transpose();
        Ok(Step {
            tokens,
            program: p,
            ids: m.input(p, "tokens", DType::I32)?,
            pos: input("pos", DType::I32)?,
            gate: input("gate.force", DType::F32)?,
            logits: m.output(p, "logits", DType::F32)?,
            gates: output("gate", DType::F32)?,
            regime: output("regime", DType::I32)?,
            entry: output("memory.entry", DType::I32)?,
            weight: output("memory.weight", DType::F32)?,
        })
    }

    fn trace(&self, m: &Model, at: usize) -> Trace {
        let here: Range<usize> = at..at + 1;
        let gate = self.gates.map(|g| {
            let d = m.output_len(g) / m.input_len(self.ids); // of [b, t, d]
            Gate::of(m.output_part(g, at * d..(at + 1) * d))
        });
        let regime = self.regime.map(|r| m.output_part::<i32>(r, here.clone())[0] as u32);
        let memory = self.entry.zip(self.weight).map(|(e, w)| Memory {
            entry: m.output_part::<i32>(e, here.clone())[0] as u32,
            weight: m.output_part::<f32>(w, here.clone())[0],
        });
        Trace { gate, regime, memory }
    }
}

impl Backend for ModelRows {
    type Snapshot = Vec<Vec<u8>>;

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn decode(&mut self, lanes: &[Lane]) -> Result<(), String> {
        self.run(Last::Read(self.reads.len() - 1), lanes[0], &[lanes[0].token])
    }

    fn read(&mut self, first: Lane, tokens: &[u32], steps: Steps) -> Result<(), String> {
        let of = |all: &[Step]| all.iter().position(|s| s.tokens == tokens.len());
        let last = match steps {
            Steps::Score => of(&self.scores).map(Last::Score),
            Steps::Read => None,
        };
        let last = last.or_else(|| of(&self.reads).map(Last::Read));
        self.run(last.ok_or_else(|| format!("bug: no step takes {} tokens", tokens.len()))?, first, tokens)
    }

    fn logits(&self, at: usize) -> &[f32] {
        let v = self.facts.vocab;
        self.model.output_part(self.step().logits, at * v..(at + 1) * v)
    }
    fn trace(&self, at: usize) -> Trace {
        self.step().trace(&self.model, at)
    }

    // The one row is the one where prompts are read, too.
    fn copy(&mut self, _: usize, _: usize, _: usize) -> Result<(), String> {
        Ok(())
    }
    fn reset(&mut self, _: usize) -> Result<(), String> {
        self.model.reset_states_if(|name| !name.starts_with("adam."));
        Ok(())
    }
    fn save(&mut self, _: usize, _: usize) -> Result<Vec<Vec<u8>>, String> {
        let states = self.model.states();
        Ok((0..states.slots().len()).map(|slot| states.raw(slot).to_vec()).collect())
    }
    fn restore(&mut self, _: usize, snapshot: &Vec<Vec<u8>>) -> Result<(), String> {
        for (slot, bytes) in snapshot.iter().enumerate() {
            self.model.state_bytes_mut(slot).copy_from_slice(bytes);
        }
        Ok(())
    }
    fn snapshot_bytes(&self, _: usize) -> usize {
        self.facts.row_bytes
    }
}

impl Gate {
    /// The figures of a gate over its features.
    pub(super) fn of(gate: &[f32]) -> Gate {
        let n = gate.len().max(1) as f32;
        let mean = gate.iter().sum::<f32>() / n;
        let variance = gate.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
        let mut histogram = [0; 10];
        gate.iter().for_each(|x| histogram[((x * 10.0) as usize).min(9)] += 1);
        Gate { mean, std: variance.sqrt(), histogram }
    }
}
