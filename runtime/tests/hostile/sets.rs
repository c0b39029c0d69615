//! Shards and their index.
use crate::single::{file, whole};
use crate::{bounded, hostile};
use lolm_runtime::weights::{INDEX, WeightFiles};
use std::fs;

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// The three files as one, with their lengths in front, so that what mutates one mutates all.
fn pack(files: [&[u8]; 3]) -> Vec<u8> {
    files.iter().flat_map(|f| [&(f.len() as u32).to_le_bytes()[..], f].concat()).collect()
}

fn unpack(mut bytes: &[u8]) -> [Vec<u8>; 3] {
    [0, 1, 2].map(|_| {
        let (len, rest) = bytes.split_at(bytes.len().min(4));
        let len = len.try_into().map_or(0, u32::from_le_bytes) as usize;
        let (file, rest) = rest.split_at(len.min(rest.len()));
        bytes = rest;
        file.to_vec()
    })
}

#[test]
fn damaged_shards_and_indices_are_refused_or_whole() {
    let folder = std::env::temp_dir().join(format!("lolm-hostile-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let check = |bytes: &[u8]| {
        let files = unpack(bytes);
        for (name, bytes) in [INDEX, SHARDS[0], SHARDS[1]].iter().zip(&files) {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let len = files.iter().map(Vec::len).sum();
        if let Ok(set) = bounded("a set of shards", len, || WeightFiles::open(&folder)) {
            whole(&set);
            let text = String::from_utf8(files[0].clone()).unwrap();
            assert!(set.iter().all(|t| text.contains(&format!("\"{}\"", t.name))), "a tensor that the index lacks");
        }
    };
    let map = |names: &[(&str, usize)]| {
        let map: Vec<String> = names.iter().map(|(n, s)| format!(r#""{n}":"{}""#, SHARDS[*s])).collect();
        format!(r#"{{"metadata":{{"total_size":36}},"weight_map":{{{}}}}}"#, map.join(","))
    };
    let (a, b) = (file(&[("a", &[2]), ("b", &[3])]), file(&[("c", &[2, 2])]));
    let index = map(&[("a", 0), ("b", 0), ("c", 1)]);
    hostile("index", &[pack([index.as_bytes(), &a, &b])], check);
    // Many entries that name nothing, and a long name.
    let many: Vec<String> = (0..50_000).map(|i| format!("{i}")).collect();
    let many: Vec<(&str, usize)> = many.iter().map(|n| (n.as_str(), 0)).collect();
    check(&pack([map(&many).as_bytes(), &a, &b]));
    let shards: Vec<String> = (0..50_000).map(|i| format!(r#""{i}":"{i}.safetensors""#)).collect();
    check(&pack([format!(r#"{{"weight_map":{{{}}}}}"#, shards.join(",")).as_bytes(), &a, &b]));
    fs::remove_dir_all(&folder).unwrap();
}
