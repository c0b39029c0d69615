//! `model.safetensors.index.json`: which shard holds which tensor.
use super::header::{Pairs, Text};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The shards that an index may name.
const MAX_SHARDS: usize = 4096;

/// Calls `f` with each tensor of an index and the shard that holds it.
pub fn each<'a>(text: &'a str, mut f: impl FnMut(&'a str, &'a str) -> Result<(), String>) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let entry = |name, Text(shard): Text<'a>| f(name, shard);
    let found = Index(entry).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    match found.map_err(|e| e.to_string())? {
        true => Ok(()),
        false => Err("it has no `weight_map`".into()),
    }
}

/// The shards of an index, sorted by name. Each must be the name of a file beside the index.
pub fn shards(text: &str) -> Result<Vec<&str>, String> {
    let mut shards: Vec<&str> = vec![];
    each(text, |name, shard| {
        let Err(at) = shards.binary_search(&shard) else { return Ok(()) };
        let plain = shard.ends_with(".safetensors") && !shard.contains(['/', '\\', '\0']);
        if !plain {
            return Err(format!("tensor `{name}` is in `{shard}`, expected the name of a .safetensors file beside it"));
        }
        if shards.len() == MAX_SHARDS {
            return Err(format!("it names more than {MAX_SHARDS} shards"));
        }
        shards.insert(at, shard);
        Ok(())
    })?;
    Ok(shards)
}

/// The top of an index; gives whether it had a map.
struct Index<F>(F);

impl<'de, F: FnMut(&'de str, Text<'de>) -> Result<(), String>> DeserializeSeed<'de> for Index<F> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&'de str, Text<'de>) -> Result<(), String>> Visitor<'de> for Index<F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with a `weight_map`")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(Text(key)) = map.next_key()? {
            match key {
                "weight_map" => {
                    map.next_value_seed(Pairs(&mut self.0, PhantomData))?;
                    found = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}
