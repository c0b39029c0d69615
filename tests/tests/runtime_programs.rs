//! Compiled LOLMs train, resume, generate and are evaluated by the runtime: the same bits in any chunks, on any threads,
//! and after any resumption.
use lolm_ir::DType;
use lolm_models::{Noise, Program, build, prefill_sizes};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{self, Goal, Source, Weights, compile_with};
use lolm_runtime::cpu::gemm::Isa;
use lolm_runtime::eval::{Options, evaluate};
use lolm_runtime::generate::{Generator, Sampling, Settings};
use lolm_runtime::train::*;
use lolm_runtime::{Artifact, Model, Tensor, weights};
use lolm_tests::golden::{CASES, Case, distance};

const PROMPT: usize = 27;

fn source(case: &Case, name: String, program: Program, goal: Goal) -> Source {
    let mut graph = build(&case.spec, &program).unwrap();
    graph.name = name;
    Source { graph, goal }
}

fn artifact(case: &Case, sources: &[Source], weights: Weights) -> Vec<u8> {
    let module = compile_with(sources, pipeline::Options { weights, ..Default::default() }, &|_, _| ())
        .unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let info = lolm_codegen::Info { name: case.name.into(), spec: String::new() };
    lolm_codegen::compile(&module, &info).unwrap_or_else(|e| panic!("{}: {e}", case.name)).bytes
}

fn load(bytes: &[u8], threads: usize, isa: Isa) -> Model {
    let mut model = Model::load_with(Artifact::from_bytes(bytes.to_vec()).unwrap(), threads, isa).unwrap();
    weights::init(&mut model, 11);
    model
}

/// The programs of generation, and the whole sequence at once beside them.
fn serving(case: &Case, weights: Weights) -> Vec<u8> {
    let step = |tokens| {
        let name = if tokens == 1 { "decode".into() } else { format!("prefill_{tokens}") };
        source(case, name, Program::Step { slots: 1, tokens }, Goal::Forward)
    };
    let mut sources: Vec<Source> = prefill_sizes(&case.spec).into_iter().filter(|t| *t <= 16).map(step).collect();
    let whole = Program::Forward { batch: 1, seq: PROMPT, forced_gate: false };
    sources.push(source(case, "whole".into(), whole, Goal::Forward));
    artifact(case, &sources, weights)
}

fn prompt(case: &Case) -> Vec<u32> {
    (0..PROMPT).map(|i| (i * i * 31 + 7) as u32 % case.spec.vocab_size as u32).collect()
}

#[test]
fn a_prompt_in_any_chunks_on_any_threads_gives_the_same_bits() {
    for (case, weights) in CASES.iter().flat_map(|name| [Weights::F32, Weights::Bf16].map(|w| (Case::load(name), w))) {
        let bytes = serving(&case, weights);
        let prompt = prompt(&case);
        let settings = Settings { max_seq_len: case.spec.max_seq_len, gate_force: -1.0, tau: 0.5 };
        let logits = |threads, isa, cuts: &[usize]| {
            let mut model = load(&bytes, threads, isa);
            let mut g = Generator::new(&mut model, settings).unwrap();
            let mut from = 0;
            for to in cuts.iter().copied().chain([PROMPT]) {
                g.extend(&prompt[from..to]).unwrap();
                from = to;
            }
            g.logits().to_vec()
        };
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let first = logits(1, Isa::detect(), &[]);
        let singles: Vec<usize> = (1..PROMPT).collect();
        let best = Isa::detect();
        let mut runs = vec![(1, best, &singles[..]), (2, best, &[16]), (3, best, &[3, 8, 20]), (2, best, &[26])];
        runs.extend(Isa::available().into_iter().map(|isa| (2, isa, &[][..])));
        for (threads, isa, cuts) in runs {
            let same = bits(&logits(threads, isa, cuts)) == bits(&first);
            assert!(same, "{}: {weights:?}, {threads} threads, {isa:?}, cut at {cuts:?}", case.name);
        }
        // With several chunks of memory, a sequence shorter than the longest cuts them elsewhere.
        if case.spec.memory().is_none_or(|m| m.n_chunks == 1) {
            let mut model = load(&bytes, 2, Isa::detect());
            let tokens = Tensor::i32(&[1, PROMPT], prompt.iter().map(|t| *t as i32).collect());
            let mut inputs = vec![("tokens", tokens)];
            if case.spec.regime().is_some() {
                inputs.push(("tau", Tensor::f32(&[], vec![0.5])));
            }
            let out = model.call("whole", &inputs).unwrap();
            let all = out["logits"].as_f32().unwrap();
            let wide = |x: &[f32]| x.iter().map(|x| *x as f64).collect::<Vec<_>>();
            let d = distance(&wide(&first), &wide(&all[all.len() - first.len()..]));
            assert!(d <= 1e-4, "{}: {d} from the whole sequence at once", case.name);
        }
    }
}

#[test]
fn generation_is_a_function_of_prompt_and_seed() {
    let case = Case::load("lolm_full");
    let bytes = serving(&case, Weights::F32);
    let generated = |threads| {
        let mut model = load(&bytes, threads, Isa::detect());
        let settings = Settings { max_seq_len: case.spec.max_seq_len, gate_force: -1.0, tau: 0.5 };
        let mut g = Generator::new(&mut model, settings).unwrap();
        let how = Sampling { seed: 3, top_k: 50, ..Sampling::default() };
        g.generate(&prompt(&case), 20, how, &[], &mut |_| true).unwrap()
    };
    let first = generated(1);
    assert_eq!(first, generated(3));
    assert_eq!(first.tokens.len(), 20);
    let codes = case.spec.regime().map_or(0, |r| r.n_codes as u32);
    let fits = |t: &lolm_runtime::trace::Trace| {
        t.gate.is_some_and(|g| (0.0..=1.0).contains(&g.mean)) && t.regime.is_some_and(|r| (0..codes).contains(&r))
    };
    assert!(first.traces.iter().all(fits), "{:?}", first.traces);
}

