//! A token with what the model was like inside when it was chosen, in JSON: as a completion tells it, and `--trace`.
use lolm_runtime::trace::Trace;
use serde_json::{Map, Value, json};

/// What stands for minus infinity, which JSON does not have.
pub const LEAST: f32 = -9999.0;

/// A log-probability. What is no number is nowhere in a distribution.
pub fn logprob(x: f32) -> Value {
    json!(if x.is_nan() { LEAST } else { x.max(LEAST) })
}

/// A token, and what was certain of the text after it that was not before.
pub fn token(id: u32, text: &str, logprob_of_it: Option<f32>, inside: Option<&Trace>) -> Value {
    let mut out = Map::new();
    out.insert("id".into(), id.into());
    out.insert("text".into(), text.into());
    if let Some(x) = logprob_of_it {
        out.insert("logprob".into(), logprob(x));
    }
    let Some(Trace { gate, regime, memory }) = inside else { return out.into() };
    if let Some(g) = gate {
        out.insert("gate".into(), json!({"mean": g.mean, "std": g.std, "histogram": g.histogram}));
    }
    if let Some(code) = regime {
        out.insert("regime".into(), (*code).into());
    }
    if let Some(m) = memory {
        out.insert("memory".into(), json!({"entry": m.entry, "weight": m.weight}));
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lolm_runtime::trace::{Gate, Memory};

    #[test]
    fn what_a_model_lacks_is_left_out() {
        assert_eq!(token(7, "a", None, Some(&Trace::default())), json!({"id": 7, "text": "a"}));
        let gate = Gate { mean: 0.5, std: 0.25, histogram: [0, 0, 1, 0, 0, 0, 0, 1, 0, 0] };
        let all = Trace { gate: Some(gate), regime: Some(3), memory: Some(Memory { entry: 2, weight: 0.75 }) };
        assert_eq!(
            token(7, "a", Some(f32::NEG_INFINITY), Some(&all)),
            json!({"id": 7, "text": "a", "logprob": -9999.0, "regime": 3, "memory": {"entry": 2, "weight": 0.75},
                "gate": {"mean": 0.5, "std": 0.25, "histogram": [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]}})
        );
    }
}
