//! `lolm verify` accepts right numbers and names wrong ones.
use crate::support::{Folder, golden};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;

const CASES: [&str; 18] = [
    "lolm_plain_decoder",
    "lolm_decoder_memory",
    "lolm_decoder_ssm",
    "lolm_decoder_ssm_memory",
    "lolm_full",
    "lolm_full_mamba_ssm",
    "transformer",
    "transformer_llama3",
    "transformer_window",
    "mamba",
    "mamba_biased",
    "jamba",
    "jamba_uneven",
    "jamba_one_expert",
    "griffin",
    "griffin_wide",
    "samba",
    "samba_short_window",
];

#[test]
fn golden_cases_are_right() {
    let f = Folder::new("verify");
    for case in CASES {
        let json = f.lolm_args(&["verify", &golden(case).display().to_string(), "--target", "cpu", "--json"]).json();
        let rows = json["rows"].as_array().unwrap();
        assert!(rows.len() >= 30 && rows.iter().all(|r| r["ok"].as_bool() == Some(true)), "{case}");
    }
}

/// A copy of a case in the folder.
fn copy(f: &Folder, case: &str) {
    for entry in std::fs::read_dir(golden(case)).unwrap() {
        let path = entry.unwrap().path();
        f.write(path.file_name().unwrap().to_str().unwrap(), std::fs::read(&path).unwrap());
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Changes the tensors of a file of the case.
fn change(f: &Folder, case: &str, file: &str, how: impl Fn(&mut Tensors)) {
    copy(f, case);
    let bytes = f.read(file);
    let all = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let mut tensors: Tensors =
        all.into_iter().map(|(n, t)| (n, (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect();
    how(&mut tensors);
    let views = tensors.iter().map(|(n, (d, s, b))| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()));
    f.write(file, safetensors::serialize(views, None).unwrap());
}

/// Adds to the first element of a tensor.
fn add(tensors: &mut Tensors, name: &str, x: f32) {
    let data = &mut tensors.get_mut(name).unwrap().2;
    let old = f32::from_le_bytes(data[..4].try_into().unwrap());
    data[..4].copy_from_slice(&(old + x).to_le_bytes());
}

#[test]
fn wrong_numbers_are_named() {
    let f = Folder::new("wrong");
    let full = "lolm_full";
    let verify = || f.lolm("verify .");
    change(&f, full, "io.safetensors", |t| add(t, "eval.z", 1.0));
    verify().fails(&["1 of 121 numbers are wrong: output z"]);
    change(&f, full, "io.safetensors", |t| add(t, "eval.logits.gate=0.5", f32::NAN));
    verify().fails(&["wrong: output logits.gate=0.5"]);
    change(&f, full, "grads.safetensors", |t| add(t, "regime.neighbor_scale", 1.0));
    verify().fails(&["wrong: gradient regime.neighbor_scale"]);
    copy(&f, full);
    let case = f.text("case.json");
    f.write("case.json", case.replace("\"mem\": 0.99", "\"mem\": 0.98"));
    verify().fails(&["wrong: loss mem"]);
    f.write("case.json", case.replace("6.175885835138374", "6.2"));
    verify().fails(&["wrong: step loss 5"]);
    f.write("case.json", case.replace("\"mem\": 0.99", "\"memo\": 0.99"));
    verify().fails(&["loss memo", "loss mem"]);
}

#[test]
fn missing_and_extra_tensors_are_wrong() {
    let f = Folder::new("missing");
    let full = "lolm_full";
    let verify = || f.lolm("verify .");
    let rename = |t: &mut Tensors, from: &str, to: &str| {
        let x = t.remove(from).unwrap();
        t.insert(to.into(), x);
    };
    change(&f, full, "io.safetensors", |t| rename(t, "eval.z", "eval.zz"));
    verify().fails(&["output z", "output zz"]);
    change(&f, full, "grads.safetensors", |t| rename(t, "proj_z.weight", "proj_y.weight"));
    verify().fails(&["gradient proj_y.weight", "gradient proj_z.weight"]);
    change(&f, full, "model.safetensors", |t| rename(t, "proj_z.weight", "proj_y.weight"));
    verify().fails(&["missing: `proj_z.weight`", "unexpected: `proj_y.weight`"]);
    change(&f, full, "io.safetensors", |t| drop(t.remove("train.gumbel")));
    verify().fails(&["io.safetensors has no `train.gumbel`"]);
    change(&f, full, "io.safetensors", |t| t.get_mut("eval.h").unwrap().1 = vec![2, 16, 64]);
    verify().fails(&["output h"]);
    copy(&f, full);
    std::fs::remove_file(f.path("grads.safetensors")).unwrap();
    verify().fails(&["cannot read ./grads.safetensors"]);
    f.write("case.json", "{");
    verify().fails(&["case.json is not JSON"]);
    f.lolm("verify nowhere").fails(&["cannot read nowhere/case.json"]);
}
