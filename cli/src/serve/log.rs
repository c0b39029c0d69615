//! What goes on, a JSON object a line on stderr; never what was asked or answered.
use crate::chat::clock;
use crate::output::note;
use serde_json::{Map, Value};
use std::time::SystemTime;

/// Where a server says what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Log {
    /// Every request.
    All,
    /// How the server itself fares.
    Server,
    Nothing,
}

impl Log {
    /// Something about the server.
    pub fn server(self, event: &str, facts: Value) {
        if self != Log::Nothing {
            line(event, facts);
        }
    }

    /// Something about a request.
    pub fn request(self, event: &str, facts: Value) {
        if self == Log::All {
            line(event, facts);
        }
    }
}

fn line(event: &str, facts: Value) {
    let mut all = Map::new();
    // The format is known to be right; if it were not, the line would say so.
    let (Ok(time) | Err(time)) = clock::format("%Y-%m-%dT%H:%M:%SZ", SystemTime::now());
    all.insert("time".into(), time.into());
    all.insert("event".into(), event.into());
    if let Value::Object(facts) = facts {
        all.extend(facts);
    }
    note(Value::Object(all));
}
