//! Tokens that come a few at a time give the logits of the whole sequence: across memory borders, for every ablation and
//! both kinds of latent layer, however the prompt is cut, and for slots at different positions.
mod common;
use common::{CASES, Case, Tensors, distance, fresh_states, go};
use lolm_ir::Graph;
use lolm_ir::interp::Feeds;
use lolm_models::{Program, Spec, build, prefill_sizes};
use std::collections::BTreeMap;

const TOLERANCE: f64 = 1e-9;

/// A golden case with a short context. 26 tokens in 4 chunks are 6, 6, 6 and 8: the last takes the rest.
fn short(case: &Case, context: usize) -> Spec {
    Spec { max_seq_len: context, ..case.spec.clone() }
}

fn tokens(case: &Case, row: usize, n: usize) -> Vec<f64> {
    let (shape, data) = &case.io["tokens"];
    data[row * shape[1]..][..n.min(shape[1])].iter().chain(data).copied().take(n).collect()
}

/// What the whole sequence gives under this name, row by row.
fn whole(case: &Case, spec: &Spec, row: usize, force: f64) -> BTreeMap<String, Vec<Vec<f64>>> {
    let seq = spec.max_seq_len;
    let g = build(spec, &Program::Forward { batch: 1, seq, forced_gate: true }).unwrap();
    let mut feeds = case.feeds(&[]);
    feeds.insert("tokens".into(), tokens(case, row, seq));
    feeds.insert("gate.force".into(), vec![force]);
    let by_row = |x: Vec<f64>| x.chunks(x.len() / seq).map(<[f64]>::to_vec).collect();
    go(&g, &feeds).outputs.into_iter().map(|(name, x)| (name, by_row(x))).collect()
}

/// Programs of one model with the states that they share.
struct Server<'a> {
    case: &'a Case,
    programs: BTreeMap<usize, Graph>,
    scores: BTreeMap<usize, Graph>,
    states: Feeds,
    force: f64,
}

impl<'a> Server<'a> {
    fn new(case: &'a Case, spec: &Spec, force: f64) -> Self {
        let program = |tokens| (tokens, build(spec, &Program::Step { slots: 1, tokens }).unwrap());
        let programs: BTreeMap<usize, Graph> = prefill_sizes(spec).into_iter().map(program).collect();
        let score = |tokens| (tokens, build(spec, &Program::Score { tokens }).unwrap());
        let scores = prefill_sizes(spec).into_iter().map(score).collect();
        let states = fresh_states(&programs[&1], &case.weights);
        for g in programs.values() {
            let same = fresh_states(g, &case.weights);
            assert_eq!(states, same, "programs share their states");
        }
        Server { case, programs, scores, states, force }
    }

    /// The outputs of the next tokens.
    fn step(&mut self, tokens: &[f64], pos: usize) -> BTreeMap<String, Vec<f64>> {
        let mut feeds = self.case.feeds(&[]);
        feeds.extend(self.states.clone());
        feeds.insert("tokens".into(), tokens.to_vec());
        feeds.insert("pos".into(), vec![pos as f64]);
        feeds.insert("gate.force".into(), vec![self.force]);
        let results = go(&self.programs[&tokens.len()], &feeds);
        assert_eq!(results.writes.len(), self.states.len(), "every state is written");
        let score = go(&self.scores[&tokens.len()], &feeds);
        assert_eq!(score.writes, results.writes, "scoring goes on as a step does");
        let vocab = results.outputs["logits"].len();
        assert_eq!(score.outputs["logits"][(tokens.len() - 1) * vocab..], results.outputs["logits"]);
        self.states.extend(results.writes);
        results.outputs
    }
}

