//! What comes of requests: the tokens that the model gives, whoever else is there.
use super::toy::*;
use crate::generate::{Sampler, Sampling, argmax, log_total};
use crate::serve::{Event, Finish, Options, Penalties, Request};

fn prompt(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 31 + seed * 7 + i / 3) % VOCAB as u32).collect()
}

pub fn request(n: usize, seed: u32, max_tokens: usize) -> Request {
    let sampling = Sampling { seed: seed as u64, ..Sampling::default() };
    Request { prompt: prompt(n, seed), max_tokens, sampling, ..Request::default() }
}

/// What must come of a request without penalties.
pub fn by_hand(r: &Request) -> Vec<u32> {
    let (mut all, mut sampler) = (r.prompt.clone(), Sampler::new(VOCAB));
    for i in 0..r.max_tokens {
        let token = sampler.choose(&r.sampling, &logits(&all, r.gate.unwrap_or(-1.0)), i as u64);
        all.push(token);
        if r.stop_tokens.contains(&token) {
            break;
        }
    }
    all.split_off(r.prompt.len())
}

#[test]
fn many_answers_at_a_time_are_those_of_each_alone() {
    let (engine, control) = engine(7, Options::new(1000));
    let requests: Vec<Request> = (0..100)
        .map(|i| Request {
            gate: [None, Some(0.0), Some(0.5)][i % 3],
            ..request(1 + i * 13 % 70, i as u32, i * 5 % 40)
        })
        .collect();
    let asked: Vec<_> = requests.iter().map(|r| ask(&engine, r.clone())).collect();
    for (r, (_ticket, events)) in requests.iter().zip(&asked) {
        let a = answer(events);
        assert_eq!((a.ids(), a.end), (by_hand(r), Some(Finish::Length)));
    }
    let log = control.log.lock().unwrap();
    assert!(log.contains(&7) && log.contains(&-16));
}

#[test]
fn stop_tokens_end_an_answer_and_are_its_last_token() {
    let (engine, _) = engine(2, Options::new(1000));
    let mut r = request(9, 3, 30);
    let all = by_hand(&r);
    r.stop_tokens = vec![all[7], 49];
    let a = whole(&engine, r.clone());
    assert_eq!((a.ids(), a.end), (by_hand(&r), Some(Finish::Stop)));
    assert!(a.tokens.len() <= 8);
    // Until enough have come, others do in their place; a token beyond the vocabulary never comes.
    let early = whole(&engine, Request { min_tokens: 12, stop_tokens: vec![all[7], 49, 1 << 20], ..r });
    let ids = early.ids();
    assert!(ids.len() > 12 && ids[..12].iter().all(|t| *t != all[7] && *t != 49), "{ids:?}");
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let (engine, _) = engine(2, Options::new(1000));
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let r = Request { sampling: greedy, logprobs: Some(3), prompt_logprobs: Some(1), trace: true, ..request(21, 5, 6) };
    let a = whole(&engine, r.clone());
    let all: Vec<u32> = r.prompt.iter().copied().chain(a.ids()).collect();
    assert_eq!((a.prompt.len(), a.prompt[0].logprob, a.prompt[0].id), (21, None, all[0]));
    for (i, t) in a.prompt.iter().chain(&a.tokens).enumerate().skip(1) {
        let x = logits(&all[..i], -1.0);
        let want = (x[all[i] as usize] as f64 - log_total(&x)) as f32;
        assert_eq!((t.id, t.logprob), (all[i], Some(want)));
        assert_eq!(t.trace, Some(trace(&all[..i], -1.0)));
        let exact = x.iter().map(|x| libm::exp(*x as f64)).sum::<f64>();
        assert!((want as f64 - (x[all[i] as usize] as f64 - libm::log(exact))).abs() < 1e-6);
        let (best, greatest) = t.top[0];
        assert_eq!((best, t.top.len()), (argmax(&x), if i < 21 { 1 } else { 3 }));
        // One that compares them for equality sees that the most probable token was chosen.
        assert_eq!(all[i] == best, t.logprob == Some(greatest));
    }
    assert!(a.tokens.iter().all(|t| t.top[0].0 == t.id));
}

#[test]
fn nothing_more_is_told_than_was_asked_for() {
    let (engine, _) = engine(2, Options::new(1000));
    let a = whole(&engine, request(5, 1, 2));
    assert!(
        a.prompt.is_empty() && a.tokens.iter().all(|t| t.logprob.is_none() && t.top.is_empty() && t.trace.is_none())
    );
    let (_ticket, events) = ask(&engine, request(20, 1, 0));
    let events: Vec<Event> = events.iter().collect();
    assert_eq!(events, [Event::Started { cached_tokens: 0 }, Event::Done(Finish::Length)]);
}

#[test]
fn bias_and_penalties_change_what_is_chosen_and_not_what_is_told() {
    let (engine, _) = engine(2, Options::new(1000));
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let base = Request { sampling: greedy, logprobs: Some(1), ..request(6, 2, 12) };
    let biased = Request { logit_bias: vec![(11, 100.0)], ..base.clone() };
    let a = whole(&engine, biased);
    assert_eq!(a.ids(), [11; 12]);
    assert!(a.tokens[0].top[0].0 != 11 && a.tokens[0].logprob < Some(-0.1));
    // By hand: bias, then repetition, then frequency and presence.
    let penalties = Penalties { presence: 0.7, frequency: 0.4, repetition: 1.5 };
    let r = Request { penalties, logit_bias: vec![(11, 9.0)], ..base };
    let mut all = r.prompt.clone();
    for _ in 0..12 {
        let mut x = logits(&all, -1.0);
        x[11] += 9.0;
        for (t, x) in x.iter_mut().enumerate() {
            let times = all[6..].iter().filter(|a| **a == t as u32).count() as f32;
            if all.contains(&(t as u32)) {
                *x /= if *x > 0.0 { 1.5 } else { 1.0 / 1.5 };
            }
            *x -= if times > 0.0 { 0.4 * times + 0.7 } else { 0.0 };
        }
        all.push(argmax(&x));
    }
    let a = whole(&engine, r);
    assert_eq!(a.ids(), all[6..]);
}
