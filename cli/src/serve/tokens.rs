//! Text to tokens and back over HTTP, with vLLM's fields, which evaluation harnesses use.
use super::app::Loaded;
use super::call::model;
use super::errors::Fault;
use super::fields::Fields;
use crate::chat::ChatTemplate;
use crate::tokenizer::Named;
use serde_json::{Value, json};

/// The tokens of a prompt, or of a chat.
pub fn tokenize(body: &[u8], loaded: &Loaded) -> Result<Value, Fault> {
    let mut f = Fields::parse(body)?;
    model(&mut f, loaded)?;
    let names = f.flag("return_token_strs")?.unwrap_or(false);
    let special = f.flag("add_special_tokens")?;
    let tokens = match f.text("prompt")? {
        Some(text) => encoded(loaded, &text, special.unwrap_or(true))?,
        None => {
            f.only("add_generation_prompt", &[json!(true)])?;
            f.only("chat_template", &[])?;
            super::messages::prompt(&mut f, loaded)?.tokens
        }
    };
    f.end()?;
    let name = |id: &u32| loaded.tokenizer.name(*id).unwrap_or_else(|| format!("token_id:{id}"));
    let names = names.then(|| tokens.iter().map(name).collect::<Vec<_>>());
    Ok(json!({"count": tokens.len(), "max_model_len": loaded.max_model_len, "tokens": tokens, "token_strs": names}))
}

/// An empty text has no tokens, and a long one may have more than the context holds.
fn encoded(loaded: &Loaded, text: &str, special: bool) -> Result<Vec<u32>, Fault> {
    let tokens = loaded.tokenizer.encode(text.as_bytes(), special, "`prompt`");
    tokens.map_err(|e| Fault::field("prompt", format!("{e:#}")))
}

/// The text of tokens.
pub fn detokenize(body: &[u8], loaded: &Loaded) -> Result<Value, Fault> {
    let mut f = Fields::parse(body)?;
    model(&mut f, loaded)?;
    let missing = || Fault::field("tokens", "`tokens` is missing, expected a list of token numbers");
    let tokens = f.tokens("tokens")?.ok_or_else(missing)?;
    f.end()?;
    let bytes = loaded.tokenizer.decode(&tokens).map_err(|e| Fault::field("tokens", format!("{e:#}")))?;
    Ok(json!({"prompt": String::from_utf8_lossy(&bytes)}))
}

/// What a client needs to make prompts by itself.
pub fn tokenizer_info(loaded: &Loaded) -> Value {
    let t = &loaded.tokenizer;
    let text = |token: &Option<Named>| token.as_ref().map(|t| t.text.clone());
    json!({"tokenizer_class": "lolm", "vocab_size": t.size(), "model_max_length": loaded.max_model_len,
        "bos_token": text(&t.special.bos), "eos_token": text(&t.special.eos), "pad_token": text(&t.special.pad),
        "unk_token": text(&t.special.unk), "add_bos_token": t.special.add.0, "add_eos_token": t.special.add.1,
        "chat_template": loaded.chat.as_ref().map(ChatTemplate::source)})
}
