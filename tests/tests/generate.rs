//! Token by token, and in chunks, generation gives the logits of one full pass: across the borders of memory chunks, past
//! the end of a window, and around the ring in which its keys are kept.
use lolm_ir::DType;
use lolm_models::{Program, kept_keys, prefill_sizes, window};
use lolm_passes::pipeline::{Goal, Options, Precision, Source, Target};
use lolm_runtime::generate::{Generator, Settings};
use lolm_runtime::{Model, Tensor};
use lolm_tests::compiled::{emulated, model, source};
use lolm_tests::golden::{CASES, Case, distance};

/// Four memory chunks of six tokens; with a window, three times around the ring and a little more.
fn context(case: &Case) -> usize {
    window(&case.spec).map_or(24, |w| 3 * kept_keys(Some(w), usize::MAX) + 5)
}

fn tokens(case: &Case) -> Vec<u32> {
    (0..case.spec.max_seq_len).map(|i| (i * i * 31 + 7 * i + 3) as u32 % case.spec.vocab_size as u32).collect()
}

/// The logits of every position by one full pass.
fn full_pass(case: &Case, m: &mut Model) -> Vec<f32> {
    let ids: Vec<i32> = tokens(case).iter().map(|t| *t as i32).collect();
    let mut given = vec![("tokens", Tensor::i32(&[1, ids.len()], ids))];
    if case.spec.regime().is_some() {
        given.push(("tau", Tensor::f32(&[], vec![case.tau() as f32])));
    }
    m.call("forward", &given).unwrap()["logits"].as_f32().unwrap().to_vec()
}

fn sources(case: &mut Case) -> Vec<Source> {
    let context = context(case);
    sources_of(case, context)
}

/// The programs for a context of this length.
fn sources_of(case: &mut Case, context: usize) -> Vec<Source> {
    case.spec.max_seq_len = context;
    let (spec, seq) = (&case.spec, case.spec.max_seq_len);
    let mut sources = vec![
        source(spec, "forward", Program::Forward { batch: 1, seq, forced_gate: false }, Goal::Forward),
        source(spec, "decode", Program::Step { slots: 1, tokens: 1 }, Goal::Forward),
    ];
    for t in prefill_sizes(spec).into_iter().filter(|t| *t > 1) {
        sources.push(source(spec, &format!("prefill_{t}"), Program::Step { slots: 1, tokens: t }, Goal::Forward));
    }
    sources
}

fn compiled(case: &mut Case) -> Model {
    let sources = sources(case);
    model(case, &sources, 2)
}

/// The greatest relative error of the logits after each piece of the sequence.
fn worst(case: &Case, m: &mut Model, expected: &[f32], pieces: &[usize]) -> f64 {
    let settings = Settings { max_seq_len: case.spec.max_seq_len, gate_force: -1.0, tau: case.tau() as f32 };
    let mut g = Generator::new(m, settings).unwrap();
    let (ids, width) = (tokens(case), case.spec.vocab_size);
    let wide = |x: &[f32]| x.iter().map(|v| *v as f64).collect::<Vec<f64>>();
    let (mut at, mut worst) = (0, 0.0f64);
    for n in pieces {
        g.extend(&ids[at..at + n]).unwrap();
        at += n;
        let row = &expected[(at - 1) * width..at * width];
        worst = worst.max(distance(&wide(g.logits()), &wide(row)));
    }
    worst
}

#[test]
fn tokens_one_by_one_and_in_chunks_equal_a_full_pass() {
    for mut case in CASES.map(Case::load) {
        let mut m = compiled(&mut case);
        let (expected, n) = (full_pass(&case, &mut m), case.spec.max_seq_len);
        for pieces in [vec![1; n], vec![n / 4; 4], vec![1, 5, 7, n - 13], vec![n]] {
            let d = worst(&case, &mut m, &expected, &pieces);
            assert!(d <= 1e-4, "{} in pieces {pieces:?}: {d}", case.name);
        }
    }
}

