//! Templates: what they see, and what they may not do.
use super::*;
use std::time::{Duration, UNIX_EPOCH};

fn template(source: &str) -> ChatTemplate {
    ChatTemplate { source: source.into(), file: "model/chat.jinja".into(), bos: "<s>".into(), eos: "</s>".into() }
}

fn run(source: &str) -> Result<String> {
    let messages = [Message::new("system", " Be brief. "), Message::new("user", "<Hi> \"you\" é")];
    template(source).prompt(&messages, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

#[test]
fn messages_become_a_prompt() {
    let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
                  {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    assert_eq!(
        run(chatml).unwrap(),
        "<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\n<Hi> \"you\" é<|im_end|>\n<|im_start|>assistant\n"
    );
    // Blocks take their line break and what stands before them along; nothing is escaped.
    assert_eq!(run("{{ bos_token }}\n  {% if true %}\n  x\n  {% endif %}\n{{ eos_token }}").unwrap(), "<s>\n  x\n</s>");
}

#[test]
fn templates_find_what_python_has() {
    assert_eq!(
        run("{{ messages[0].content.strip() }}|{{ messages[0]['content'] | trim }}").unwrap(),
        "Be brief.|Be brief."
    );
    assert_eq!(run("{{ messages[1].content.startswith('<Hi') }}").unwrap(), "True");
    assert_eq!(run("{% for k, v in messages[0].items() %}{{ k }};{% endfor %}").unwrap(), "role;content;");
    assert_eq!(run("{{ messages[1].content.split('\"')[1] }}").unwrap(), "you");
    assert_eq!(
        run("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}")
            .unwrap(),
        "2"
    );
    assert_eq!(run("{{ messages[1:] | length }}{{ messages[-1].role }}{{ tools is defined }}").unwrap(), "1userFalse");
    assert_eq!(run("{{ strftime_now('%d %b %Y') }}").unwrap(), "14 Nov 2023");
    assert_eq!(
        run("{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}{{ m.role }}{% endfor %}").unwrap(),
        "system"
    );
    assert_eq!(run("a\n{%- generation -%}\n b\n{%- endgeneration %}\nc").unwrap(), "abc");
}

#[test]
fn json_is_written_as_python_does() {
    assert_eq!(run("{{ messages[1] | tojson }}").unwrap(), r#"{"role": "user", "content": "<Hi> \"you\" é"}"#);
    let value = "{'b': [1, 2.5, none, true], 'a': {}, 'c': []}";
    assert_eq!(
        run(&format!("{{{{ {value} | tojson }}}}")).unwrap(),
        r#"{"b": [1, 2.5, null, true], "a": {}, "c": []}"#
    );
    assert_eq!(
        run(&format!("{{{{ {value} | tojson(indent=2, sort_keys=true) }}}}")).unwrap(),
        "{\n  \"a\": {},\n  \"b\": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  \"c\": []\n}"
    );
    assert_eq!(run("{{ 'é🦀' | tojson(ensure_ascii=true) }}").unwrap(), r#""\u00e9\ud83e\udd80""#);
    assert_eq!(run("{{ [1, 2] | tojson(separators=(',', ':')) }}").unwrap(), "[1,2]");
}

#[test]
fn errors_quote_the_line() {
    let error = |source: &str| format!("{:#}", run(source).unwrap_err());
    assert_eq!(
        error("{{ bos_token }}\n  {{ raise_exception('Roles must alternate') }}"),
        "the chat template of model/chat.jinja, line 2, `{{ raise_exception('Roles must alternate') }}`: Roles must alternate"
    );
    let e = error("x\n{% for %}");
    assert!(e.contains("line 2, `{% for %}`"), "{e}");
    let e = error("{{ messages[0].content.klingon() }}");
    assert!(e.contains("line 1") && e.contains("klingon"), "{e}");
}

#[test]
fn templates_without_end_are_stopped() {
    let error = |source: &str| format!("{:#}", run(source).unwrap_err());
    let e =
        error("{% for i in range(100000) %}{% for j in range(100000) %}{% set x = i * j %}{% endfor %}{% endfor %}");
    assert!(e.contains("it takes more than 5000000 steps") || e.contains("range"), "{e}");
    let e = error("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}");
    assert!(e.contains("recursion"), "{e}");
    let e = error("{% for i in range(10000) %}{{ 'x' * 10000 }}{% endfor %}");
    assert!(e.contains("it writes more than"), "{e}");
    assert!(run(&"(".repeat(10_000)).is_ok());
    assert!(run(&format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000))).is_err());
}

#[test]
fn one_of_several_templates_is_the_default() {
    let json = serde_json::json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
    assert_eq!(chosen(&json).unwrap(), "d");
    assert_eq!(chosen(&serde_json::json!("s")).unwrap(), "s");
    assert!(chosen(&serde_json::json!([{"name": "rag", "template": "t"}])).is_err());
    assert!(chosen(&serde_json::json!([{"name": "default"}])).is_err() && chosen(&serde_json::json!(7)).is_err());
}

#[test]
fn a_folder_without_a_template_is_refused() {
    let folder = std::env::temp_dir().join(format!("lolm-chat-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let of = || ChatTemplate::of(&folder, &Special::default());
    assert!(of().unwrap_err().to_string().contains("has no chat template"));
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"chat_template": "config"}"#).unwrap();
    assert_eq!(of().unwrap().source, "config");
    std::fs::write(folder.join("chat_template.jinja"), "alone").unwrap();
    assert_eq!(of().unwrap().source, "alone");
    std::fs::remove_dir_all(folder).unwrap();
}
