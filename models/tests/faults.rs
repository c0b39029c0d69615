//! A wrong spec is refused with the place, the key, what was expected and, for a slip, the near name.
use lolm_models::spec::{LIBRARY, SpecError, SpecFault, library};
use lolm_models::{Program, Spec, build};

fn demo() -> &'static str {
    LIBRARY.iter().find(|(n, _)| *n == "lolm-demo").unwrap().1
}

/// The demo with one line changed; the text of the error.
fn changed(from: &str, to: &str) -> SpecError {
    assert!(demo().contains(from), "{from}");
    Spec::parse("demo.toml", &demo().replacen(from, to, 1)).expect_err(to)
}

/// The line of the demo on which this text stands.
fn line_of(text: &str) -> u32 {
    demo().lines().position(|l| l.contains(text)).unwrap() as u32 + 1
}

#[test]
fn unknown_keys_have_a_near_name() {
    let e = changed("d_model = 128", "d_modle = 128");
    assert_eq!(e.place.line, Some(line_of("d_model")));
    let line = line_of("d_model");
    assert_eq!(e.to_string(), format!("demo.toml:{line}:1: `d_modle`: there is no such key; did you mean `d_model`?"));
    let e = changed("d_state = 16", "d_stat = 16");
    assert_eq!(e.key, "ssm.d_stat");
    assert_eq!(e.place.line, Some(line_of("d_state")));
    assert!(matches!(e.fault, SpecFault::Unknown { near: Some(n), .. } if n == "d_state"));
    let e = changed("[memory]", "[memroy]");
    assert!(e.to_string().contains("did you mean `memory`?"), "{e}");
    let e = changed("d_ff = 512", "d_ff = 512\ncolour = 1");
    assert!(e.to_string().contains("the keys here are kind, tokenizer,"), "{e}");
}

#[test]
fn missing_keys_are_named() {
    let e = changed("vocab_size = 256\n", "");
    assert_eq!((e.key.as_str(), e.place.line), ("vocab_size", Some(1)));
    let e = changed("n_slots = 16\n", "");
    assert_eq!(e.key, "memory.n_slots");
    assert!(e.to_string().contains("expected an integer from 1 to"), "{e}");
    let e = changed("kind = \"lolm\"\n", "");
    assert!(e.to_string().contains("expected \"lolm\""), "{e}");
}

#[test]
fn wrong_types_and_words_are_shown() {
    for (from, to, found, expected) in [
        ("d_model = 128", "d_model = \"128\"", "found \"128\"", "an integer from 1"),
        ("d_model = 128", "d_model = 128.0", "found 128.0", "an integer from 1"),
        ("vocab_size = 256", "vocab_size = 0", "found 0", "an integer from 1"),
        ("n_layers = 3", "n_layers = -3", "found -3", "from 1 to 1024"),
        ("n_layers = 3", "n_layers = 4000", "found 4000", "from 1 to 1024"),
        ("dropout = 0.0", "dropout = 1.5", "found 1.5", "from 0 to 0.99"),
        ("dropout = 0.0", "dropout = nan", "found NaN", "a number from"),
        ("enabled = true", "enabled = 1", "found 1", "true or false"),
        ("kind = \"native\"", "kind = \"nativ\"", "found \"nativ\"", "did you mean \"native\"?"),
        ("tokenizer = \"bytes\"", "tokenizer = \"words\"", "found \"words\"", "\"bytes\" or \"gpt2\""),
        ("betas = [0.9, 0.95]", "betas = [0.9]", "found a list of 1", "two numbers"),
        ("n_banks = 3", "n_banks = 99999999999999999999", "", ""),
        ("d_state = 16", "d_state = 1979-05-27", "found a date", "an integer"),
    ] {
        let e = changed(from, to).to_string();
        assert!(e.contains(found) && e.contains(expected), "{e}");
        assert!(e.starts_with("demo.toml:"), "{e}");
    }
}

