//! Evaluation with a toy model whose loss at a token is the token.
use super::*;
use crate::testing::{linear, losses, model};

fn options(windows: usize) -> Options {
    Options { gate_force: -1.0, tau: 0.5, vocab: 100, bytes: Some(100), windows }
}

fn evaluated(text: Vec<u32>, windows: usize) -> Evaluation {
    let mut m = Model::load(losses(), 2).unwrap();
    let mut seen = vec![];
    let e = evaluate(&mut m, &Tokens::U32(text), &options(windows), &mut |done, all| seen.push((done, all))).unwrap();
    assert!(seen.last().is_some_and(|(done, all)| done == all));
    e
}

#[test]
fn every_token_but_the_first_is_predicted_once() {
    for len in 5..40u32 {
        let text: Vec<u32> = (0..len).collect();
        let e = evaluated(text, 0);
        let predicted = len - 1;
        let sum = (0..predicted).sum::<u32>() as f64;
        assert_eq!((e.tokens, e.loss), (predicted as u64, sum / predicted as f64), "{len} tokens");
        assert_eq!(e.perplexity, libm::exp(e.loss));
        assert_eq!(e.bits_per_byte, Some(sum / std::f64::consts::LN_2 / 100.0));
    }
}

#[test]
fn statistics_are_of_whole_batches() {
    // Batches start at tokens 0, 8 and 16; the third has one whole window and a rest.
    let e = evaluated((0..23).collect(), 0);
    assert_eq!(e.gate.as_ref().unwrap().mean, 4.0);
    assert_eq!(e.regime_usage, Some(vec![1.0, 0.0, 0.0, 0.0]));
    assert_eq!((e.live_codes(), e.memory_entropy), (Some(1), None));
    // A text of less than a batch has its window repeated.
    assert_eq!(evaluated((2..8).collect(), 0).regime_usage, Some(vec![0.0, 0.0, 1.0, 0.0]));
    let part = evaluated((0..23).collect(), 2);
    assert_eq!((part.tokens, part.bits_per_byte), (8, None));
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let run = |m: &mut Model, text: Vec<u32>| {
        evaluate(m, &Tokens::U32(text), &options(0), &mut |_, _| ()).unwrap_err().to_string()
    };
    let mut m = Model::load(losses(), 1).unwrap();
    assert_eq!(run(&mut m, vec![1; 4]), "4 tokens are too few: one window needs 5");
    assert_eq!(run(&mut m, vec![100; 9]), "token 0 is 100, but the vocabulary has 100 entries");
    let e = run(&mut model(&linear(2, 2, 2), 1), vec![1; 9]);
    assert_eq!(e, "the artifact has no program to evaluate with; it has linear");
}
