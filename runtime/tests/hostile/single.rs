//! One file of safetensors.
use crate::{bounded, hostile};
use lolm_ir::DType;
use lolm_runtime::weights::{Entry, WeightFiles, write_safetensors};
use std::path::Path;

/// A file of f32 with these names and shapes.
pub fn file(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, s)| vec![3; 4 * s.iter().product::<usize>()]).collect();
    let entries: Vec<Entry> = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| Entry { name: name.to_string(), dtype: DType::F32, shape, data })
        .collect();
    let mut out = vec![];
    write_safetensors(&mut out, &entries).unwrap();
    out
}

/// What was opened is whole: sorted, with the data that its shapes say.
pub fn whole(set: &WeightFiles) {
    let mut before: Option<&str> = None;
    for (i, t) in set.iter().enumerate() {
        assert!(before.is_none_or(|b| b < t.name) && set.position(t.name) == Some(i));
        assert_eq!(t.data.len() * 8, t.shape.iter().product::<usize>() * t.dtype.bitsize());
        before = Some(t.name);
    }
}

fn check(bytes: &[u8]) {
    let opened = bounded("a safetensors file", bytes.len(), || WeightFiles::from_bytes(bytes, Path::new("w")));
    match opened {
        Ok(set) => whole(&set),
        Err(e) => assert!(e.to_string().starts_with("w is not a safetensors file: "), "{e}"),
    }
}

#[test]
fn a_damaged_file_is_refused_or_whole() {
    let small =
        file(&[("model.embed_tokens.weight", &[3, 2]), ("model.norm.weight", &[2]), ("s", &[]), ("none", &[0, 7])]);
    let dtypes = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"I64","shape":[1,1],"data_offsets":[4,12]},"c":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[12,15]}} "#;
    let dtypes = [&(dtypes.len() as u64).to_le_bytes()[..], dtypes.as_bytes(), &[9; 15]].concat();
    hostile("safetensors", &[small, dtypes], check);
}

#[test]
fn headers_full_of_tensors_take_no_more_than_the_file_allows() {
    let header = |tensor: &dyn Fn(usize) -> String| {
        let all: Vec<String> = (0..20_000).map(tensor).collect();
        let text = format!("{{{}}}", all.join(","));
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    };
    let empty = |i: usize| format!(r#""{i:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let bytes = header(&empty);
    check(&bytes);
    assert_eq!(WeightFiles::from_bytes(&bytes, Path::new("w")).unwrap().len(), 20_000);
    check(&header(&|i| format!(r#""{i:x}":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}"#, "1,".repeat(i % 9))));
    check(&header(&|i| format!(r#""a":{{"dtype":"U8","shape":[0],"data_offsets":[0,{}]}}"#, i % 2)));
    let long = "x".repeat(1 << 20);
    check(&header(&|i| if i == 9 { format!(r#""{long}":{{"dtype":"{long}"}}"#) } else { empty(i) }));
    check(&header(&|i| if i == 9 { format!(r#""{long}":7"#) } else { empty(i) }));
}
