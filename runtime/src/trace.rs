//! What a model was like inside at one token: its gate, its regime and where its memory looked, as far as it has them.
use crate::model::{Input, Model, ModelError, Output, ProgramId};
use lolm_ir::DType;

/// Gate, regime and memory focus at one token; what the model lacks is none.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Trace {
    pub gate: Option<Gate>,
    /// The code of the regime.
    pub regime: Option<u32>,
    pub memory: Option<Memory>,
}

/// The gate over its features, from 0 (latent) to 1 (surface).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gate {
    pub mean: f32,
    /// The standard deviation over the features.
    pub std: f32,
    /// Features in each tenth of [0, 1]; 1 belongs to the last.
    pub histogram: [u32; 10],
}

/// The memory entry that gets the most attention, and how much.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Memory {
    pub entry: u32,
    pub weight: f32,
}

impl Gate {
    /// The figures of a gate over its features.
    pub fn of(gate: &[f32]) -> Gate {
        let n = gate.len().max(1) as f32;
        let mean = gate.iter().sum::<f32>() / n;
        let variance = gate.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
        let mut histogram = [0; 10];
        gate.iter().for_each(|x| histogram[((x * 10.0) as usize).min(9)] += 1);
        Gate { mean, std: variance.sqrt(), histogram }
    }
}

/// Where a step program says what it was like inside.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    ids: Input,
    gate: Option<Output>,
    regime: Option<Output>,
    entry: Option<Output>,
    weight: Option<Output>,
}

impl Ports {
    /// Those of a program, which has `ids` for its tokens.
    pub fn of(m: &Model, p: ProgramId, ids: Input) -> Result<Ports, ModelError> {
        let output = |name: &str, dtype| m.has_output(p, name).then(|| m.output(p, name, dtype)).transpose();
        Ok(Ports {
            ids,
            gate: output("gate", DType::F32)?,
            regime: output("regime", DType::I32)?,
            entry: output("memory.entry", DType::I32)?,
            weight: output("memory.weight", DType::F32)?,
        })
    }

    /// The trace at one of the tokens that went in last.
    pub fn at(&self, m: &Model, at: usize) -> Trace {
        let gate = self.gate.map(|g| {
            let d = m.output_len(g) / m.input_len(self.ids); // of [b, t, d]
            Gate::of(m.output_part(g, at * d..(at + 1) * d))
        });
        let number = |of: Output| m.output_part::<i32>(of, at..at + 1)[0] as u32;
        let memory = self.entry.zip(self.weight).map(|(entry, weight)| Memory {
            entry: number(entry),
            weight: m.output_part::<f32>(weight, at..at + 1)[0],
        });
        Trace { gate, regime: self.regime.map(number), memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_told_by_mean_deviation_and_tenths() {
        let g = Gate::of(&[0.0, 0.25, 0.75, 1.0]);
        assert_eq!((g.mean, g.std), (0.5, (0.3125f32 / 2.0).sqrt()));
        assert_eq!(g.histogram, [1, 0, 1, 0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(Gate::of(&[]), Gate::default());
    }
}