#[test]
fn weights_in_bf16_move_the_logits_by_their_rounding() {
    for case in CASES.map(Case::load) {
        let run = |weights| {
            let mut model = load(&serving(&case, weights), 2, Isa::detect());
            let half = model.params().slots().iter().filter(|s| s.dtype == DType::Bf16).count();
            let settings = Settings { max_seq_len: case.spec.max_seq_len, gate_force: -1.0, tau: 0.5 };
            let mut g = Generator::new(&mut model, settings).unwrap();
            g.extend(&prompt(&case)).unwrap();
            (half, g.logits().iter().map(|x| *x as f64).collect::<Vec<_>>())
        };
        let ((none, whole), (some, rounded)) = (run(Weights::F32), run(Weights::Bf16));
        let d = distance(&rounded, &whole);
        assert!(none == 0 && some > 0 && d > 1e-6 && d < 2e-2, "{}: {some} tensors, {d}", case.name);
    }
}

fn text(case: &Case, n: u32) -> Tokens {
    Tokens::U32((0..n).map(|i| (i * i % 97 + i % 13) % case.spec.vocab_size as u32).collect())
}

fn trainer(case: &Case, bytes: &[u8], threads: usize) -> Trainer {
    let config = Config {
        seed: 9,
        steps: 8,
        learning_rate: LearningRate { peak: 1e-3, warmup_steps: 2, steps: 8, floor: 0.1 },
        temperature: Temperature { start: 1.0, end: 0.5, steps: 8 },
        vocab: case.spec.vocab_size,
        skip_limit: 100,
    };
    Trainer::new(load(bytes, threads, Isa::detect()), text(case, 500), config).unwrap()
}

#[test]
fn training_resumes_bit_for_bit_on_any_threads() {
    for name in ["lolm_full", "lolm_full_mamba_ssm"] {
        let case = Case::load(name);
        let (batch, seq) = (2, 16);
        let o = &case.spec.optimizer;
        let adamw = AdamW {
            beta1: o.betas[0],
            beta2: o.betas[1],
            eps: 1e-8,
            weight_decay: o.weight_decay,
            clip: Some(o.clip),
            skip_above: 1000.0,
        };
        let program = Program::Train { batch, seq, noise: Noise::Random };
        let bytes = artifact(&case, &[source(&case, "train_2x16".into(), program, Goal::Train(adamw))], Weights::F32);
        let state = |t: &Trainer| {
            let (p, s) = (t.model().params(), t.model().states());
            let params = (0..p.slots().len()).map(|i| p.raw(i).to_vec());
            params.chain((0..s.slots().len()).map(|i| s.raw(i).to_vec())).collect::<Vec<_>>()
        };
        let mut whole = trainer(&case, &bytes, 1);
        let losses: Vec<f32> = (0..8).filter_map(|_| whole.step().value("loss.tok")).collect();
        assert!(losses.iter().all(|l| l.is_finite()), "{name}: {losses:?}");
        assert_eq!(whole.progress().skipped, 0);

        let folder = std::env::temp_dir().join(format!("lolm-programs-{name}-{}", std::process::id()));
        let checkpoints = Checkpoints { folder: folder.clone(), interval: 0, keep_latest_k: 1 };
        let mut first = trainer(&case, &bytes, 3);
        (0..5).for_each(|_| assert!(!first.step().skipped));
        checkpoints.save(&first).unwrap();
        let mut second = trainer(&case, &bytes, 2);
        second.restore(&checkpoints.latest().unwrap().0.unwrap(), Match::Exact).unwrap();
        (0..3).for_each(|_| assert!(!second.step().skipped));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(state(&second) == state(&whole), "{name}: the resumed run differs");
    }
}

#[test]
fn evaluation_counts_every_token_and_describes_the_gate() {
    let case = Case::load("lolm_full");
    let program = Program::Eval { batch: 2, seq: 16 };
    let bytes = artifact(&case, &[source(&case, "eval_2x16".into(), program, Goal::Forward)], Weights::F32);
    let run = |gate_force, threads| {
        let mut model = load(&bytes, threads, Isa::detect());
        let vocab = case.spec.vocab_size;
        let options = Options { gate_force, tau: 0.5, vocab, bytes: Some(150), windows: 0 };
        evaluate(&mut model, &text(&case, 150), &options, &mut |_, _| ()).unwrap()
    };
    let learned = run(-1.0, 1);
    assert_eq!(learned, run(-1.0, 3));
    assert_eq!(learned.tokens, 149);
    // Untrained, every token is about as likely as any other.
    let uniform = (case.spec.vocab_size as f64).ln();
    assert!((learned.loss / uniform - 1.0).abs() < 0.1, "{} is not near {uniform}", learned.loss);
    let gate = learned.gate.unwrap();
    assert_eq!(gate.means.len(), case.spec.lolm().unwrap().d_model);
    assert!(gate.histogram.iter().all(|h| (h.iter().sum::<f64>() - 1.0).abs() < 1e-9));
    let usage = learned.regime_usage.unwrap();
    assert!((usage.iter().sum::<f64>() - 1.0).abs() < 1e-9 && learned.memory_entropy.is_some());
    let forced = run(0.25, 1).gate.unwrap();
    assert!(forced.means.iter().all(|m| (m - 0.25).abs() < 1e-6), "{:?}", &forced.means[..4]);
}
