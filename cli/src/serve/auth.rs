//! API keys: who may ask.
use super::errors::Fault;
use anyhow::{Context, Result, ensure};
use axum::http::{HeaderMap, StatusCode, header};
use std::path::Path;

/// The keys that open the server; without any it is open to all who reach it.
#[derive(Clone, Default)]
pub struct Keys(Vec<String>);

impl Keys {
    pub fn new(keys: Vec<String>) -> Result<Keys> {
        for key in &keys {
            let fits = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
            ensure!(fits, "an API key is empty, or holds something other than letters, digits and signs of ASCII");
        }
        Ok(Keys(keys))
    }

    /// The keys of a file, one a line; empty lines and those that begin with # are none.
    pub fn read(path: &Path) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let keys: Vec<String> = lines.map(String::from).collect();
        ensure!(!keys.is_empty(), "{} holds no API key", path.display());
        Ok(keys)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets those in who show a key.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Fault> {
        if self.is_empty() {
            return Ok(());
        }
        let denied = |code, message| Err(Fault::new(StatusCode::UNAUTHORIZED, code, message));
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return denied("missing_api_key", "an API key is needed: send `Authorization: Bearer KEY`");
        };
        let shown = value.as_bytes();
        let bearer = shown.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
        // All keys are looked at, so that the time does not tell which one, or how much of it, was right.
        let known = self.0.iter().fold(false, |known, key| known | equal(&shown[shown.len().min(7)..], key.as_bytes()));
        match bearer && known {
            true => Ok(()),
            false => denied("invalid_api_key", "the API key is not one of this server's"),
        }
    }
}

/// Compares in a time that depends on the length of what was shown alone.
fn equal(shown: &[u8], key: &[u8]) -> bool {
    let mut difference = u8::from(shown.len() != key.len());
    for (i, byte) in shown.iter().enumerate() {
        difference |= std::hint::black_box(byte ^ key[i % key.len()]);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_a_whole_key_opens() {
        let keys = Keys::new(vec!["sk-one".into(), "sk-two-longer".into()]).unwrap();
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            keys.check(&headers).is_ok()
        };
        assert!(ask("Bearer sk-one") && ask("bearer sk-two-longer"));
        for wrong in
            ["", "Bearer ", "Bearer sk-on", "Bearer sk-onesk-one", "Bearer sk-onE", "Basic sk-one", "sk-one", "B"]
        {
            assert!(!ask(wrong), "{wrong}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
        assert!(Keys::default().check(&HeaderMap::new()).is_ok());
        assert!(Keys::new(vec!["".into()]).is_err() && Keys::new(vec!["a b".into()]).is_err());
    }

    #[test]
    fn a_file_holds_a_key_a_line() {
        let path = std::env::temp_dir().join(format!("lolm-keys-{}", std::process::id()));
        std::fs::write(&path, "# of the team\nsk-a\n\n  sk-b \n").unwrap();
        assert_eq!(Keys::read(&path).unwrap(), ["sk-a", "sk-b"]);
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(Keys::read(&path).unwrap_err().to_string().contains("holds no API key"));
        std::fs::remove_file(path).unwrap();
    }
}
