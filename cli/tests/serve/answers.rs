//! What is answered: every route, whole and streamed, in both forms.
use crate::server::{CONTEXT, How, Server};
use serde_json::{Value, json};

/// A template that is easily followed.
const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

fn greedy(prompt: &str, more: Value) -> Value {
    let mut body = json!({"prompt": prompt, "temperature": 0, "max_tokens": 12});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn text(answer: &Value) -> String {
    answer["choices"][0]["text"].as_str().unwrap().into()
}

#[test]
fn every_route_answers() {
    let s = Server::new();
    for path in ["/health", "/ready", "/ping"] {
        assert_eq!(s.get(path).ok(), json!({"status": "ok"}));
    }
    assert_eq!(s.get("/version").ok()["version"], env!("CARGO_PKG_VERSION"));
    let models = s.get("/v1/models").ok();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!((&models["data"][1]["id"], &models["data"][1]["max_model_len"]), (&json!("other"), &json!(CONTEXT)));
    assert_eq!(s.get("/v1/models/other").ok()["object"], "model");
    assert_eq!(s.get("/v1/models/a/b").status, 404);
    let page = s.get("/");
    assert!(page.header("content-type").unwrap().starts_with("text/html") && page.body.contains("<!doctype html>"));
    let t = s.post("/tokenize", json!({"prompt": "aé", "return_token_strs": true})).ok();
    assert_eq!(t["tokens"], json!([97, 195, 169]));
    assert_eq!((&t["count"], &t["max_model_len"], &t["token_strs"][0]), (&json!(3), &json!(CONTEXT), &json!("a")));
    assert_eq!(s.post("/tokenize", json!({"prompt": ""})).ok()["count"], 0);
    assert_eq!(s.post("/detokenize", json!({"tokens": [97, 195, 169]})).ok()["prompt"], "aé");
    assert_eq!(s.post("/detokenize", json!({"tokens": [97, 300]})).status, 400);
    assert_eq!(s.get("/tokenizer_info").ok()["vocab_size"], 256);
    assert_eq!(s.get("/nowhere").status, 404);
    let wrong = s.get("/v1/completions");
    assert_eq!((wrong.status, wrong.json()["error"]["code"].as_str()), (405, Some("method_not_allowed")));
    let named = s.complete(json!({"prompt": "a", "model": "gpt-5"}));
    assert_eq!((named.status, named.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    assert_eq!(s.complete(json!({"prompt": "a", "model": "other"})).ok()["model"], "other");
}

#[test]
fn figures_count_what_happened() {
    let s = Server::new();
    s.complete(greedy("abc", json!({}))).ok();
    let text = s.get("/metrics").body;
    for line in [
        "vllm:num_requests_running{model_name=\"tiny\"} 0",
        "vllm:prompt_tokens_total{model_name=\"tiny\"} 3",
        "vllm:generation_tokens_total{model_name=\"tiny\"} 12",
        "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"length\"} 1",
        "vllm:time_to_first_token_seconds_count{model_name=\"tiny\"} 1",
        "vllm:inter_token_latency_seconds_count{model_name=\"tiny\"} 11",
        "lolm:http_requests_total{route=\"/v1/completions\",status=\"200\"} 1",
        "lolm:ready 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let names =
        text.lines().filter(|l| !l.starts_with('#')).all(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok());
    assert!(names, "{text}");
}

#[test]
fn a_stream_says_what_a_whole_answer_says() {
    let s = Server::start(How { template: Some(TEMPLATE), ..How::default() });
    let options = json!({"logprobs": 2, "n": 2, "temperature": 1.0, "seed": 5, "lolm": {"trace": true}});
    let whole = s.complete(greedy("hello", options.clone())).ok();
    let mut streamed = greedy("hello", options);
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let answer = s.complete(streamed);
    assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
    let events = answer.events();
    for i in 0..2 {
        let choice = &whole["choices"][i];
        assert_eq!(answer.streamed(i as u64), choice["text"].as_str().unwrap());
        let mine = events.iter().filter_map(|e| e["choices"].get(0)).filter(|c| c["index"] == i);
        let list = |get: &dyn Fn(&Value) -> Value| -> Vec<Value> {
            mine.clone().flat_map(|c| get(c).as_array().unwrap().clone()).collect()
        };
        for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(Value::from(list(&|c| c["logprobs"][key].clone())), choice["logprobs"][key], "{key}");
        }
        assert_eq!(Value::from(list(&|c| c["lolm"]["tokens"].clone())), choice["lolm"]["tokens"]);
        assert_eq!(mine.clone().next_back().unwrap()["finish_reason"], "length");
    }
    assert_ne!(whole["choices"][0]["text"], whole["choices"][1]["text"]);
    let last = events.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(24)));
    assert_eq!(last["usage"]["prompt_tokens"], 5);
    // The same in a chat.
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 9, "seed": 1,
        "logprobs": true, "top_logprobs": 3});
    let whole = s.chat(chat.clone()).ok();
    assert_eq!(whole["object"], "chat.completion");
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    let same = s.complete(greedy("<user>hi\n<assistant>", json!({"max_tokens": 9}))).ok();
    assert_eq!(message["content"], text(&same));
    let mut streamed = chat;
    streamed["stream"] = true.into();
    let answer = s.chat(streamed);
    assert_eq!(answer.streamed(0), message["content"].as_str().unwrap());
    let events = answer.events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let logs = |c: &Value| c["logprobs"]["content"].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = events.iter().flat_map(|e| logs(&e["choices"][0])).collect();
    assert_eq!(all, logs(&whole["choices"][0]));
    assert_eq!(all.len(), 9);
    assert_eq!(all[0]["top_logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(all[0]["top_logprobs"][0]["logprob"], all[0]["logprob"]);
}

#[test]
fn an_echo_has_the_probabilities_that_generation_had() {
    let s = Server::new();
    let first = s.complete(greedy("The quick", json!({"logprobs": 1}))).ok();
    let tokens: Vec<u64> = {
        let all = s.complete(greedy("The quick", json!({"lolm": {"trace": true}}))).ok();
        all["choices"][0]["lolm"]["tokens"].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap()).collect()
    };
    let ids: Vec<u64> = "The quick".bytes().map(u64::from).chain(tokens).collect();
    // As lm-evaluation-harness asks: token numbers, echo, one token more.
    let body = json!({"prompt": [ids], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true});
    let echo = s.complete(body).ok();
    let (generated, scored) = (&first["choices"][0]["logprobs"], &echo["choices"][0]["logprobs"]);
    let scored_logprobs = scored["token_logprobs"].as_array().unwrap();
    assert_eq!(scored_logprobs.len(), ids.len() + 1);
    assert_eq!(scored_logprobs[0], Value::Null);
    assert_eq!(scored_logprobs[9..21], generated["token_logprobs"].as_array().unwrap()[..]);
    for i in 9..21 {
        let top = scored["top_logprobs"][i].as_object().unwrap();
        let greatest = top.values().map(|x| x.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(greatest, scored_logprobs[i].as_f64().unwrap(), "a greedy token is the most probable one");
    }
    assert!(text(&echo).starts_with("The quick"));
    assert_eq!(scored["text_offset"][9], 9);
}

#[test]
fn stop_texts_end_answers_also_across_tokens() {
    let s = Server::new();
    let all = text(&s.complete(greedy("once", json!({"max_tokens": 40}))).ok());
    let characters: Vec<char> = all.chars().collect();
    let stop: String = characters[5..8].iter().collect();
    let before = &all[..all.find(&stop).unwrap()];
    for stream in [false, true] {
        let body = greedy("once", json!({"max_tokens": 40, "stop": [stop, "never"], "stream": stream}));
        let answer = s.complete(body);
        let (found, reason) = match stream {
            true => (answer.streamed(0), answer.events().last().unwrap()["choices"][0]["finish_reason"].clone()),
            false => (text(&answer.ok()), answer.ok()["choices"][0]["finish_reason"].clone()),
        };
        assert_eq!((found.as_str(), reason), (before, json!("stop")));
    }
    let first = s.complete(greedy("once", json!({"lolm": {"trace": true}}))).ok();
    let token = &first["choices"][0]["lolm"]["tokens"][2]["id"];
    let body = greedy("once", json!({"stop_token_ids": [token], "logprobs": 0}));
    let stopped = s.complete(body).ok();
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        stopped["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len() as u64,
        stopped["usage"]["completion_tokens"].as_u64().unwrap()
    );
    s.until("idle", || s.stats().running == 0);
    assert!(s.get("/metrics").body.contains("finished_reason=\"stop\"} 3"), "{}", s.get("/metrics").body);
}

#[test]
fn prompts_come_in_four_kinds_and_in_batches() {
    let s = Server::new();
    let one = |prompt: Value| s.complete(json!({"prompt": prompt, "temperature": 0, "max_tokens": 4})).ok();
    let alone = text(&one(json!("ab")));
    assert_eq!(text(&one(json!([97, 98]))), alone);
    let both = one(json!(["ab", "xyz"]));
    assert_eq!((text(&both), both["choices"][1]["index"].as_u64()), (alone.clone(), Some(1)));
    assert_eq!(both["usage"]["prompt_tokens"], 5);
    assert_eq!(one(json!([[97, 98], [120]]))["choices"].as_array().unwrap().len(), 2);
    // More than the queue holds, in order.
    let s = Server::start(How { slots: 1, queued: 2, ..How::default() });
    let many: Vec<String> = (0..20).map(|i| format!("p{i}")).collect();
    let whole = s.complete(json!({"prompt": many, "temperature": 0, "max_tokens": 4})).ok();
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 20);
    for (i, c) in choices.iter().enumerate() {
        let alone = s.complete(json!({"prompt": many[i], "temperature": 0, "max_tokens": 4})).ok();
        assert_eq!((c["index"].as_u64(), c["text"].as_str().unwrap()), (Some(i as u64), text(&alone).as_str()));
    }
}

