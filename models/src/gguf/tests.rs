//! Files made by code: what is read from them, and what is said about damaged ones.
use super::testing::Writer;
use super::*;

fn full() -> Writer {
    let w = Writer::default()
        .key("a.u8", Value::U8(200))
        .key("a.i8", Value::I8(-3))
        .key("a.u16", Value::U16(60000))
        .key("a.i16", Value::I16(-300))
        .key("a.u32", Value::U32(4_000_000_000))
        .key("a.i32", Value::I32(-70000))
        .key("a.u64", Value::U64(1 << 40))
        .key("a.i64", Value::I64(-(1 << 40)))
        .key("a.f32", Value::F32(0.5))
        .key("a.f64", Value::F64(0.25))
        .key("a.bool", Value::Bool(true))
        .key("a.text", Value::Text("Grüße"))
        .texts("b.texts", &["", "a", "bc"])
        .array("b.floats", ValueType::F32, &[Value::F32(1.0), Value::F32(-2.0)])
        .array("b.kinds", ValueType::I32, &[Value::I32(1), Value::I32(3)])
        .array("b.none", ValueType::U64, &[]);
    let w = w.floats("x", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).floats("vector", &[1], &[7.0]);
    let half = |x: [u16; 2]| x.map(u16::to_le_bytes).concat();
    w.tensor("h", TensorType::F16, &[2], half([0x3e00, 0xc000])).tensor(
        "b",
        TensorType::Bf16,
        &[2],
        half([0x3fc0, 0xc000]),
    )
}

#[test]
fn every_type_of_value_is_read() {
    for version in [2, 3] {
        let bytes = full().version(version).bytes();
        let g = Gguf::parse(&bytes).unwrap();
        assert_eq!((g.version(), g.metadata().count()), (version, 16));
        assert_eq!(g.get("a.i64"), Some(Value::I64(-(1 << 40))));
        for (key, value) in [("a.u8", 200), ("a.u16", 60000), ("a.u32", 4_000_000_000), ("a.u64", 1 << 40)] {
            assert_eq!(g.unsigned(key), Ok(Some(value)));
        }
        assert_eq!(g.float("a.f32").unwrap().zip(g.float("a.f64").unwrap()), Some((0.5, 0.25)));
        assert_eq!((g.flag("a.bool"), g.text("a.text")), (Ok(Some(true)), Ok(Some("Grüße"))));
        assert_eq!(g.texts("b.texts"), Ok(Some(vec!["", "a", "bc"])));
        assert_eq!(g.floats("b.floats"), Ok(Some(vec![1.0, -2.0])));
        assert_eq!(g.integers("b.kinds"), Ok(Some(vec![1, 3])));
        assert!(g.get("b.none").unwrap().array().unwrap().is_empty());
        assert_eq!((g.get("a"), g.text("nothing")), (None, Ok(None)));
        let e = g.unsigned("a.i8").unwrap_err().to_string();
        assert_eq!(e, "key `a.i8` is -3, expected an integer that is not negative");
        let e = g.texts("b.floats").unwrap_err().to_string();
        assert_eq!(e, "key `b.floats` is an array of 2 f32, expected an array of texts");
    }
}

