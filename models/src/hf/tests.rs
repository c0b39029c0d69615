//! Configurations read back as what they were written from, and `mamba_ssm`'s become Hugging Face's.
use super::*;
use crate::spec::{LIBRARY, library};

fn read(config: &Value) -> Result<Spec, String> {
    Spec::from_hf("config.json", config, &[], &[]).map_err(|e| e.to_string())
}

/// Writes and reads, and compares what a configuration says: not tokenizer and training.
fn assert_same(spec: &Spec) {
    let config = config(spec, "float32").unwrap();
    let back = read(&config).unwrap_or_else(|e| panic!("{e}: {config:#}"));
    assert_eq!((&back.family, back.vocab_size, back.max_seq_len), (&spec.family, spec.vocab_size, spec.max_seq_len));
}

fn toml(kind: &str, body: &str) -> Spec {
    let run = "[optimizer]\nlr = 1e-3\nbetas = [0.9, 0.95]\nweight_decay = 0.1\nclip = 1.0\n[training]\nbatch = 1\nseq = 8\nsteps = 1\n";
    let head = format!("kind = \"{kind}\"\ntokenizer = \"bytes\"\nvocab_size = 256\nmax_seq_len = 48\n");
    Spec::parse("x.toml", &format!("{head}{body}\n{run}")).unwrap_or_else(|e| panic!("{e}"))
}

const DIMS: &str = "hidden_size = 24\nintermediate_size = 40\nnum_hidden_layers = 5\nnum_attention_heads = 3\n";

#[test]
fn every_built_in_spec_with_a_class_comes_back() {
    let mut classes = 0;
    for (name, _) in LIBRARY {
        let spec = library(name).unwrap().unwrap();
        let own = matches!(spec.family, Family::Lolm(_) | Family::Samba(_));
        assert_eq!(config(&spec, "float32").is_none(), own, "{name}");
        if !own {
            assert_same(&spec);
            classes += 1;
        }
    }
    assert!(classes >= 4, "{classes}");
}

#[test]
fn every_key_comes_back() {
    let scaled = "[rope_scaling]\nrope_type = \"llama3\"\nfactor = 32.0\nlow_freq_factor = 1.0\nhigh_freq_factor = 4.0\noriginal_max_position_embeddings = 8192";
    assert_same(&toml(
        "transformer",
        &format!(
            "{DIMS}num_key_value_heads = 1\nhead_dim = 10\nrope_theta = 500000.0\nrms_norm_eps = 1e-5\nattention_bias = true\nmlp_bias = true\ntie_word_embeddings = true\n{scaled}"
        ),
    ));
    assert_same(&toml("transformer", &format!("{DIMS}sliding_window = 7\n")));
    assert_same(&toml(
        "mamba",
        "hidden_size = 24\nnum_hidden_layers = 3\nstate_size = 5\nconv_kernel = 3\nexpand = 3\ntime_step_rank = 7\nuse_conv_bias = false\nuse_bias = true\nlayer_norm_epsilon = 1e-6\ntie_word_embeddings = false",
    ));
    assert_same(&toml(
        "jamba",
        &format!(
            "{DIMS}num_key_value_heads = 1\nnum_experts = 6\nnum_experts_per_tok = 3\nattn_layer_period = 3\nattn_layer_offset = 1\nexpert_layer_period = 4\nexpert_layer_offset = 0\nmamba_d_state = 9\nmamba_d_conv = 2\nmamba_expand = 1\nmamba_dt_rank = 2\nmamba_conv_bias = false\nmamba_proj_bias = true\nrms_norm_eps = 1e-5\ntie_word_embeddings = true"
        ),
    ));
    assert_same(&toml(
        "griffin",
        &format!(
            "{DIMS}num_key_value_heads = 3\nhead_dim = 98\nattention_window_size = 9\npartial_rotary_factor = 0.0612244898\nrope_theta = 1000.0\nlru_width = 36\nconv1d_width = 3\nblock_types = [\"attention\", \"recurrent\"]\nlogits_soft_cap = 11.5\nrms_norm_eps = 1e-5\nattention_bias = true\ntie_word_embeddings = false"
        ),
    ));
}