#[test]
fn tokens_in_pieces_equal_a_full_pass_on_a_gpu() {
    for mut case in CASES.map(Case::load) {
        let sources = sources(&mut case);
        let mut m = emulated(&case, &sources, Options { target: Target::Gpu, ..Options::default() });
        let (expected, n) = (full_pass(&case, &mut m), case.spec.max_seq_len);
        let pieces = [vec![n / 4, 1, 5, 7, n - n / 4 - 17], vec![1; 4]].concat();
        let d = worst(&case, &mut m, &expected, &pieces);
        assert!(d <= 1e-4, "{} in pieces {pieces:?}: {d}", case.name);
    }
}

/// Many kept keys are attended to in segments: that gives the logits of a full pass, and a token that is decoded has the bits
/// that it has in a prompt, in the first segment and behind it.
#[test]
fn segments_of_keys_equal_a_full_pass_on_a_gpu() {
    let mut case = Case::load("transformer");
    let sources = sources_of(&mut case, 512);
    let mut m = emulated(&case, &sources, Options { target: Target::Gpu, ..Options::default() });
    assert!(m.manifest().kernels.iter().any(|k| k.name.ends_with("_in_2")), "no attention is in segments");
    let expected = full_pass(&case, &mut m);
    let d = worst(&case, &mut m, &expected, &[100, 1, 160, 1, 1]);
    assert!(d <= 1e-4, "{d}");
    let settings = Settings { max_seq_len: case.spec.max_seq_len, gate_force: -1.0, tau: case.tau() as f32 };
    let ids = tokens(&case);
    let mut logits = |pieces: &[usize]| {
        let mut g = Generator::new(&mut m, settings).unwrap();
        let mut at = 0;
        for n in pieces {
            g.extend(&ids[at..at + n]).unwrap();
            at += n;
        }
        g.logits().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    assert_eq!(logits(&[140]), logits(&[139, 1]));
    assert_eq!(logits(&[300]), logits(&[100, 199, 1]));
}

/// In bf16 keys and values are kept as they are multiplied, and a step gives what a full pass gives in bf16.
#[test]
fn in_bf16_keys_are_kept_in_bf16() {
    let mut narrow = 0;
    for mut case in CASES.map(Case::load) {
        let sources = sources(&mut case);
        let options = Options { target: Target::Gpu, precision: Precision::Bf16, ..Options::default() };
        let mut m = emulated(&case, &sources, options);
        let keys = m.states().slots().iter().filter(|s| s.name.starts_with("kv.")).collect::<Vec<_>>();
        if keys.is_empty() {
            continue;
        }
        assert!(keys.iter().all(|s| s.dtype == DType::Bf16), "{}", case.name);
        narrow += keys.len();
        let (expected, n) = (full_pass(&case, &mut m), case.spec.max_seq_len);
        let d = worst(&case, &mut m, &expected, &[n / 4, 1, 5]);
        assert!(d <= 1e-2, "{}: {d}", case.name);
    }
    assert!(narrow > 0);
}

/// Keys and values of a window take as much memory as its ring, however long the context is.
#[test]
fn windows_keep_no_more_than_their_ring() {
    let mut seen = 0;
    for mut case in CASES.map(Case::load) {
        let Some(w) = window(&case.spec) else { continue };
        let m = compiled(&mut case);
        let kept = kept_keys(Some(w), case.spec.max_seq_len);
        assert!(w <= kept && kept < 2 * w && kept < case.spec.max_seq_len, "{}: {kept} keys", case.name);
        for s in m.states().slots().iter().filter(|s| s.name.starts_with("kv.")) {
            assert_eq!(s.shape[1], kept, "{}: {}", case.name, s.name);
            seen += 1;
        }
    }
    assert!(seen > 0, "no case keeps keys of a window");
}