#[test]
fn the_gate_can_be_seen_and_forced() {
    let s = Server::new();
    let gates = |gate: Value| -> Vec<f64> {
        let mut ours = json!({"trace": true});
        if !gate.is_null() {
            ours["gate"] = gate;
        }
        let a = s.complete(greedy("gate", json!({"lolm": ours}))).ok();
        let tokens = a["choices"][0]["lolm"]["tokens"].as_array().unwrap().clone();
        assert!(tokens.iter().all(|t| t["regime"].is_u64() && t["gate"]["histogram"].as_array().unwrap().len() == 10));
        tokens.iter().map(|t| t["gate"]["mean"].as_f64().unwrap()).collect()
    };
    assert!(gates(json!(1)).iter().all(|g| *g == 1.0) && gates(json!(0.25)).iter().all(|g| *g == 0.25));
    assert!(gates(Value::Null).iter().all(|g| *g > 0.0 && *g < 1.0));
}

#[test]
fn a_known_prompt_is_not_read_again() {
    let s = Server::new();
    let body = || greedy(&"a long beginning that two prompts share. ".repeat(4), json!({"logprobs": 1}));
    let cold = s.complete(body()).ok();
    let warm = s.complete(body()).ok();
    assert_eq!(cold["choices"], warm["choices"]);
    assert_eq!(cold["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert!(warm["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{warm}");
    let mut apart = body();
    apart["lolm"] = json!({"cache": false});
    assert_eq!(s.complete(apart).ok()["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn answers_end_no_sooner_than_asked_and_with_what_ended_them() {
    let s = Server::new();
    let all = text(&s.complete(greedy("hello", json!({"ignore_eos": true, "stop_token_ids": []}))).ok());
    let stop: String = all.chars().skip(2).take(2).collect();
    let with = |more: Value| {
        let answer = s.complete(greedy("hello", more)).ok();
        (text(&answer), answer["choices"][0]["finish_reason"].clone())
    };
    let before = all.split(&stop).next().unwrap();
    assert_eq!(with(json!({"stop": stop})), (before.into(), json!("stop")));
    let ended = with(json!({"stop": stop, "include_stop_str_in_output": true}));
    assert_eq!(ended, (format!("{before}{stop}"), json!("stop")));
    let ids = |more: Value| -> Vec<u64> {
        let mut body = greedy("hello", more);
        body["lolm"] = json!({"trace": true});
        let answer = s.complete(body).ok();
        answer["choices"][0]["lolm"]["tokens"].as_array().unwrap().iter().filter_map(|t| t["id"].as_u64()).collect()
    };
    let first = ids(json!({}))[0];
    assert_eq!(with(json!({"stop_token_ids": [first]})), ("".into(), json!("stop")));
    let (shown, end) = with(json!({"stop_token_ids": [first], "include_stop_str_in_output": true}));
    assert_eq!((shown.chars().count(), end), (1, json!("stop")));
    let late = ids(json!({"stop_token_ids": [first], "min_tokens": 5}));
    assert!(late.len() >= 5 && !late[..5].contains(&first), "{late:?}");
    assert_eq!(with(json!({"stop": stop, "min_tokens": 12})), (all, json!("length")));
}

#[test]
fn the_best_of_several_are_given() {
    let s = Server::start(How { template: Some(TEMPLATE), ..How::default() });
    let ask = |more: Value| s.complete(greedy("hello", more)).ok();
    let drawn = json!({"temperature": 1.5, "seed": 3, "logprobs": 0, "n": 6});
    let mut all: Vec<(f64, String)> = ask(drawn)["choices"].as_array().unwrap().iter().map(mean).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let answer = ask(json!({"temperature": 1.5, "seed": 3, "n": 2, "best_of": 6}));
    let texts: Vec<&str> = answer["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts, [&all[0].1, &all[1].1]);
    assert_eq!((&answer["choices"][1]["index"], &answer["choices"][1]["logprobs"]), (&json!(1), &Value::Null));
    assert_eq!(answer["usage"]["completion_tokens"], 72);
}

/// The mean of the tokens' log-probabilities of a choice, and its text.
fn mean(choice: &Value) -> (f64, String) {
    let all: Vec<f64> =
        choice["logprobs"]["token_logprobs"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    (all.iter().sum::<f64>() / all.len() as f64, choice["text"].as_str().unwrap().into())
}

#[test]
fn prompts_are_told_by_numbers() {
    let s = Server::start(How { template: Some(TEMPLATE), ..How::default() });
    let echoed = s.complete(greedy("hey", json!({"echo": true, "logprobs": 0, "prompt_logprobs": 2}))).ok();
    let choice = &echoed["choices"][0];
    let (told, echo) = (choice["prompt_logprobs"].as_array().unwrap(), &choice["logprobs"]["token_logprobs"]);
    assert_eq!((told.len(), &told[0]), (3, &Value::Null));
    for (i, byte) in [(1, b'e'), (2, b'y')] {
        let own = &told[i][byte.to_string()];
        assert_eq!((&own["logprob"], &own["decoded_token"]), (&echo[i], &json!((byte as char).to_string())));
        let ranks: Vec<u64> = told[i].as_object().unwrap().values().map(|t| t["rank"].as_u64().unwrap()).collect();
        assert!((2..=3).contains(&ranks.len()) && ranks.contains(&1) && ranks.contains(&2), "{told:?}");
    }
    // What is echoed has no more of the most probable tokens than was asked for.
    assert_eq!(choice["logprobs"]["top_logprobs"][1].as_object().unwrap().len(), 1);
    let chat =
        s.chat(json!({"messages": [{"role": "user", "content": "hey"}], "prompt_logprobs": 0, "max_tokens": 2})).ok();
    let n = chat["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(chat["prompt_logprobs"].as_array().unwrap().len(), n);
}
