//! Requests that cannot be meant: each gets a status of the 400s, and an error that says what is wrong.
use crate::client::{Client, post};
use crate::server::{CONTEXT, Server};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// How often a property is tried: `LOLM_TEST_MALFORMED`, or as many.
fn times(usual: u32) -> u32 {
    std::env::var("LOLM_TEST_MALFORMED").ok().map_or(usual, |n| n.parse().unwrap())
}

#[test]
fn wrong_fields_are_named() {
    let s = Server::new();
    let long = "x".repeat(CONTEXT + 1);
    let cases = [
        (json!({}), "prompt", "`prompt` is missing"),
        (json!({"prompt": 7}), "prompt", "`prompt` is 7, expected a text"),
        (json!({"prompt": []}), "prompt", "`prompt` is []"),
        (json!({"prompt": ""}), "prompt", "`prompt` is empty"),
        (json!({"prompt": ["a", ""]}), "prompt[1]", "`prompt[1]` is empty"),
        (json!({"prompt": ["a", 3]}), "prompt", "`prompt` is 3"),
        (json!({"prompt": [1, "a"]}), "prompt", "expected a text"),
        (json!({"prompt": [1, 300]}), "prompt", "token 300 is not of a vocabulary of 256"),
        (json!({"prompt": long}), "prompt", "but the context holds 512"),
        (json!({"prompt": "a", "max_tokens": 513}), "max_tokens", "the context holds 512"),
        (json!({"prompt": "a", "max_tokens": -1}), "max_tokens", "`max_tokens` is -1, expected a whole number from 0"),
        (json!({"prompt": "a", "max_tokens": "9"}), "max_tokens", "`max_tokens` is \"9\""),
        (json!({"prompt": "a", "temperature": "hot"}), "temperature", "`temperature` is \"hot\", expected a number"),
        (json!({"prompt": "a", "temperature": -0.5}), "temperature", "from 0 to 100"),
        (json!({"prompt": "a", "top_p": 0}), "top_p", "top_p is 0, expected more than 0"),
        (json!({"prompt": "a", "top_p": 1.5}), "top_p", "from 0 to 1"),
        (json!({"prompt": "a", "min_p": 2}), "min_p", "from 0 to 1"),
        (json!({"prompt": "a", "n": 0}), "n", "from 1 to 128"),
        (json!({"prompt": "a", "n": 2, "best_of": 1}), "best_of", "`best_of` is 1, expected a whole number from 2"),
        (json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of", "needs `stream` to be false"),
        (json!({"prompt": "a", "prompt_logprobs": 1, "stream": true}), "prompt_logprobs", "needs `stream` to be false"),
        (json!({"prompt": "a", "prompt_logprobs": -1}), "prompt_logprobs", "from 0 to 20"),
        (json!({"prompt": "a", "max_tokens": 4, "min_tokens": 5}), "min_tokens", "from 0 to 4"),
        (json!({"prompt": "a", "logprobs": 21}), "logprobs", "from 0 to 20"),
        (json!({"prompt": "a", "logprobs": true}), "logprobs", "`logprobs` is true, expected a whole number"),
        (json!({"prompt": "a", "stop": [1]}), "stop", "a text or a list of texts"),
        (json!({"prompt": "a", "stop": vec!["s"; 65]}), "stop", "may hold 64"),
        (json!({"prompt": "a", "stream": 1}), "stream", "true or false"),
        (json!({"prompt": "a", "stream_options": {}}), "stream_options", "needs `stream`"),
        (json!({"prompt": "a", "stream": true, "stream_options": {"x": 1}}), "stream_options.x", "is not a field"),
        (json!({"prompt": "a", "seed": 1.5}), "seed", "a whole number"),
        (json!({"prompt": "a", "logit_bias": {"a": 1}}), "logit_bias", "token numbers"),
        (json!({"prompt": "a", "logit_bias": {"1": 101}}), "logit_bias", "from -100 to 100"),
        (json!({"prompt": "a", "logit_bias": {"256": 1}}), "logit_bias", "256"),
        (json!({"prompt": "a", "presence_penalty": 3}), "presence_penalty", "from -2 to 2"),
        (json!({"prompt": "a", "suffix": "z"}), "suffix", "not supported"),
        (json!({"prompt": "a", "response_format": {"type": "json_object"}}), "response_format", "not supported"),
        (json!({"prompt": "a", "lolm": {"gate": 2}}), "lolm.gate", "from 0 to 1"),
        (json!({"prompt": "a", "lolm": {"grate": 1}}), "lolm.grate", "is not a field"),
        (json!({"prompt": "a", "lolm": 1}), "lolm", "an object"),
        (json!({"prompt": "a", "temprature": 1}), "temprature", "`temprature` is not a field"),
        (json!({"prompt": "a", "model": 3}), "model", "a text"),
        (json!({"prompt": "a", "messages": []}), "messages", "is not a field"),
    ];
    for (body, param, says) in cases {
        let answer = s.complete(body.clone());
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["param"].as_str()), (400, Some(param)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let chat = s.chat(json!({"messages": [{"role": "user", "content": "hi"}]}));
    assert!(chat.status == 400 && chat.body.contains("no chat template"), "{}", chat.body);
    assert_eq!(s.stats().accepted, 0);
}

#[test]
fn what_clients_send_for_nothing_passes() {
    let s = Server::new();
    let body = json!({"prompt": "a", "max_tokens": 2, "model": null, "best_of": null, "suffix": null, "user": "me", "n": 1,
        "stop": null, "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": null, "seed": 1,
        "stream": false, "stream_options": null, "top_k": -1, "repetition_penalty": 1.0, "echo": null, "min_tokens": 0,
        "response_format": {"type": "text"}, "skip_special_tokens": true, "metadata": null, "store": false});
    s.complete(body).ok();
}

/// JSON of any shape, with names that mean something among others.
fn any_json() -> impl Strategy<Value = Value> {
    let names = "prompt|messages|max_tokens|temperature|stream|stop|lolm|logprobs|n|seed|model|echo|role|[a-z]{0,4}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(names, inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

/// A body that has at least one wrong field, whatever else it has.
fn wrong_body() -> impl Strategy<Value = Vec<u8>> {
    let without_prompt = any_json().prop_map(|mut v| {
        if let Some(map) = v.as_object_mut() {
            map.insert("no such field".into(), 1.into());
        }
        v.to_string().into_bytes()
    });
    let cut = ("\\PC{1,20}", 1..30usize).prop_map(|(text, at)| {
        let whole = json!({"prompt": text, "max_tokens": 1}).to_string().into_bytes();
        whole[..at.min(whole.len() - 1)].to_vec()
    });
    let deep = (100..3000usize).prop_map(|n| "[".repeat(n).into_bytes());
    prop_oneof![4 => without_prompt, 2 => prop::collection::vec(any::<u8>(), 0..200), 2 => cut, 1 => deep]
}

#[test]
fn bodies_that_make_no_sense_get_400() {
    let s = Server::new();
    let client = std::cell::RefCell::new(Client::new(s.address));
    let paths = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"];
    let run = |(body, path): (Vec<u8>, usize)| {
        let mut c = client.borrow_mut();
        let head = post(paths[path], "", "").replace("content-length: 0", &format!("content-length: {}", body.len()));
        prop_assert!(c.send(&[head.as_bytes(), &body].concat()));
        let answer = c.answer().expect("an answer");
        prop_assert!((400..500).contains(&answer.status), "{}: {}", answer.status, answer.body);
        prop_assert!(answer.json()["error"]["message"].is_string());
        Ok(())
    };
    let config = Config { cases: times(300), failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&(wrong_body(), 0..paths.len()), run).unwrap();
    assert_eq!((s.stats().accepted, s.get("/health").status), (0, 200));
}

/// Bytes that are nearly HTTP, or not at all.
fn wrong_head() -> impl Strategy<Value = Vec<u8>> {
    let good =
        "POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let changed = prop::collection::vec((0..good.len(), any::<u8>()), 1..6).prop_map(move |changes| {
        let mut bytes = good.as_bytes().to_vec();
        changes.into_iter().for_each(|(at, b)| bytes[at] = b);
        bytes
    });
    let lines = [
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
        "POST /v1/completions HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\n\r\n",
        "GET http://other/ HTTP/1.1\r\n\r\n",
        "\r\n\r\n\r\n",
        "\0",
    ];
    prop_oneof![
        changed,
        prop::collection::vec(any::<u8>(), 1..300),
        prop::sample::select(lines.to_vec()).prop_map(|l| l.as_bytes().to_vec()),
    ]
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let s = Server::new();
    let run = |bytes: Vec<u8>| {
        let mut c = Client::new(s.address);
        c.send(&bytes);
        // Nothing more will come of this client.
        c.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        if let Some(answer) = c.answer() {
            // A change within the head may leave a request that asks for something harmless.
            prop_assert!(answer.status < 500, "{}: {}", answer.status, answer.body);
        }
        Ok(())
    };
    let config = Config { cases: times(300), failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&wrong_head(), run).unwrap();
    assert_eq!((s.stats().accepted, s.get("/health").status), (0, 200));
}