/// Serves a sequence in the largest programs of at most `limit` tokens and compares what each gives.
fn served_equals_whole(case: &Case, spec: &Spec, limit: usize, force: f64) {
    let want = whole(case, spec, 0, force);
    let line = tokens(case, 0, spec.max_seq_len);
    let mut server = Server::new(case, spec, force);
    let mut pos = 0;
    while pos < line.len() {
        let fits = |n: &usize| *n <= limit && pos.is_multiple_of(*n) && pos + n <= line.len();
        let n = prefill_sizes(spec).into_iter().find(fits).unwrap();
        let out = server.step(&line[pos..pos + n], pos);
        pos += n;
        let error = distance(&out["logits"], &want["logits"][pos - 1]);
        assert!(error < TOLERANCE, "{}: {n} tokens up to {pos}, off by {error:e}", case.name);
        if let Some(gate) = out.get("gate") {
            let rows = want["gate"][pos - n..pos].concat();
            assert!(distance(gate, &rows) < TOLERANCE, "{}: gate up to {pos}", case.name);
        }
        if let (Some(entries), Some(weights)) = (out.get("memory.entry"), out.get("memory.weight")) {
            for (i, attn) in want["mem_attn"][pos - n..pos].iter().enumerate() {
                let error = (attn[entries[i] as usize] - weights[i]).abs();
                assert!(error < TOLERANCE && attn.iter().all(|a| *a <= weights[i] + TOLERANCE), "{}: {pos}", case.name);
            }
        }
        assert_eq!(out.contains_key("memory.entry"), spec.memory().is_some());
        if let Some(codes) = out.get("regime") {
            for (code, probs) in codes.iter().zip(&want["regime_probs"][pos - n..pos]) {
                assert!(probs.iter().all(|p| *p <= probs[*code as usize]), "{}: regime up to {pos}", case.name);
            }
        }
    }
}

#[test]
fn token_by_token() {
    for case in CASES.map(Case::load) {
        served_equals_whole(&case, &short(&case, 26), 1, -1.0);
    }
}

#[test]
fn prompts_in_pieces() {
    for case in CASES.map(Case::load) {
        for (context, limit) in [(26, 2), (32, 8), (16, 4)] {
            served_equals_whole(&case, &short(&case, context), limit, -1.0);
        }
    }
}

#[test]
fn one_chunk_and_many() {
    for name in ["lolm_decoder_memory", "lolm_full"] {
        let case = Case::load(name);
        for n_chunks in [1, 2, 7, 26] {
            let mut spec = short(&case, 26);
            spec.lolm_mut().unwrap().memory.as_mut().unwrap().n_chunks = n_chunks;
            served_equals_whole(&case, &spec, 16, -1.0);
        }
    }
}

#[test]
fn parts_without_history() {
    let case = Case::load("lolm_full");
    let mut spec = short(&case, 16);
    spec.lolm_mut().unwrap().regime.as_mut().unwrap().neighbor_kernel = None;
    served_equals_whole(&case, &spec, 4, -1.0);
    spec.lolm_mut().unwrap().gate = None;
    served_equals_whole(&case, &spec, 4, -1.0);
}

#[test]
fn forced_gate() {
    let case = Case::load("lolm_full_mamba_ssm");
    for force in [0.0, 0.5, 1.0] {
        served_equals_whole(&case, &short(&case, 16), 4, force);
    }
}

/// Sets one slot of the states to what it is before a sequence.
fn restart(g: &Graph, states: &mut Feeds, weights: &Tensors, slot: usize, slots: usize) {
    for (name, fresh) in fresh_states(g, weights) {
        let row = fresh.len() / slots;
        states.get_mut(&name).unwrap()[slot * row..][..row].copy_from_slice(&fresh[slot * row..][..row]);
    }
}

#[test]
fn slots_at_different_positions() {
    const LAG: usize = 5;
    for name in ["lolm_full", "lolm_full_mamba_ssm"] {
        let case = Case::load(name);
        let spec = short(&case, 18);
        let want = [whole(&case, &spec, 0, -1.0), whole(&case, &spec, 1, -1.0)];
        let lines = [tokens(&case, 0, 18), tokens(&case, 1, 18)];
        let g = build(&spec, &Program::Step { slots: 2, tokens: 1 }).unwrap();
        let mut states = fresh_states(&g, &case.weights);
        for now in 0..18 {
            if now == LAG {
                restart(&g, &mut states, &case.weights, 1, 2);
            }
            let pos = [now, now.saturating_sub(LAG)];
            let mut feeds = case.feeds(&[]);
            feeds.extend(states.clone());
            feeds.insert("tokens".into(), vec![lines[0][pos[0]], lines[1][pos[1]]]);
            feeds.insert("pos".into(), pos.map(|p| p as f64).to_vec());
            feeds.insert("gate.force".into(), vec![-1.0; 2]);
            let results = go(&g, &feeds);
            states.extend(results.writes);
            for (slot, logits) in results.outputs["logits"].chunks(256).enumerate().filter(|(s, _)| now >= s * LAG) {
                let error = distance(logits, &want[slot]["logits"][pos[slot]]);
                assert!(error < TOLERANCE, "{name}: slot {slot} at {}, off by {error:e}", pos[slot]);
            }
        }
    }
}
