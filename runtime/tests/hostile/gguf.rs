//! GGUF files, and the llama architecture in them.
use crate::{bounded, hostile};
use lolm_models::gguf::testing::Writer;
use lolm_models::gguf::{Gguf, Llama, TensorType, Value, ValueType};

/// A file with every type of value and of tensor.
fn types() -> Vec<u8> {
    let w = Writer::default()
        .key("u8", Value::U8(1))
        .key("i16", Value::I16(-1))
        .key("f64", Value::F64(0.5))
        .key("bool", Value::Bool(true))
        .key("text", Value::Text("some text"))
        .texts("texts", &["a", "bc", ""])
        .array("floats", ValueType::F32, &[Value::F32(1.0); 5])
        .array("flags", ValueType::Bool, &[Value::Bool(true); 3]);
    let w = w.alignment(16);
    let tensor = |w: Writer, kind: TensorType| {
        let (n, bytes) = kind.block();
        w.tensor(kind.name(), kind, &[3, n], (0..3 * bytes).map(|i| (i * 89) as u8).collect())
    };
    TensorType::ALL.into_iter().fold(w, tensor).bytes()
}

/// A model of one block.
fn llama() -> Vec<u8> {
    let mut w = Writer::default().key("general.architecture", Value::Text("llama"));
    for (key, n) in [("embedding_length", 4), ("block_count", 1), ("context_length", 9), ("feed_forward_length", 2)] {
        w = w.key(&format!("llama.{key}"), Value::U32(n));
    }
    w = w
        .key("llama.attention.head_count", Value::U32(2))
        .key("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let shapes: [(&str, &[usize]); 12] = [
        ("token_embd", &[3, 4]),
        ("output_norm", &[4]),
        ("blk.0.attn_norm", &[4]),
        ("blk.0.attn_q", &[4, 4]),
        ("blk.0.attn_k", &[4, 4]),
        ("blk.0.attn_v", &[4, 4]),
        ("blk.0.attn_output", &[4, 4]),
        ("blk.0.ffn_norm", &[4]),
        ("blk.0.ffn_gate", &[2, 4]),
        ("blk.0.ffn_up", &[2, 4]),
        ("blk.0.ffn_down", &[4, 2]),
        ("rope_freqs", &[1]),
    ];
    for (name, shape) in shapes {
        w = w.floats(&format!("{name}.weight"), shape, &vec![1.0; shape.iter().product()]);
    }
    w.bytes()
}

fn check(bytes: &[u8]) {
    let parsed = bounded("a GGUF file", bytes.len(), || {
        let gguf = Gguf::parse(bytes)?;
        // The texts of an array take 16 bytes each, of at least 8 in the file.
        gguf.metadata().for_each(|(key, _)| drop(gguf.texts(key)));
        Ok::<_, lolm_models::gguf::GgufError>(gguf)
    });
    let Ok(gguf) = parsed else { return };
    let keys: Vec<(&str, Value)> = gguf.metadata().collect();
    assert!(keys.windows(2).all(|w| w[0].0 < w[1].0));
    for (key, value) in &keys {
        let array = value.array();
        assert!(array.is_none_or(|a| a.iter().count() == a.len()), "an array of another length");
        assert!(gguf.get(key).is_some());
    }
    for t in gguf.tensors() {
        let (n, size) = t.kind.block();
        assert_eq!(t.data.len(), t.elements() / n * size);
        let mut row = vec![f32::NAN; t.row_len()];
        (0..t.rows()).for_each(|i| t.dequantise_row(i, &mut row));
        assert_eq!(gguf.find(t.name).map(|t| t.data.as_ptr()), Some(t.data.as_ptr()));
    }
    if let Ok(llama) = bounded("a llama", bytes.len(), || Llama::read(&gguf)) {
        llama.tensors().for_each(|t| assert_eq!(t.elements().len(), t.tensor.elements()));
    }
}

#[test]
fn a_damaged_file_is_refused_or_whole() {
    hostile("gguf", &[types(), llama(), llama()], check);
}

#[test]
fn files_full_of_keys_and_tensors_take_no_more_than_they_allow() {
    let many: Vec<String> = (0..20_000).map(|i| format!("{i:x}")).collect();
    let keys = many.iter().fold(Writer::default(), |w, k| w.key(k, Value::Bool(true)));
    let bytes = keys.bytes();
    check(&bytes);
    assert_eq!(Gguf::parse(&bytes).unwrap().metadata().count(), 20_000);
    for alignment in [8, 32] {
        let w = Writer::default().alignment(alignment);
        let bytes = many.iter().fold(w, |w, name| w.tensor(name, TensorType::F16, &[1], vec![0; 2])).bytes();
        check(&bytes);
        assert_eq!(Gguf::parse(&bytes).unwrap().tensors().len(), 20_000);
    }
    let empty = vec![""; 50_000];
    check(&Writer::default().texts("k", &empty).bytes());
    check(&Writer::default().key("k", Value::Text(&"x".repeat(1 << 20))).bytes());
    check(&Writer::default().key(&"x".repeat(1 << 20), Value::Bool(true)).bytes());
    check(&Writer::default().key("general.architecture", Value::Text(&"x".repeat(1 << 20))).bytes());
}
