//! The engine over compiled models of every family: many answers at a time, from the cache or not, have the bits that each
//! has alone.
use lolm_ir::artifact::lanes_program;
use lolm_models::{Program, choosing, kept_keys, prefill_sizes, window};
use lolm_passes::pipeline::{Goal, Options as Compile, Source, Target};
use lolm_runtime::Model;
use lolm_runtime::generate::{Generator, Sampler, Sampling, Settings, log_total};
use lolm_runtime::serve::{Engine, Event, Finish, Options, Request, Ticket, Token};
use lolm_tests::compiled::{Bytes, source};
use lolm_tests::golden::{CASES, Case};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SLOTS: usize = 4;

fn case(name: &'static str) -> Case {
    let mut case = Case::load(name);
    // Four memory chunks of six tokens; with a window, once around the ring and a little more.
    case.spec.max_seq_len = window(&case.spec).map_or(36, |w| kept_keys(Some(w), usize::MAX) + 20);
    case
}

fn sources(case: &Case) -> Vec<Source> {
    let spec = &case.spec;
    let one = |name: &str, program| source(spec, name, program, Goal::Forward);
    let mut all = vec![one("decode", Program::Step { slots: 1, tokens: 1 })];
    all.extend([1, 2, SLOTS].map(|n| one(&lanes_program(n), Program::Step { slots: n, tokens: 1 })));
    for tokens in prefill_sizes(spec).into_iter().filter(|t| (2..=6).contains(t)) {
        all.push(one(&format!("prefill_{tokens}"), Program::Step { slots: 1, tokens }));
        all.push(one(&format!("score_{tokens}"), Program::Score { tokens }));
    }
    all
}

/// A request of its own for every number, which sometimes begins as another does.
fn request(case: &Case, who: usize, gate: bool) -> Request {
    let (vocab, room) = (case.spec.vocab_size, case.spec.max_seq_len);
    let start = |i: usize| (i * i * 31 + 7 * i * (who % 3 + 1)) % vocab;
    let own = |i: usize| (i * 5 + 13 * who) % vocab;
    let (shared, rest) = (who * 5 % (room - 9), 1 + who % 4);
    let prompt = (0..shared).map(start).chain((0..rest).map(own)).map(|t| t as u32).collect();
    let temperature = [0.0, 1.0, 0.7][who % 3];
    let forces = gate && who % 4 == 1;
    Request {
        prompt,
        max_tokens: 1 + who * 7 % 5,
        sampling: Sampling { temperature, seed: who as u64, ..Sampling::default() },
        logprobs: Some(2),
        prompt_logprobs: matches!(who % 10, 2 | 5 | 7).then_some(1),
        gate: forces.then_some((who % 3) as f32 / 2.0),
        ..Request::default()
    }
}

/// A token with its log-probability, from the logits of the one before it.
fn token(logits: &[f32], id: u32) -> (u32, Option<u32>) {
    (id, Some(((logits[id as usize] as f64 - log_total(logits)) as f32).to_bits()))
}

type Scored = Vec<(u32, Option<u32>)>;

/// Prompt and answer, one token after the other.
fn alone(case: &Case, model: &mut Model, r: &Request) -> (Scored, Scored) {
    let gate_force = r.gate.unwrap_or(-1.0);
    let settings = Settings { max_seq_len: case.spec.max_seq_len, gate_force, tau: case.tau() as f32 };
    let mut g = Generator::new(model, settings).unwrap();
    let (mut prompt, mut answer) = (vec![(r.prompt[0], None)], vec![]);
    let mut sampler = Sampler::new(case.spec.vocab_size);
    for (i, t) in r.prompt.iter().enumerate() {
        if i > 0 {
            prompt.push(token(g.logits(), *t));
        }
        g.extend(&[*t]).unwrap();
    }
    for i in 0..r.max_tokens {
        let id = sampler.choose(&r.sampling, g.logits(), i as u64);
        answer.push(token(g.logits(), id));
        if i + 1 < r.max_tokens {
            g.extend(&[id]).unwrap();
        }
    }
    (prompt, answer)
}

fn ask(engine: &Engine, r: &Request) -> (Ticket, Receiver<Event>) {
    let (to, from) = channel();
    (engine.submit(r.clone(), Box::new(move |e| to.send(e).is_ok())).unwrap(), from)
}

/// Prompt and answer as they came, and how many tokens came from the cache.
fn answer(events: &Receiver<Event>) -> (Scored, Scored, usize) {
    let scored = |t: &Token| (t.id, t.logprob.map(f32::to_bits));
    let (mut prompt, mut tokens, mut cached) = (vec![], vec![], 0);
    loop {
        match events.recv_timeout(Duration::from_secs(60)).unwrap() {
            Event::Started { cached_tokens } => cached = cached_tokens,
            Event::Prompt(p) => prompt = p.iter().map(scored).collect(),
            Event::Token(t) => tokens.push(scored(&t)),
            Event::Done(why) => {
                assert_eq!(why, Finish::Length);
                return (prompt, tokens, cached);
            }
        }
    }
}

fn options(case: &Case, state_cache_bytes: usize) -> Options {
    let tau = case.tau() as f32;
    Options { tau, state_cache_bytes, ..Options::new(case.spec.max_seq_len) }
}

