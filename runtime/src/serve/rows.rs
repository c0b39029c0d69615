//! A model as the engine's backend: which of its programs take which steps.
use super::backend::{Backend, Facts, Lane, Steps};
use crate::generate::{Choice, GenerateError};
use crate::model::{Input, Model, Output, ProgramId};
use crate::rows::{Meter, RowSnapshot};
use crate::trace::{Ports, Trace};
use lolm_ir::DType;
use lolm_ir::graph::RowKind;
use std::ops::Range;

/// A model with rows for sequences that answer side by side. One that was loaded without them has a single row, in which
/// one sequence after the other is read and answered.
pub struct ModelRows {
    model: Model,
    facts: Facts,
    /// Over the rows from 0 on, fewest first.
    lanes: Vec<Step>,
    /// Over a prompt, longest first; the last takes one token.
    reads: Vec<Step>,
    scores: Vec<Step>,
    /// What ran last, and which of its sequences the program has chosen a token for, if it can.
    last: Last,
    chosen: Vec<bool>,
}

/// A step program and its ports.
#[derive(Clone, Copy)]
struct Step {
    /// Tokens of a prompt, or lanes.
    tokens: usize,
    program: ProgramId,
    ids: Input,
    pos: Option<Input>,
    gate: Option<Input>,
    logits: Output,
    inside: Ports,
    choice: Option<Choice>,
}

#[derive(Clone, Copy)]
enum Last {
    Lanes(usize),
    Read(usize),
    Score(usize),
}

impl ModelRows {
    pub fn new(mut model: Model, tau: f32) -> Result<ModelRows, GenerateError> {
        let (mut reads, mut scores) = (steps(&model, "prefill_", 2)?, steps(&model, "score_", 2)?);
        let one = Step::new(&model, "decode", 1)?;
        let mut lanes = steps(&model, "decode_", 1)?;
        lanes.reverse();
        if lanes.is_empty() {
            lanes.push(one);
        }
        reads.push(one);
        scores.push(one);
        for s in lanes.iter().chain(&reads).chain(&scores) {
            if model.has_input(s.program, "tau") {
                let tau_input = model.input(s.program, "tau", DType::F32)?;
                model.input_mut::<f32>(tau_input).fill(tau);
            }
        }
        let sizes = |steps: &[Step]| steps.iter().map(|s| s.tokens).collect();
        let facts = Facts {
            vocab: model.output_len(one.logits),
            max_len: max_len(&model),
            slots: lanes.last().map_or(1, |s| s.tokens),
            spare_row: model.rows() > 0,
            chunks: sizes(&reads),
            scores: sizes(&scores),
            gate: one.gate.is_some(),
            row_bytes: model.row_bytes(),
        };
        let last = Last::Read(reads.len() - 1);
        let chosen = Vec::with_capacity(facts.slots);
        Ok(ModelRows { model, facts, lanes, reads, scores, last, chosen })
    }

    fn step(&self) -> &Step {
        match self.last {
            Last::Lanes(i) => &self.lanes[i],
            Last::Read(i) => &self.reads[i],
            Last::Score(i) => &self.scores[i],
        }
    }

    fn run(&mut self, last: Last) -> Result<(), String> {
        self.last = last;
        let program = self.step().program;
        self.model.run(program);
        self.model.check().map_err(|e| e.to_string())
    }

    /// Has the next step choose tokens, if it can.
    fn choose(&mut self, lanes: &[Lane], choice: Option<Choice>) {
        self.chosen.clear();
        if let Some(c) = choice {
            self.chosen.extend(lanes.iter().map(|l| l.draw.is_some()));
            c.set(&mut self.model, |at| lanes.get(at)?.draw);
        }
    }

    /// The model's row: the one where prompts are read is the last, and the only one if there are no others.
    fn row(&self, row: usize) -> usize {
        if row < self.facts.slots { row.min(self.model.rows()) } else { self.model.rows() }
    }
}

/// Positions that states along kept keys have room for; without such states there is no end.
fn max_len(m: &Model) -> usize {
    let kept = m.manifest().states.iter().filter(|s| s.rows == RowKind::Kept);
    kept.filter_map(|s| s.shape.get(1).copied()).min().unwrap_or(usize::MAX)
}

/// The programs `<prefix><T>` of at least so many tokens, longest first.
fn steps(m: &Model, prefix: &str, least: usize) -> Result<Vec<Step>, GenerateError> {
    let names = m.plans().iter().map(|p| p.program.clone());
    let sized = |name: String| Some((name.strip_prefix(prefix)?.parse::<usize>().ok()?, name));
    let mut sizes: Vec<(usize, String)> = names.filter_map(sized).filter(|s| s.0 >= least).collect();
    sizes.sort_by(|a, b| b.cmp(a));
    sizes.iter().map(|(t, name)| Step::new(m, name, *t)).collect()
}

