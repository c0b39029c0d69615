//! Files and shards made by code: what is found in them, and what is said about wrong ones.
use super::*;
use crate::weights::{Entry, write_safetensors};
use lolm_ir::DType;
use std::fs;

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lolm-files-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Folder {
        fs::write(self.0.join(name), bytes).unwrap();
        self
    }
    fn refusal(&self) -> String {
        WeightFiles::open(&self.0).err().unwrap().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn file(names: &[&str]) -> Vec<u8> {
    let entry = |name: &&str| Entry { name: name.to_string(), dtype: DType::F32, shape: &[2], data: &[7; 8] };
    let mut out = vec![];
    write_safetensors(&mut out, &names.iter().map(entry).collect::<Vec<_>>()).unwrap();
    out
}

fn shards(folder: &Folder) {
    folder.write("model-00001-of-00002.safetensors", file(&["b", "d"]));
    folder.write("model-00002-of-00002.safetensors", file(&["a", "c"]));
}

fn index(map: &[(&str, usize)]) -> String {
    let one = |(name, shard): &(&str, usize)| format!(r#""{name}": "model-0000{shard}-of-00002.safetensors""#);
    let map: Vec<String> = map.iter().map(one).collect();
    format!(r#"{{"metadata": {{"total_size": 32}}, "weight_map": {{{}}}}}"#, map.join(", "))
}

const WHOLE: [(&str, usize); 4] = [("a", 2), ("b", 1), ("c", 2), ("d", 1)];

#[test]
fn shards_are_one_set_sorted_by_name() {
    let folder = Folder::new("shards");
    shards(&folder);
    folder.write(INDEX, index(&WHOLE));
    for path in [folder.0.clone(), folder.0.join(INDEX)] {
        let set = WeightFiles::open(&path).unwrap();
        assert_eq!(set.iter().map(|t| t.name).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        let c = set.find("c").unwrap();
        assert!(c.path.ends_with("model-00002-of-00002.safetensors") && c.shape == [2] && c.data == [7; 8]);
        assert!(set.find("e").is_none() && set.len() == 4 && set.paths().count() == 2);
    }
    // One file is preferred, as others do.
    folder.write(FILE, file(&["x"]));
    assert_eq!(WeightFiles::open(&folder.0).unwrap().len(), 1);
}

#[test]
fn an_index_and_its_shards_must_agree() {
    let folder = Folder::new("index");
    shards(&folder);
    let refusal = |text: &str| folder.write(INDEX, text).refusal();
    for (text, what) in [
        (
            index(&[WHOLE[0], WHOLE[1], WHOLE[2], ("d", 3)]),
            "it names the shard `model-00003-of-00002.safetensors`, and",
        ),
        (
            index(&[&WHOLE[..], &[("e", 1)]].concat()),
            "says that tensor `e` is in `model-00001-of-00002.safetensors`, and",
        ),
        (index(&[("a", 1), WHOLE[1], WHOLE[2], WHOLE[3]]), "says that tensor `a` is in `model-00001-of-00002"),
        (index(&WHOLE[..3]), "the shard `model-00001-of-00002.safetensors` holds tensor `d`, which it does not name"),
        (index(&[&WHOLE[..], &[("a", 2)]].concat()), "it names tensor `a` twice"),
        ("{}".into(), "it has no `weight_map`"),
        ("[1]".into(), "invalid type: sequence, expected an object with a `weight_map`"),
        (r#"{"weight_map": {"a": 1}}"#.into(), "invalid type: integer `1`, expected a string"),
        (r#"{"weight_map": {"a": "../x.safetensors"}}"#.into(), "expected the name of a .safetensors file beside it"),
        (r#"{"weight_map": {"a": "x.bin"}}"#.into(), "tensor `a` is in `x.bin`, expected"),
        (r#"{"weight_map": {"a": "x.safetensors"}"#.into(), "EOF while parsing"),
    ] {
        let e = refusal(&text);
        assert!(e.contains(INDEX) && e.contains("cannot be followed: ") && e.contains(what), "{e}");
    }
    folder.write("model-00002-of-00002.safetensors", file(&["a", "b", "c"]));
    let both = [("a", 2), ("b", 1), ("c", 2), ("d", 1)];
    assert!(refusal(&index(&both)).contains("holds tensor `b`, which it does not name"));
    // Two shards that are listed as wholes may still hold one name: the map cannot say so without naming it twice.
    let e = refusal(&index(&[&both[..], &[("b", 2)]].concat()));
    assert!(e.contains("tensor `b` is in ") && e.contains("-00001-of-") && e.contains("-00002-of-"), "{e}");
    folder.write("model-00002-of-00002.safetensors", &file(&["a", "c"])[..40]);
    let e = refusal(&index(&WHOLE));
    assert!(e.contains("model-00002-of-00002.safetensors is not a safetensors file: its header says"), "{e}");
}

#[test]
fn pickles_are_refused_with_the_reason() {
    let folder = Folder::new("pickle");
    let e = folder.refusal();
    assert!(e.contains("it has neither model.safetensors nor model.safetensors.index.json"), "{e}");
    for name in PICKLES {
        let e = folder.write(name, "\u{80}\u{2}").refusal();
        assert!(e.contains(name) && e.contains("a Python pickle, which runs code when it is loaded"), "{e}");
        assert!(e.contains("safe_serialization=True"), "{e}");
        fs::remove_file(folder.0.join(name)).unwrap();
    }
    let e = WeightFiles::open(Path::new("x.pth")).err().unwrap().to_string();
    assert!(e.starts_with("x.pth is not read: it is a Python pickle"), "{e}");
}

/// A file with this header and so many bytes of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn headers_that_lie_are_refused() {
    let tensor = |name: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let of = |tensors: &[String]| format!("{{{}}}", tensors.join(","));
    let rows: Vec<(String, usize, &str)> = vec![
        (of(&[tensor("a", "[2]", 0, 8), tensor("b", "[2]", 4, 12)]), 12, "`b` begins at 4, expected 8: it overlaps"),
        (
            of(&[tensor("a", "[2]", 0, 8), tensor("b", "[2]", 12, 20)]),
            20,
            "`b` begins at 12, expected 8: it leaves a hole",
        ),
        (of(&[tensor("a", "[2]", 4, 12)]), 12, "`a` begins at 4, expected 0: it leaves a hole"),
        (of(&[tensor("a", "[2]", 0, 8)]), 12, "4 bytes follow the last tensor"),
        (of(&[tensor("a", "[2]", 0, 8)]), 7, "the data of tensor `a` is at 0..8, expected a range within 0..7"),
        (of(&[tensor("a", "[2]", 8, 0)]), 8, "the data of tensor `a` is at 8..0"),
        (of(&[tensor("a", "[3]", 0, 8)]), 8, "tensor `a` is F32[3], but its data at 0..8 has 8 bytes"),
        (of(&[tensor("a", "[4294967296,4294967296,4]", 0, 8)]), 8, "has 8 bytes"),
        (of(&[tensor("a", "[1,1,1,1,1,1,2]", 0, 8)]), 8, "a shape has more than 6 dimensions"),
        (of(&[tensor("a", "[-2]", 0, 8)]), 8, "invalid value: integer `-2`"),
        (of(&[tensor("a", "[2]", 0, 8), tensor("a", "[2]", 8, 16)]), 16, "tensor `a` stands twice in its header"),
        (of(&[tensor(r"\u0061", "[2]", 0, 8)]), 8, "a name with an escape sequence"),
        (of(&[tensor("a", "[2]", 0, 8).replace("F32", "Q32")]), 8, "unknown variant `Q32`"),
        (of(&[tensor("a", "[2]", 0, 8).replace("shape", "size")]), 8, "unknown field `size`"),
        ("[]".into(), 0, "does not begin with `{`"),
        ("{}x".into(), 0, "trailing characters"),
    ];
    for (header, data, what) in rows {
        let e = WeightFiles::from_bytes(&with_header(&header, data), Path::new("w")).err().unwrap().to_string();
        assert!(e.starts_with("w is not a safetensors file: ") && e.contains(what), "{header}: {e}");
    }
    let e = WeightFiles::from_bytes(&u64::MAX.to_le_bytes(), Path::new("w")).err().unwrap().to_string();
    assert!(e.contains(&format!("its header says that it has {} bytes; 0 bytes follow", u64::MAX)), "{e}");
    let fine =
        format!(r#"{{"__metadata__":{{"format":"pt\n"}},{},{}}}  "#, tensor("b", "[]", 0, 4), tensor("a", "[0]", 0, 0));
    let file = with_header(&fine, 4);
    let set = WeightFiles::from_bytes(&file, Path::new("w")).unwrap();
    assert!(set.find("a").unwrap().data.is_empty() && set.find("b").unwrap().shape.is_empty());
}
