//! The schema of `kind = "lolm"`: which keys there are, what they may be, and how they must fit together.
use super::family::{MAX_LAYERS, MAX_TAPS};
use super::reader::{Result, Section};
use super::{Family, GateSpec, LolmSpec, LossSpec, MemorySpec, RegimeSpec, SsmKind, SsmSpec};

pub const KEYS: &[&str] =
    &["d_model", "n_heads", "n_layers", "d_ff", "rope_theta", "dropout", "ssm", "memory", "regime", "gate", "loss"];
const SSM: &[&str] = &["enabled", "kind", "n_layers", "d_state", "expand", "conv_kernel", "dt_rank"];
const MEMORY: &[&str] = &["enabled", "n_banks", "n_slots", "slot_dim", "n_chunks"];
const REGIME: &[&str] = &[
    "enabled",
    "n_codes",
    "d_regime",
    "neighbor_interaction",
    "neighbor_kernel_size",
    "gradient_isolation",
    "temp_start",
    "temp_end",
    "temp_anneal_steps",
];
const GATE: &[&str] = &["enabled", "init_bias", "normalize_branches"];
const LOSS: &[&str] = &[
    "lambda_future",
    "lambda_changepoint",
    "lambda_regime",
    "lambda_balance",
    "lambda_sticky",
    "lambda_competitive",
    "lambda_mem",
    "lambda_manifest",
    "future_window",
    "cpc_temperature",
    "cpc_max_positions",
    "cpc_proj_dim",
];

/// Banks and chunks are unrolled, so their number is bounded more tightly than a length.
const MAX_BANKS: usize = 64;
const MAX_CHUNKS: usize = 256;
const MAX_STEPS: usize = 1 << 40;

/// Reads the keys of a LOLM.
pub fn read(s: &Section, max_seq_len: usize) -> Result<Family> {
    let d_model = s.length("d_model")?;
    let regime_section = s.section("regime", REGIME)?;
    let ssm = s.section("ssm", SSM)?.map_or(Ok(None), |x| ssm(&x))?;
    let (gate, spare_branch_norms) = match s.section("gate", GATE)? {
        Some(g) if g.flag_or("enabled", true)? => (Some(gate(s, &g, regime_section.as_ref(), ssm.is_some())?), false),
        Some(g) => (None, ssm.is_some() && g.flag_or("normalize_branches", false)?),
        None => (None, false),
    };
    Ok(Family::Lolm(LolmSpec {
        d_model,
        n_heads: heads(s, d_model)?,
        n_layers: s.count("n_layers", 1..=MAX_LAYERS)?,
        d_ff: s.length("d_ff")?,
        rope_theta: s.number_or("rope_theta", 1.0..=1e12, 10000.0)?,
        dropout: s.number_or("dropout", 0.0..=0.99, 0.0)?,
        ssm,
        memory: s.section("memory", MEMORY)?.map_or(Ok(None), |x| memory(&x, max_seq_len))?,
        regime: regime_section.map_or(Ok(None), |x| regime(&x))?,
        gate,
        spare_branch_norms,
        loss: match s.section("loss", LOSS)? {
            Some(x) => loss(&x)?,
            None => return s.refuse("loss", "a section [loss]"),
        },
    }))
}

fn heads(s: &Section, d_model: usize) -> Result<usize> {
    let n = s.length("n_heads")?;
    if !d_model.is_multiple_of(n) {
        return s.refuse("n_heads", format!("a divisor of d_model = {d_model}"));
    }
    if !(d_model / n).is_multiple_of(2) {
        let dim = d_model / n;
        return s.refuse("n_heads", format!("an even head_dim for the pairs of RoPE; d_model / n_heads is {dim}"));
    }
    Ok(n)
}

fn ssm(s: &Section) -> Result<Option<SsmSpec>> {
    if !s.flag_or("enabled", true)? {
        return Ok(None);
    }
    let kind = match s.choice("kind", &[("native", false), ("mamba", true)])? {
        true => SsmKind::Mamba { conv_kernel: s.count("conv_kernel", 1..=MAX_TAPS)?, dt_rank: s.length("dt_rank")? },
        false => {
            if let Some(key) = ["conv_kernel", "dt_rank"].into_iter().find(|k| s.has(k)) {
                return s.refuse(key, "no such key beside kind = \"native\"; it belongs to \"mamba\"");
            }
            SsmKind::Native
        }
    };
    let (n_layers, d_state) = (s.count("n_layers", 1..=MAX_LAYERS)?, s.length("d_state")?);
    Ok(Some(SsmSpec { kind, n_layers, d_state, expand: s.count("expand", 1..=64)? }))
}

fn memory(s: &Section, max_seq_len: usize) -> Result<Option<MemorySpec>> {
    if !s.flag_or("enabled", true)? {
        return Ok(None);
    }
    let n_chunks = s.count("n_chunks", 1..=MAX_CHUNKS)?;
    if n_chunks > max_seq_len {
        return s.refuse("n_chunks", format!("at most max_seq_len = {max_seq_len}"));
    }
    Ok(Some(MemorySpec {
        n_banks: s.count("n_banks", 1..=MAX_BANKS)?,
        n_slots: s.length("n_slots")?,
        slot_dim: s.length("slot_dim")?,
        n_chunks,
    }))
}

fn regime(s: &Section) -> Result<Option<RegimeSpec>> {
    if !s.flag_or("enabled", true)? {
        return Ok(None);
    }
    let taps = |on: bool| if on { s.count("neighbor_kernel_size", 1..=MAX_TAPS).map(Some) } else { Ok(None) };
    Ok(Some(RegimeSpec {
        n_codes: s.length("n_codes")?,
        d_regime: s.length("d_regime")?,
        neighbor_kernel: taps(s.flag("neighbor_interaction")?)?,
        gradient_isolation: s.flag("gradient_isolation")?,
        temp_start: s.number_or("temp_start", 0.01..=1e3, 1.0)?,
        temp_end: s.number_or("temp_end", 0.01..=1e3, 0.5)?,
        temp_anneal_steps: s.count_or("temp_anneal_steps", 1..=MAX_STEPS, 10_000)?,
    }))
}

fn gate(top: &Section, s: &Section, regime: Option<&Section>, has_ssm: bool) -> Result<GateSpec> {
    if !has_ssm {
        return top.refuse("gate", "no gate without [ssm]: the gate mixes the latent path with the surface");
    }
    let Some(regime) = regime else {
        return top.refuse("regime", "a section with d_regime, which gives the width of the gate's first map");
    };
    Ok(GateSpec {
        init_bias: s.number("init_bias", -100.0..=100.0)?,
        normalize_branches: s.flag("normalize_branches")?,
        d_regime: regime.length("d_regime")?,
    })
}

fn loss(s: &Section) -> Result<LossSpec> {
    let weight = |key| s.number(key, 0.0..=1e6);
    Ok(LossSpec {
        lambda_future: weight("lambda_future")?,
        lambda_changepoint: weight("lambda_changepoint")?,
        lambda_regime: weight("lambda_regime")?,
        lambda_balance: weight("lambda_balance")?,
        lambda_sticky: weight("lambda_sticky")?,
        lambda_competitive: weight("lambda_competitive")?,
        lambda_mem: weight("lambda_mem")?,
        lambda_manifest: weight("lambda_manifest")?,
        future_window: s.length("future_window")?,
        cpc_temperature: s.number("cpc_temperature", 1e-4..=1e4)?,
        cpc_max_positions: s.length("cpc_max_positions")?,
        cpc_proj_dim: s.length("cpc_proj_dim")?,
    })
}
