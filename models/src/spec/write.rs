//! A spec as TOML: what an artifact carries, with every key that was left to its default or set from outside.
use super::{Family, LolmSpec, MemorySpec, RegimeSpec, Spec, SsmKind, SsmSpec, Tokenizer};
use std::fmt::{self, Display, Formatter};

/// One `key = value` line.
pub(super) fn line(f: &mut Formatter<'_>, key: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "{key} = {value}")
}

/// A text in quotes, with what TOML wants escaped.
pub(super) fn text(f: &mut Formatter<'_>, key: &str, value: &str) -> fmt::Result {
    writeln!(f, "{key} = {}", toml::Value::String(value.into()))
}

/// A number that TOML reads as a float.
pub(super) fn real(f: &mut Formatter<'_>, key: &str, value: f64) -> fmt::Result {
    writeln!(f, "{key} = {value:?}")
}

pub(super) fn section(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    writeln!(f, "\n[{name}]")
}

impl Display for Spec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        text(f, "kind", self.family.name())?;
        match &self.tokenizer {
            Tokenizer::Bytes => text(f, "tokenizer", "bytes")?,
            Tokenizer::Gpt2 => text(f, "tokenizer", "gpt2")?,
            Tokenizer::File(path) => text(f, "tokenizer", path)?,
        }
        line(f, "vocab_size", self.vocab_size)?;
        line(f, "max_seq_len", self.max_seq_len)?;
        match &self.family {
            Family::Lolm(s) => s.write(f)?,
            Family::Transformer(s) => s.write(f)?,
            Family::Mamba(s) => s.write(f)?,
            Family::Jamba(s) => s.write(f)?,
            Family::Griffin(s) => s.write(f)?,
            Family::Samba(s) => s.write(f)?,
        }
        self.run(f)
    }
}

fn ssm(f: &mut Formatter<'_>, s: &SsmSpec) -> fmt::Result {
    section(f, "ssm")?;
    match s.kind {
        SsmKind::Native => line(f, "kind", "\"native\"")?,
        SsmKind::Mamba { conv_kernel, dt_rank } => {
            line(f, "kind", "\"mamba\"")?;
            line(f, "conv_kernel", conv_kernel)?;
            line(f, "dt_rank", dt_rank)?;
        }
    }
    line(f, "n_layers", s.n_layers)?;
    line(f, "d_state", s.d_state)?;
    line(f, "expand", s.expand)
}

fn memory(f: &mut Formatter<'_>, m: &MemorySpec) -> fmt::Result {
    section(f, "memory")?;
    line(f, "n_banks", m.n_banks)?;
    line(f, "n_slots", m.n_slots)?;
    line(f, "slot_dim", m.slot_dim)?;
    line(f, "n_chunks", m.n_chunks)
}

fn regime(f: &mut Formatter<'_>, r: &RegimeSpec) -> fmt::Result {
    section(f, "regime")?;
    line(f, "n_codes", r.n_codes)?;
    line(f, "d_regime", r.d_regime)?;
    line(f, "neighbor_interaction", r.neighbor_kernel.is_some())?;
    if let Some(taps) = r.neighbor_kernel {
        line(f, "neighbor_kernel_size", taps)?;
    }
    line(f, "gradient_isolation", r.gradient_isolation)?;
    real(f, "temp_start", r.temp_start)?;
    real(f, "temp_end", r.temp_end)?;
    line(f, "temp_anneal_steps", r.temp_anneal_steps)
}

impl LolmSpec {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "d_model", self.d_model)?;
        line(f, "n_heads", self.n_heads)?;
        line(f, "n_layers", self.n_layers)?;
        line(f, "d_ff", self.d_ff)?;
        real(f, "rope_theta", self.rope_theta)?;
        real(f, "dropout", self.dropout)?;
        self.ssm.as_ref().map_or(Ok(()), |s| ssm(f, s))?;
        self.memory.as_ref().map_or(Ok(()), |s| memory(f, s))?;
        self.regime_and_gate(f)?;
        self.losses(f)
    }

    /// The gate reads its width from the section of the regime layer, which therefore stands there if either is on.
    fn regime_and_gate(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.regime, &self.gate) {
            (Some(r), _) => regime(f, r)?,
            (None, Some(g)) => {
                section(f, "regime")?;
                line(f, "enabled", false)?;
                line(f, "d_regime", g.d_regime)?;
            }
            (None, None) => {}
        }
        if self.spare_branch_norms {
            section(f, "gate")?;
            line(f, "enabled", false)?;
            line(f, "normalize_branches", true)?;
        }
        let Some(g) = &self.gate else { return Ok(()) };
        section(f, "gate")?;
        real(f, "init_bias", g.init_bias)?;
        line(f, "normalize_branches", g.normalize_branches)
    }

    fn losses(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let l = &self.loss;
        section(f, "loss")?;
        let weights = [
            ("lambda_future", l.lambda_future),
            ("lambda_changepoint", l.lambda_changepoint),
            ("lambda_regime", l.lambda_regime),
            ("lambda_balance", l.lambda_balance),
            ("lambda_sticky", l.lambda_sticky),
            ("lambda_competitive", l.lambda_competitive),
            ("lambda_mem", l.lambda_mem),
            ("lambda_manifest", l.lambda_manifest),
            ("cpc_temperature", l.cpc_temperature),
        ];
        weights.into_iter().try_for_each(|(key, x)| real(f, key, x))?;
        line(f, "future_window", l.future_window)?;
        line(f, "cpc_max_positions", l.cpc_max_positions)?;
        line(f, "cpc_proj_dim", l.cpc_proj_dim)
    }
}

impl Spec {
    fn run(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (o, t) = (&self.optimizer, &self.training);
        section(f, "optimizer")?;
        real(f, "lr", o.lr)?;
        line(f, "betas", format_args!("[{:?}, {:?}]", o.betas[0], o.betas[1]))?;
        real(f, "eps", o.eps)?;
        real(f, "weight_decay", o.weight_decay)?;
        real(f, "clip", o.clip)?;
        section(f, "training")?;
        line(f, "batch", t.batch)?;
        line(f, "seq", t.seq)?;
        line(f, "accumulate", t.accumulate)?;
        line(f, "steps", t.steps)?;
        line(f, "warmup", t.warmup)?;
        real(f, "floor", t.floor)?;
        real(f, "loss_limit", t.loss_limit)?;
        line(f, "skip_limit", t.skip_limit)?;
        line(f, "seed", t.seed)
    }
}

/// As the tables of its text.
impl serde::Serialize for Spec {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let tables: toml::Table = toml::from_str(&self.to_string()).map_err(serde::ser::Error::custom)?;
        tables.serialize(to)
    }
}
