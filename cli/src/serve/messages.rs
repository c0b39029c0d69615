//! The messages of a chat become its prompt.
use super::app::Loaded;
use super::call::Prompt;
use super::errors::Fault;
use super::fields::{Fields, wrong};
use crate::chat::Message;
use serde_json::{Value, json};

/// Messages of one chat.
const MOST_MESSAGES: usize = 4096;

/// The prompt of a chat, by the model's template.
pub fn prompt(f: &mut Fields, loaded: &Loaded) -> Result<Prompt, Fault> {
    let list = match f.take("messages") {
        Some(Value::Array(list)) if !list.is_empty() && list.len() <= MOST_MESSAGES => list,
        Some(other) => {
            return Err(wrong("messages", &other, &format!("a list of 1 to {MOST_MESSAGES} messages")));
        }
        None => return Err(Fault::field("messages", "`messages` is missing, expected a list of messages")),
    };
    let messages: Vec<Message> = list.into_iter().enumerate().map(|(i, v)| message(i, v)).collect::<Result<_, _>>()?;
    loaded.prompt_of_chat(&messages)
}

/// One message: who, and what.
fn message(i: usize, value: Value) -> Result<Message, Fault> {
    let name = format!("messages[{i}]");
    let mut f = Fields::within(&name, value)?;
    let role_name = f.name("role");
    let role = match f.text("role")?.as_deref() {
        // What OpenAI calls the system since its models reason.
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some(other) => return Err(wrong(&role_name, &json!(other), "system, developer, user or assistant")),
        None => return Err(Fault::field(&role_name, format!("`{role_name}` is missing"))),
    };
    let content = content(&mut f)?;
    for none in ["name", "refusal", "audio", "function_call"] {
        f.only(none, &[])?;
    }
    f.only("tool_calls", &[json!([])])?;
    f.only("annotations", &[json!([])])?;
    f.end()?;
    Ok(Message::new(role, &content))
}

/// A text, or parts that are texts.
fn content(f: &mut Fields) -> Result<String, Fault> {
    let name = f.name("content");
    match f.take("content") {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let texts = parts.into_iter().enumerate().map(|(i, part)| {
                let mut part = Fields::within(&format!("{name}[{i}]"), part)?;
                let kind = part.name("type");
                if part.text("type")?.as_deref() != Some("text") {
                    return Err(Fault::field(
                        &kind,
                        format!("`{kind}` is not \"text\", and nothing else is supported"),
                    ));
                }
                let missing = part.name("text");
                let text = part.text("text")?;
                part.end()?;
                text.ok_or_else(|| Fault::field(&missing, format!("`{missing}` is missing")))
            });
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Some(other) => Err(wrong(&name, &other, "a text or a list of parts")),
        None => Err(Fault::field(&name, format!("`{name}` is missing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_texts_of_three_roles() {
        let read = |v: Value| message(2, v).map_err(|e| (e.param.unwrap(), e.message));
        assert_eq!(read(json!({"role": "user", "content": "hi", "name": null})).unwrap(), Message::new("user", "hi"));
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(read(json!({"role": "developer", "content": parts})).unwrap(), Message::new("system", "a\nb"));
        let wrong = |v| read(v).unwrap_err();
        assert_eq!(wrong(json!({"role": "tool", "content": ""})).0, "messages[2].role");
        assert_eq!(wrong(json!({"role": "user"})).1, "`messages[2].content` is missing");
        let image = json!([{"type": "image_url", "image_url": {}}]);
        assert_eq!(wrong(json!({"role": "user", "content": image})).0, "messages[2].content[0].type");
        assert_eq!(wrong(json!({"role": "user", "content": "", "extra": 1})).0, "messages[2].extra");
        assert_eq!(wrong(json!("hi")).0, "messages[2]");
    }
}
