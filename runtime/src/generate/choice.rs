//! Step programs that choose the next token themselves: their settings go in, and tokens come out in place of logits.
use super::Draw;
use crate::cpu::memory::Element;
use crate::model::{Input, Model, ModelError, Output, ProgramId};
use lolm_ir::DType;

/// The ports of a step that chooses.
#[derive(Clone, Copy)]
pub struct Choice {
    temperature: Input,
    top_k: Input,
    top_p: Input,
    min_p: Input,
    uniform: Input,
    token: Output,
}

impl Choice {
    /// None if the program leaves the choice to others.
    pub fn of(m: &Model, p: ProgramId) -> Result<Option<Choice>, ModelError> {
        if !m.has_output(p, "token") {
            return Ok(None);
        }
        let input = |name: &str, dtype| m.input(p, &format!("sample.{name}"), dtype);
        Ok(Some(Choice {
            temperature: input("temperature", DType::F32)?,
            top_k: input("top_k", DType::I32)?,
            top_p: input("top_p", DType::F32)?,
            min_p: input("min_p", DType::F32)?,
            uniform: input("uniform", DType::F32)?,
            token: m.output(p, "token", DType::I32)?,
        }))
    }

    /// Sets how each sequence is drawn for; who is not listed gets the greatest.
    pub fn set(&self, m: &mut Model, draws: impl Fn(usize) -> Option<Draw>) {
        let of = |at: usize| draws(at).unwrap_or(Draw::GREEDY);
        put(m, self.temperature, |at| of(at).temperature);
        put(m, self.top_k, |at| of(at).top_k);
        put(m, self.top_p, |at| of(at).top_p);
        put(m, self.min_p, |at| of(at).min_p);
        put(m, self.uniform, |at| of(at).uniform);
    }

    /// The token of a sequence after a run.
    pub fn token(&self, m: &Model, at: usize) -> u32 {
        m.output_slice::<i32>(self.token)[at] as u32
    }
}

/// Writes an input only if it changes, as what is written is uploaded.
fn put<T: Element + PartialEq>(m: &mut Model, input: Input, of: impl Fn(usize) -> T) {
    let old = m.input_slice::<T>(input);
    if old.iter().enumerate().any(|(at, x)| *x != of(at)) {
        m.input_mut::<T>(input).iter_mut().enumerate().for_each(|(at, x)| *x = of(at));
    }
}