#[test]
fn impossible_dimensions_say_why() {
    for (from, to, key, expected) in [
        ("n_heads = 4", "n_heads = 3", "n_heads", "a divisor of d_model = 128"),
        ("n_heads = 4", "n_heads = 128", "n_heads", "an even head_dim"),
        ("n_chunks = 4", "n_chunks = 257", "memory.n_chunks", "from 1 to 256"),
        ("max_seq_len = 256", "max_seq_len = 3", "memory.n_chunks", "at most max_seq_len = 3"),
        ("\nseq = 256", "\nseq = 512", "training.seq", "at most max_seq_len = 256"),
        ("expand = 2", "expand = 2\nconv_kernel = 4", "ssm.conv_kernel", "belongs to \"mamba\""),
        ("kind = \"native\"", "kind = \"mamba\"", "ssm.conv_kernel", "an integer from 1"),
        ("[ssm]\nenabled = true", "[ssm]\nenabled = false", "gate", "no gate without [ssm]"),
    ] {
        let e = changed(from, to);
        assert_eq!(e.key, key, "{e}");
        assert!(e.to_string().contains(expected), "{e}");
        assert!(e.place.line.is_some());
    }
}

#[test]
fn a_gate_needs_the_width_of_the_regime() {
    let off = changed("n_codes = 16\nd_regime = 32\n", "n_codes = 16\n");
    assert_eq!(off.key, "regime.d_regime");
    let text = demo().replacen("[regime]\nenabled = true", "[regime]\nenabled = false", 1);
    let spec = Spec::parse("demo.toml", &text).unwrap();
    assert!(spec.regime().is_none());
    assert_eq!(spec.gate().unwrap().d_regime, 32);
}

#[test]
fn broken_toml_has_a_place() {
    let e = changed("n_heads = 4", "n_heads = = 4");
    assert_eq!(e.place.line, Some(line_of("n_heads")));
    assert!(matches!(e.fault, SpecFault::Syntax(_)), "{e}");
    let e = changed("n_heads = 4", "n_heads = 4\nn_heads = 4");
    assert!(matches!(e.fault, SpecFault::Syntax(_)), "{e}");
}

#[test]
fn absent_files_are_errors() {
    let e = Spec::load(std::path::Path::new("no/such/spec.toml")).expect_err("absent");
    assert!(e.to_string().starts_with("no/such/spec.toml: the file cannot be read"), "{e}");
}

#[test]
fn absent_sections_switch_parts_off() {
    let text = demo().split("[memory]").next().unwrap().to_string() + &demo()[demo().find("[loss]").unwrap()..];
    let spec = Spec::parse("demo.toml", &text).unwrap();
    assert!(spec.memory().is_none() && spec.regime().is_none() && spec.gate().is_none() && spec.ssm().is_some());
}

#[test]
fn impossible_shapes_are_errors() {
    let spec = library("lolm-demo").unwrap().unwrap();
    for (program, expected) in [
        (Program::Eval { batch: 0, seq: 8 }, "the batch is 0, expected 1 or more"),
        (Program::Eval { batch: 1, seq: 257 }, "expected 1 to max_seq_len = 256"),
        (Program::Eval { batch: 1, seq: 3 }, "at least memory.n_chunks = 4"),
        (Program::Step { slots: 1, tokens: 48 }, "one of [64, 32, 16, 8, 4, 2, 1]"),
    ] {
        let e = build(&spec, &program).expect_err(expected).to_string();
        assert!(e.contains(expected), "{e}");
    }
}

#[test]
fn wrong_cases_name_the_key() {
    let mut case = serde_json::json!({
        "kind": "lolm",
        "config": { "d_model": 8 },
        "loss": {},
        "optim": { "lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.1, "clip": 1.0, "steps": 5 },
        "batch": 1,
        "seq": 4,
    });
    let e = Spec::from_case_json("case.json", &case).expect_err("incomplete");
    assert_eq!(e.to_string(), "case.json: `vocab_size`: the key is missing; expected an integer from 1 to 16777216");
    case["config"]["max_seq_length"] = 4.into();
    let e = Spec::from_case_json("case.json", &case).expect_err("misspelt");
    assert!(e.to_string().contains("did you mean `max_seq_len`?"), "{e}");
    case.as_object_mut().unwrap().remove("optim");
    let e = Spec::from_case_json("case.json", &case).expect_err("no optimizer");
    assert_eq!(e.key, "optim");
}