#[test]
fn plain_tensors_are_read_with_the_row_length_last() {
    let bytes = full().bytes();
    let g = Gguf::parse(&bytes).unwrap();
    let x = g.tensor("x").unwrap();
    assert_eq!((x.shape(), x.row_len(), x.rows()), (vec![2, 3], 3, 2));
    assert_eq!(x.dequantise(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let mut row = [0.0; 3];
    x.dequantise_row(1, &mut row);
    assert_eq!(row, [4.0, 5.0, 6.0]);
    for name in ["h", "b"] {
        assert_eq!(g.dequantise(name).unwrap(), [1.5, -2.0], "{name}");
    }
    assert_eq!(g.dequantise("y").unwrap_err().to_string(), "the file has no tensor `y`");
    let names: Vec<&str> = g.tensors().iter().map(|t| t.name).collect();
    assert_eq!(names, ["x", "vector", "h", "b"]);
}

/// A block of bytes that count up by 37, with d = 0.0123 and m = -0.37 where the type has them.
fn block(kind: TensorType) -> Vec<u8> {
    let mut b: Vec<u8> = (0..kind.block().1).map(|i| (i * 37 + 11) as u8).collect();
    let (d, m) = ([0x4c, 0x22], [0xec, 0xb5]);
    match kind {
        TensorType::Q6K => b[208..].copy_from_slice(&d),
        TensorType::Q4_1 | TensorType::Q4K => b[..4].copy_from_slice(&[d, m].concat()),
        _ => b[..2].copy_from_slice(&d),
    }
    b
}

#[test]
fn quantised_blocks_are_what_the_format_says() {
    // Bits of some elements, and all bits together, as the format's own reference decodes these blocks.
    type Row<'a> = (TensorType, u32, &'a [(usize, u32)]);
    let rows: [Row; 5] = [
        (TensorType::Q8_0, 0x8f5f4800, &[(0, 0x3f85cf00), (1, 0x3fc00e00), (16, 0xbf8f4100), (31, 0xbf172000)]),
        (TensorType::Q4_0, 0x7cf1f000, &[(0, 0xbd172000), (1, 0x3cc98000), (15, 0xbdc98000), (31, 0)]),
        (TensorType::Q4_1, 0x160b5000, &[(0, 0xbe3e1800), (1, 0xbea45000), (16, 0xbe84d400), (31, 0xbe63e000)]),
        (TensorType::Q4K, 0x3f5d8680, &[(0, 0x41b88ef0), (33, 0x41146c00), (161, 0x419fab00), (255, 0x415c40c0)]),
        (TensorType::Q6K, 0x1ca24d98, &[(0, 0xc18ccb50), (33, 0xc1043c00), (161, 0xc1c00e00), (255, 0xbf3ce800)]),
    ];
    for (kind, all, some) in rows {
        let n = kind.block().0;
        let w = Writer::default().tensor("w", kind, &[2, n], [block(kind), block(kind)].concat());
        let bytes = w.bytes();
        let x = Gguf::parse(&bytes).unwrap().dequantise("w").unwrap();
        assert_eq!(x[..n], x[n..]);
        for (i, bits) in some {
            assert_eq!(x[*i].to_bits(), *bits, "{} at {i}", kind.name());
        }
        let odd = (1u32..).step_by(2);
        let sum = x[..n].iter().zip(odd).fold(0, |sum, (x, odd)| sum ^ x.to_bits().wrapping_mul(odd));
        assert_eq!(sum, all, "{}", kind.name());
    }
}

fn refusal(bytes: &[u8]) -> String {
    Gguf::parse(bytes).unwrap_err().to_string()
}

#[test]
fn other_files_and_versions_are_refused() {
    assert_eq!(
        refusal(b"PK\x03\x04 and more"),
        "this is not a GGUF file: it begins with \"PK\\u{3}\\u{4}\", expected \"GGUF\""
    );
    assert!(refusal(b"GG").contains("not a GGUF file"));
    assert_eq!(refusal(b"GGUF\x01\0\0\0"), "GGUF version 1 cannot be read; expected 2 or 3");
    assert!(refusal(b"GGUF\0\0\0\x03").contains("big-endian"));
    let none = Gguf::parse(&Writer::default().bytes()).map(|g| g.tensors().len());
    assert_eq!(none, Ok(0));
}

#[test]
fn types_that_are_not_read_are_refused_by_name() {
    for (number, name) in [(7, "Q5_1"), (10, "Q2_K"), (20, "IQ4_NL"), (39, "MXFP4")] {
        let e = refusal(&Writer::default().raw_tensor("w", number, &[256], vec![0; 256]).bytes());
        let known = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K";
        assert_eq!(e, format!("tensor `w` is of type {name}, which is not read; these are: {known}"));
    }
    let e = refusal(&Writer::default().raw_tensor("w", 4, &[256], vec![0; 256]).bytes());
    assert!(e.starts_with("the type of tensor `w` at byte 45 says 4, expected that of F32"), "{e}");
}

#[test]
fn absurd_counts_lengths_and_shapes_are_refused() {
    let patched = |w: &Writer, at: usize, x: u64| {
        let mut bytes = w.bytes();
        bytes[at..at + 8].copy_from_slice(&x.to_le_bytes());
        refusal(&bytes)
    };
    let w = Writer::default().key("k", Value::U8(1)).floats("w", &[2, 2], &[0.0; 4]);
    for huge in [1 << 20, 1 << 40, u64::MAX] {
        let e = patched(&w, 8, huge);
        assert!(e.starts_with(&format!("the number of tensors at byte 8 says {huge}, expected at most 2")), "{e}");
        let e = patched(&w, 16, huge);
        assert!(e.starts_with(&format!("the number of keys at byte 16 says {huge}, expected at most")), "{e}");
        let e = patched(&w, 24, huge);
        assert!(e.starts_with("the file ends at byte ") && e.contains("within a key"), "{e}");
        // The first dimension, after key, name and rank.
        let e = patched(&w, 24 + 14 + 9 + 4, huge);
        assert!(e.contains("expected a tensor of at most the file's 112 bytes"), "{e}");
        // The offset.
        let e = patched(&w, 24 + 14 + 9 + 4 + 16 + 4, huge);
        assert!(e.starts_with(&format!("tensor `w` begins at {huge} in the data, expected 0")), "{e}");
    }
    assert!(patched(&w, 24 + 14 + 9 + 4, 0).contains("expected positive ones"));
    let w = Writer::default().tensor("w", TensorType::Q4_0, &[2, 16], vec![0; 18]);
    assert!(refusal(&w.bytes()).contains("rows of a multiple of 32 elements for Q4_0"));
    let w = Writer::default().texts("k", &["a"]);
    assert!(patched(&w, 24 + 9 + 8, 1 << 60).contains("the value of `k` at byte 41 says"));
    let w = Writer::default().raw_tensor("w", 0, &[1; 5], vec![0; 4]);
    assert!(refusal(&w.bytes()).contains("the rank of tensor `w` at byte 33 says 5, expected 1 to 4"));
}

#[test]
fn alignment_is_a_power_of_two_that_tensors_keep() {
    for alignment in [8, 64, 4096] {
        let w = Writer::default().alignment(alignment);
        let bytes = w.floats("a", &[1], &[1.0]).floats("b", &[1], &[2.0]).bytes();
        assert_eq!(Gguf::parse(&bytes).unwrap().dequantise("b"), Ok(vec![2.0]));
    }
    for alignment in [0, 1, 24, 1 << 30] {
        let e = refusal(&full().key("general.alignment", Value::U32(alignment)).bytes());
        assert!(e.starts_with(&format!("key `general.alignment` is {alignment}, expected a power of two")), "{e}");
    }
    let e = refusal(&full().key("general.alignment", Value::U32(64)).bytes());
    assert!(e.contains("tensor `vector` begins at 32 in the data, expected 64"), "{e}");
}

#[test]
fn what_stands_twice_or_is_malformed_is_refused() {
    assert_eq!(refusal(&full().key("a.u8", Value::U8(1)).bytes()), "the key `a.u8` stands twice in the file");
    assert_eq!(refusal(&full().floats("x", &[1], &[0.0]).bytes()), "the tensor `x` stands twice in the file");
    let e = refusal(&Writer::default().raw_key("k", [7u32.to_le_bytes().to_vec(), vec![2]].concat()).bytes());
    assert_eq!(e, "the value of `k` at byte 37 says the boolean 2, expected 0 or 1");
    let e = refusal(&Writer::default().raw_key("k", [13u32.to_le_bytes().to_vec(), vec![2]].concat()).bytes());
    assert_eq!(e, "the type of the value of `k` at byte 33 says 13, expected 0 to 12");
    let text = [8u32.to_le_bytes().to_vec(), 2u64.to_le_bytes().to_vec(), vec![b'a', 0xff]].concat();
    assert!(refusal(&Writer::default().raw_key("k", text).bytes()).contains("bytes that are not UTF-8"));
    let deep = (0..6)
        .fold(vec![], |inner: Vec<u8>, _| [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec(), inner].concat());
    let deep = [9u32.to_le_bytes().to_vec(), deep, vec![0; 12]].concat();
    assert!(refusal(&Writer::default().raw_key("k", deep).bytes()).contains("arrays within arrays"));
}

#[test]
fn files_cut_short_or_too_long_are_refused() {
    let whole = full().bytes();
    for len in 0..whole.len() {
        assert!(Gguf::parse(&whole[..len]).is_err(), "{len}");
    }
    let padded = [whole.clone(), vec![0; 28]].concat();
    assert!(Gguf::parse(&padded).is_ok());
    assert_eq!(refusal(&[padded, vec![0]].concat()), "29 bytes follow the last tensor, expected at most 28 of padding");
}