impl Step {
    fn new(m: &Model, name: &str, tokens: usize) -> Result<Step, GenerateError> {
        let p = m.program(name)?;
        let input = |name: &str, dtype| m.has_input(p, name).then(|| m.input(p, name, dtype)).transpose();
        let ids = m.input(p, "tokens", DType::I32)?;
        Ok(Step {
            tokens,
            program: p,
            ids,
            pos: input("pos", DType::I32)?,
            gate: input("gate.force", DType::F32)?,
            logits: m.output(p, "logits", DType::F32)?,
            inside: Ports::of(m, p, ids)?,
            choice: Choice::of(m, p)?,
        })
    }
}

impl Backend for ModelRows {
    type Snapshot = RowSnapshot;

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn decode(&mut self, lanes: &[Lane]) -> Result<(), String> {
        let i = self.lanes.iter().position(|s| s.tokens >= lanes.len());
        let i = i.ok_or_else(|| format!("bug: no program decodes {} sequences", lanes.len()))?;
        let (s, m) = (self.lanes[i], &mut self.model);
        // Lanes that hold nothing read token 0 at position 0.
        const NOTHING: Lane = Lane { token: 0, position: 0, gate: -1.0, draw: None };
        let of = |at: usize| lanes.get(at).copied().unwrap_or(NOTHING);
        m.input_mut::<i32>(s.ids).iter_mut().enumerate().for_each(|(i, to)| *to = of(i).token as i32);
        if let Some(pos) = s.pos {
            m.input_mut::<i32>(pos).iter_mut().enumerate().for_each(|(i, to)| *to = of(i).position as i32);
        }
        if let Some(gate) = s.gate {
            m.input_mut::<f32>(gate).iter_mut().enumerate().for_each(|(i, to)| *to = of(i).gate);
        }
        self.choose(lanes, s.choice);
        self.run(Last::Lanes(i))
    }

    fn read(&mut self, first: Lane, tokens: &[u32], steps: Steps) -> Result<(), String> {
        let last = match steps {
            Steps::Read => self.reads.iter().position(|s| s.tokens == tokens.len()).map(Last::Read),
            Steps::Score => self.scores.iter().rposition(|s| s.tokens >= tokens.len()).map(Last::Score),
        };
        self.last = last.ok_or_else(|| format!("bug: no program reads {} tokens", tokens.len()))?;
        let (s, m) = (*self.step(), &mut self.model);
        let ids = m.input_mut::<i32>(s.ids);
        ids.fill(0);
        ids.iter_mut().zip(tokens).for_each(|(to, t)| *to = *t as i32);
        if let Some(pos) = s.pos {
            m.input_mut::<i32>(pos).fill(first.position as i32);
        }
        if let Some(gate) = s.gate {
            m.input_mut::<f32>(gate).fill(first.gate);
        }
        self.choose(&[first], s.choice);
        self.run(self.last)
    }

    fn logits(&self, at: usize) -> &[f32] {
        let v = self.facts.vocab;
        self.model.output_part(self.step().logits, at * v..(at + 1) * v)
    }
    fn token(&self, at: usize) -> Option<u32> {
        let choice = self.step().choice.filter(|_| self.chosen.get(at).copied().unwrap_or(false))?;
        Some(choice.token(&self.model, at))
    }
    fn trace(&self, at: usize) -> Trace {
        self.step().inside.at(&self.model, at)
    }

    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), String> {
        let (from, to) = (self.row(from), self.row(to));
        if from == to { Ok(()) } else { self.model.copy_row(from, to, tokens).map_err(|e| e.to_string()) }
    }
    fn reset(&mut self, row: usize) -> Result<(), String> {
        self.model.reset_row(self.row(row)).map_err(|e| e.to_string())
    }
    fn save(
        &mut self,
        row: usize,
        tokens: usize,
        base: Option<&RowSnapshot>,
        meter: &Meter,
    ) -> Result<RowSnapshot, String> {
        self.model.save_row_behind(self.row(row), tokens, base, meter).map_err(|e| e.to_string())
    }
    fn restore(&mut self, row: usize, snapshot: &RowSnapshot) -> Result<(), String> {
        self.model.restore_row(self.row(row), snapshot).map_err(|e| e.to_string())
    }
    fn own_bytes(&self, tokens: usize) -> usize {
        self.model.snapshot_bytes(tokens) - self.model.kept_bytes(&(0..tokens))
    }
    fn shared_bytes(&self, tokens: Range<usize>) -> usize {
        self.model.kept_bytes(&tokens)
    }
}