/// So many requests at a time, and then again; the cache gives parts of them, and all of the second time.
fn serve(case: &Case, bytes: &Bytes, crowd: usize, state_cache_bytes: usize) {
    let mut single = bytes.load(case, 0);
    let engine = Engine::start(bytes.load(case, SLOTS), options(case, state_cache_bytes)).unwrap();
    let requests: Vec<Request> = (0..crowd).map(|who| request(case, who, engine.facts().gate)).collect();
    let expected: Vec<_> = requests.iter().map(|r| alone(case, &mut single, r)).collect();
    assert_eq!(engine.facts().slots, SLOTS);
    for round in 0..2 {
        let asked: Vec<_> = requests.iter().map(|r| ask(&engine, r)).collect();
        for (who, (r, (_ticket, events))) in requests.iter().zip(&asked).enumerate() {
            let (prompt, tokens, cached) = answer(events);
            let (expected_prompt, expected_tokens) = &expected[who];
            let what = format!("{}: request {who}, round {round}, {cached} tokens cached", case.name);
            assert!(tokens == *expected_tokens, "{what}");
            assert!(r.prompt_logprobs.is_none() || prompt == *expected_prompt, "{what}: the prompt");
            let whole = if r.prompt_logprobs.is_some() || state_cache_bytes == 0 { 0 } else { r.prompt.len() };
            assert!(round == 0 || cached == whole, "{what}");
        }
    }
    let s = engine.stats();
    assert_eq!((s.finished.length as usize, s.running, s.waiting), (2 * crowd, 0, 0));
    assert!(s.cache.bytes <= state_cache_bytes && (s.cache.hits as usize >= crowd / 2) == (state_cache_bytes > 0));
}

#[test]
fn answers_of_every_family_have_the_bits_that_each_has_alone() {
    for case in CASES.map(case) {
        let bytes = Bytes::new(&case, &sources(&case), Compile::default());
        serve(&case, &bytes, 12, 64 << 20);
    }
}

#[test]
fn a_crowd_has_the_bits_that_each_has_alone() {
    for (name, state_cache_bytes) in [("lolm_full", 64 << 20), ("jamba", 0)] {
        let case = case(name);
        let bytes = Bytes::new(&case, &sources(&case), Compile::default());
        serve(&case, &bytes, 72, state_cache_bytes);
    }
}

#[test]
fn answers_on_a_gpu_have_the_bits_that_each_has_alone() {
    for case in ["lolm_full", "samba_short_window"].map(case) {
        let bytes = Bytes::new(&case, &sources(&case), Compile { target: Target::Gpu, ..Compile::default() });
        serve(&case, &bytes, 4, 64 << 20);
    }
}

/// Some are chosen by the model, others, whose logits are looked at, by the host; each as the host would have it.
#[test]
fn tokens_that_a_gpu_chooses_are_those_of_the_host() {
    for case in ["lolm_full", "griffin"].map(case) {
        let choosing = |s: Source| Source { graph: choosing(s.graph).unwrap(), ..s };
        let all: Vec<Source> = sources(&case).into_iter().map(choosing).collect();
        let bytes = Bytes::new(&case, &all, Compile { target: Target::Gpu, ..Compile::default() });
        let mut single = bytes.load(&case, 0);
        let engine = Engine::start(bytes.load(&case, SLOTS), options(&case, 64 << 20)).unwrap();
        let request = |who: usize| {
            let r = request(&case, who, engine.facts().gate);
            let (top_k, top_p) = ([0, 5, 0][who / 2 % 3], [1.0, 0.8][who % 2]);
            let sampling = Sampling { top_k, top_p, min_p: 0.01, ..r.sampling };
            let logit_bias = if who == 4 { vec![(3, 1.5)] } else { vec![] };
            Request { max_tokens: 6, sampling, logprobs: (who % 4 == 3).then_some(1), logit_bias, ..r }
        };
        let requests: Vec<Request> = (0..8).map(request).collect();
        for round in 0..2 {
            let asked: Vec<_> = requests.iter().map(|r| ask(&engine, r)).collect();
            for (who, (r, (_ticket, events))) in requests.iter().zip(&asked).enumerate() {
                let tokens: Vec<u32> = answer(events).1.iter().map(|t| t.0).collect();
                if r.logit_bias.is_empty() {
                    let expected: Vec<u32> = alone(&case, &mut single, r).1.iter().map(|t| t.0).collect();
                    assert_eq!(tokens, expected, "{}: request {who}, round {round}", case.name);
                }
            }
        }
        let r = &requests[1];
        let settings =
            Settings { max_seq_len: case.spec.max_seq_len, gate_force: r.gate.unwrap_or(-1.0), tau: case.tau() as f32 };
        let expected: Vec<u32> = alone(&case, &mut single, r).1.iter().map(|t| t.0).collect();
        let mut g = Generator::new(&mut single, settings).unwrap();
        let found = g.generate(&r.prompt, r.max_tokens, r.sampling, &[], &mut |_| true).unwrap();
        assert_eq!(found.tokens, expected, "{}: generated", case.name);
    }
}

#[test]
fn a_model_without_rows_serves_one_after_the_other() {
    let case = case("lolm_full");
    let all = sources(&case);
    let plain: Vec<Source> = all.into_iter().filter(|s| !s.graph.name.starts_with("decode_")).collect();
    let bytes = Bytes::new(&case, &plain, Compile::default());
    let engine = Engine::start(bytes.load(&case, 0), options(&case, 64 << 20)).unwrap();
    assert_eq!(engine.facts().slots, 1);
    let mut single = bytes.load(&case, 0);
    let requests: Vec<Request> = (0..8).map(|who| request(&case, who, true)).collect();
    let asked: Vec<_> = requests.iter().map(|r| ask(&engine, r)).collect();
    for (r, (_ticket, events)) in requests.iter().zip(&asked) {
        assert!(answer(events).1 == alone(&case, &mut single, r).1);
    }
}
