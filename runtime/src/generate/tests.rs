//! Generation with a toy model whose answers can be computed by hand.
use super::*;
use crate::testing::{linear, model, steps};

fn settings(max_seq_len: usize) -> Settings {
    Settings { max_seq_len, gate_force: -1.0, tau: 0.5 }
}

fn toy() -> Model {
    Model::load(steps(), 2).unwrap()
}

/// The toy's state after each token.
fn by_hand(tokens: &[u32]) -> Vec<u32> {
    let step = |s: &mut u32, (pos, t): (usize, &u32)| {
        *s = *s * 3 + t + pos as u32;
        Some(*s)
    };
    tokens.iter().enumerate().scan(0, step).collect()
}

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 };

fn greedy(g: &mut Generator, prompt: &[u32], count: usize) -> Result<Generated, String> {
    g.generate(prompt, count, GREEDY, &[], &mut |_| true).map_err(|e| e.to_string())
}

#[test]
fn chunks_and_single_tokens_give_the_same() {
    let prompt = [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 7];
    let mut m = toy();
    let mut g = Generator::new(&mut m, settings(64)).unwrap();
    for split in 0..=prompt.len() {
        g.restart();
        g.extend(&prompt[..split]).unwrap();
        g.extend(&prompt[split..]).unwrap();
        let last = *by_hand(&prompt).last().unwrap();
        assert_eq!((argmax(g.logits()), g.position()), (last % 8, 11), "split at {split}");
        let gate = g.trace().gate.map(|g| g.mean);
        assert_eq!((gate, g.trace().regime), (Some((last % 8) as f32), Some(last % 4)));
    }
}

#[test]
fn greedy_generation_follows_the_model_and_stops() {
    let mut m = toy();
    let mut g = Generator::new(&mut m, settings(64)).unwrap();
    let mut all = vec![3, 1, 4];
    for _ in 0..5 {
        all.push(by_hand(&all).last().unwrap() % 8);
    }
    let out = greedy(&mut g, &[3, 1, 4], 5).unwrap();
    assert_eq!(out.tokens, all[3..]);
    assert_eq!(out.traces[0].gate.map(|g| g.mean), Some((by_hand(&[3, 1, 4])[2] % 8) as f32));
    g.restart();
    let stop = all[4];
    let at = all[3..].iter().position(|t| *t == stop).unwrap();
    let out = g.generate(&[3, 1, 4], 5, GREEDY, &[stop], &mut |_| true).unwrap();
    assert_eq!(out.tokens, all[3..=3 + at]);
    g.restart();
    let out = g.generate(&[3, 1, 4], 5, GREEDY, &[], &mut |_| false).unwrap();
    assert_eq!(out.tokens.len(), 1);
}

#[test]
fn sampling_is_a_function_of_the_seed() {
    let mut m = toy();
    let mut g = Generator::new(&mut m, settings(64)).unwrap();
    let mut draw = |seed| {
        g.restart();
        let how = Sampling { seed, temperature: 2.0, ..Sampling::default() };
        g.generate(&[1], 20, how, &[], &mut |_| true).unwrap().tokens
    };
    assert!(draw(1) == draw(1) && draw(1) != draw(2));
}

#[test]
fn what_cannot_be_generated_is_said() {
    let mut m = toy();
    let mut g = Generator::new(&mut m, settings(6)).unwrap();
    assert_eq!(greedy(&mut g, &[], 1).unwrap_err(), "the prompt is empty: generation needs at least one token");
    let e = greedy(&mut g, &[1, 8], 1).unwrap_err();
    assert_eq!(e, "token 1 of the prompt is 8, but the vocabulary has 8 entries");
    let e = greedy(&mut g, &[1, 2, 3], 5).unwrap_err();
    assert_eq!(e, "the context is full: 0 of max_seq_len = 6 tokens are in it, and 7 more were to come");
    assert_eq!(greedy(&mut g, &[1, 2, 3], 4).unwrap().tokens.len(), 4);
    assert!(g.extend(&[1]).unwrap_err().to_string().starts_with("the context is full: 6 of max_seq_len = 6"));
    let mut other = model(&linear(2, 2, 2), 1);
    let e = Generator::new(&mut other, settings(6)).err().unwrap().to_string();
    assert_eq!(e, "the artifact has no program `decode`; it has linear");
}