#[test]
fn what_has_no_class_has_no_configuration() {
    assert_eq!(
        config(&toml("transformer", &format!("{DIMS}sliding_window = 7\nattention_bias = true")), "float32"),
        None
    );
}

#[test]
fn fractions_give_their_part_again() {
    for whole in (2..600).step_by(2) {
        for part in (2..=whole).step_by(2) {
            assert_eq!((whole as f64 * fraction(part, whole)) as usize, part, "{part} of {whole}");
        }
    }
}

fn theirs() -> Value {
    json!({"d_model": 40, "n_layer": 2, "vocab_size": 250, "ssm_cfg": {}, "rms_norm": true, "residual_in_fp32": true,
        "fused_add_norm": true, "pad_vocab_size_multiple": 8})
}

#[test]
fn configurations_of_mamba_ssm_are_read() {
    let s = read(&theirs()).unwrap();
    let Family::Mamba(m) = &s.family else { panic!("{s:?}") };
    assert_eq!((s.vocab_size, m.hidden_size, m.n_layers, m.tied), (256, 40, 2, true));
    let usual = MambaMixer { expand: 2, d_state: 16, conv_kernel: 4, dt_rank: 3, conv_bias: true, bias: false };
    assert_eq!(m.mixer, usual);
    let mut c = theirs();
    c["ssm_cfg"] = json!({"layer": "Mamba1", "d_state": 8, "d_conv": 3, "expand": 1, "dt_rank": 5, "conv_bias": false,
        "bias": true, "dt_min": 0.001, "use_fast_path": true});
    (c["tie_embeddings"], c["pad_vocab_size_multiple"]) = (json!(false), json!(1));
    let s = read(&c).unwrap();
    let Family::Mamba(m) = &s.family else { panic!("{s:?}") };
    let other = MambaMixer { expand: 1, d_state: 8, conv_kernel: 3, dt_rank: 5, conv_bias: false, bias: true };
    assert_eq!((s.vocab_size, m.tied, m.mixer), (250, false, other));
}

#[test]
fn what_mamba_ssm_does_otherwise_is_refused_by_name() {
    let with = |key: &str, value: Value| {
        let mut c = theirs();
        c[key] = value;
        read(&c).unwrap_err()
    };
    for (e, what) in [
        (with("rms_norm", json!(false)), "`rms_norm`: found false, expected true"),
        (with("ssm_cfg", json!({"layer": "Mamba2"})), "`ssm_cfg.layer`: found \"Mamba2\", expected \"Mamba1\""),
        (with("ssm_cfg", json!({"headdim": 64})), "`ssm_cfg.headdim`: found 64, expected no such key"),
        (with("d_intermediate", json!(128)), "`d_intermediate`: found 128, expected 0"),
        (with("attn_layer_idx", json!([3])), "`attn_layer_idx`: found [3], expected []"),
        (with("attn_cfg", json!({"d": 1})), "`attn_cfg`: found {\"d\":1}, expected {}"),
        (with("lm_dropout", json!(0.5)), "`lm_dropout`: found 0.5, expected no such key"),
        (with("pad_vocab_size_multiple", json!(0)), "`pad_vocab_size_multiple`: found 0, expected"),
        (with("vocab_size", json!(u64::MAX)), "`vocab_size`: found 18446744073709551615, expected"),
        (with("d_model", json!("x")), "`hidden_size`: found \"x\""),
    ] {
        assert!(e.contains(what), "{e}");
    }
}

#[test]
fn rotary_positions_turn_some_features() {
    let config = json!({"model_type": "recurrent_gemma", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "vocab_size": 9, "partial_rotary_factor": 0.1});
    let e = read(&config).unwrap_err();
    assert!(e.contains("`partial_rotary_factor`: found 0.1, expected some of the head_dim = 8 features"), "{e}");
}
