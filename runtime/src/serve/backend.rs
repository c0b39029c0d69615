//! What the engine needs of a model: rows of states, and steps over them.
//!
//! Sequences that answer have the rows from 0 on, without holes. One row more is where prompts are read. Whatever a row
//! holds, and whatever other rows hold, a step gives a sequence the same bits.
use crate::generate::Draw;
use crate::rows::Meter;
use crate::trace::Trace;
use std::ops::Range;

/// What a model is, as far as the engine must know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    pub vocab: usize,
    /// Tokens that a row can hold.
    pub max_len: usize,
    /// Sequences that can answer at the same time: rows 0 to `slots` - 1. Prompts are read in row `slots`.
    pub slots: usize,
    /// That row is none of the others, so prompts can be read while all slots are taken.
    pub spare_row: bool,
    /// Tokens that can be read at once, longest first, down to 1. So many tokens may start at multiples of their number.
    pub chunks: Vec<usize>,
    /// The same for steps that give the logits of all their tokens.
    pub scores: Vec<usize>,
    /// There is a gate that can be forced.
    pub gate: bool,
    /// Bytes of a row.
    pub row_bytes: usize,
}

/// What goes into one row in a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lane {
    pub token: u32,
    /// Tokens that the row holds already.
    pub position: usize,
    /// The gate's value for all features; negative leaves it as learned.
    pub gate: f32,
    /// How the token behind the last one that goes in is chosen, if the model may do it.
    pub draw: Option<Draw>,
}

/// Which logits a step over a prompt gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steps {
    /// Those of the last token.
    Read,
    /// Those of all tokens.
    Score,
}

/// Rows of states and steps over them. An error is final: the engine ends with its sentence.
pub trait Backend: Send {
    /// The states of one row, away from the rows.
    type Snapshot: Send + Sync;

    fn facts(&self) -> &Facts;

    /// Takes one token into each of the rows from 0 on. Later, [`Backend::logits`] and [`Backend::trace`] are by row.
    fn decode(&mut self, lanes: &[Lane]) -> Result<(), String>;

    /// Takes tokens of a prompt into the last row, as many as one of the facts' numbers; `first` is the lane of the first
    /// one. Later, [`Backend::trace`] is by token, and [`Backend::logits`] too if all were asked for, else 0 is the last's.
    /// With all logits there may be fewer tokens than a number; then the row cannot be gone on from.
    fn read(&mut self, first: Lane, tokens: &[u32], steps: Steps) -> Result<(), String>;

    fn logits(&self, at: usize) -> &[f32];
    /// The token that follows, if the lane said how and the model has chosen it: the one that a sampler chooses from the
    /// logits, which then need not be looked at.
    fn token(&self, _at: usize) -> Option<u32> {
        None
    }
    fn trace(&self, at: usize) -> Trace;

    /// Copies a row that holds so many tokens.
    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), String>;
    /// Puts a row where sequences start.
    fn reset(&mut self, row: usize) -> Result<(), String>;
    /// Takes a copy of a row that holds so many tokens. It may share with `base`, a copy of the states after a beginning of
    /// them, what is the same in both; the meter counts what copies can share, once.
    fn save(
        &mut self,
        row: usize,
        tokens: usize,
        base: Option<&Self::Snapshot>,
        meter: &Meter,
    ) -> Result<Self::Snapshot, String>;
    /// Puts a copy into a row.
    fn restore(&mut self, row: usize, snapshot: &Self::Snapshot) -> Result<(), String>;
    /// Bytes of a copy of a row that holds so many tokens, without those that copies can share.
    fn own_bytes(&self, tokens: usize) -> usize;
    /// Bytes of what copies of a row can share, of these tokens.
    fn shared_bytes(&self, tokens: Range<usize>) -> usize;
}
