//! Files that fit, files that do not, and what is said about those.
use super::*;
use crate::testing::{manifest, model, param, state};
use lolm_ir::DType;
use safetensors::SafeTensors;

fn lolm() -> Model {
    let mut m = manifest(vec![]);
    m.params = vec![
        param("decoder.tok_emb.weight", &[3, 2]),
        param("gate.fc2.bias", &[2]),
        param("loss.cpc_h_proj.0.weight", &[2, 2]),
    ];
    m.states = vec![state("s", &[2, 2], Some("gate.fc2.bias"))];
    model(&m, 1)
}

type Row<'a> = (&'a str, &'a [usize], &'a [f32]);

fn file(rows: &[Row]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = rows.iter().map(|r| r.2.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let entries: Vec<Entry> = rows
        .iter()
        .zip(&data)
        .map(|(r, data)| Entry { name: r.0.into(), dtype: DType::F32, shape: r.1, data })
        .collect();
    let mut out = vec![];
    write_safetensors(&mut out, &entries).unwrap();
    out
}

const EMB: Row = ("decoder.tok_emb.weight", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
const BIAS: Row = ("gate.fc2.bias", &[2], &[7.0, 8.0]);
const LOSS_HEAD: Row = ("loss.cpc_h_proj.0.weight", &[2, 2], &[0.0; 4]);
const HEAD: Row = ("lm_head.weight", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);

fn load_rows(rows: &[Row], purpose: Purpose) -> Result<Model, String> {
    let mut m = lolm();
    load_bytes(&mut m, &file(rows), Path::new("w.safetensors"), purpose).map_err(|e| e.to_string())?;
    Ok(m)
}

#[test]
fn weights_come_back_as_they_were_saved_and_start_the_states() {
    let folder = std::env::temp_dir().join(format!("lolm-weights-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut a = lolm();
    init(&mut a, 42);
    save(&a, &folder.join(FILE)).unwrap();
    let mut b = lolm();
    load(&mut b, &folder, Purpose::Training).unwrap();
    for slot in 0..3 {
        assert_eq!(a.params().raw(slot), b.params().raw(slot));
    }
    let bias = b.params().view::<f32>(1);
    assert_eq!(b.states().view::<f32>(0), [bias, bias].concat());
    let bytes = std::fs::read(folder.join(FILE)).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().names().len(), 3);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn heads_may_be_missing_or_tied() {
    for rows in [
        &[EMB, BIAS][..],
        &[HEAD, BIAS],
        &[EMB, HEAD, BIAS],
        &[EMB, BIAS, LOSS_HEAD],
        &[EMB, BIAS, ("loss.x", &[1], &[0.0])],
    ] {
        let m = load_rows(rows, Purpose::Inference).unwrap();
        assert_eq!(m.params().view::<f32>(0), EMB.2);
    }
    assert!(load_rows(&[EMB, BIAS, LOSS_HEAD], Purpose::Training).is_ok());
    let e = load_rows(&[EMB, BIAS], Purpose::Training).err().unwrap();
    assert!(e.ends_with("\n  missing: `loss.cpc_h_proj.0.weight` [2, 2]"), "{e}");
    let other = ("lm_head.weight", &[3, 2][..], &[9.0; 6][..]);
    let e = load_rows(&[EMB, other, BIAS], Purpose::Inference).err().unwrap();
    assert!(e.contains("`lm_head.weight` differs from `decoder.tok_emb.weight`"), "{e}");
}

#[test]
fn everything_wrong_is_said_at_once() {
    let e =
        load_rows(&[("decoder.tok_emb.weight", &[2, 3], EMB.2), ("gate.fc1.weight", &[1], &[0.0])], Purpose::Training);
    assert_eq!(
        e.err().unwrap(),
        "w.safetensors does not hold the weights of this model:\
         \n  wrong shape: `decoder.tok_emb.weight` is [2, 3], expected [3, 2]\
         \n  missing: `gate.fc2.bias` [2]\
         \n  missing: `loss.cpc_h_proj.0.weight` [2, 2]\
         \n  unexpected: `gate.fc1.weight` [1]"
    );
}

#[test]
fn half_precision_is_widened() {
    let (b, h) = ([0x3fc0u16, 0xc000].map(u16::to_le_bytes), [0x3e00u16, 0xc000].map(u16::to_le_bytes));
    for (name, bytes) in [("BF16", b.concat()), ("F16", h.concat())] {
        let data: Vec<u8> = EMB.2.iter().flat_map(|x| x.to_le_bytes()).chain(bytes).collect();
        let header = format!(
            r#"{{"decoder.tok_emb.weight":{{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}},"gate.fc2.bias":{{"dtype":"{name}","shape":[2],"data_offsets":[24,28]}}}}"#
        );
        let mut f = (header.len() as u64).to_le_bytes().to_vec();
        f.extend(header.bytes());
        f.extend(data);
        let mut m = lolm();
        load_bytes(&mut m, &f, Path::new("w"), Purpose::Inference).unwrap();
        assert_eq!(m.params().view::<f32>(1), [1.5, -2.0], "{name}");
    }
}

#[test]
fn damaged_files_are_errors_and_change_nothing() {
    let whole = file(&[EMB, BIAS]);
    for len in 0..whole.len() {
        let mut m = lolm();
        let e = load_bytes(&mut m, &whole[..len], Path::new("w"), Purpose::Inference).unwrap_err();
        assert!(e.to_string().starts_with("w is not a safetensors file: "), "{len}: {e}");
        assert!(m.params().view::<f32>(0).iter().all(|x| *x == 0.0));
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(load_bytes(&mut lolm(), &longer, Path::new("w"), Purpose::Inference).is_err());
    for at in 0..whole.len() - 32 {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x11;
        // Some damage leaves a valid file of other tensors; none may panic.
        let _ = load_bytes(&mut lolm(), &damaged, Path::new("w"), Purpose::Inference);
    }
}

/// A model with these parameters.
fn with_params(params: &[(&str, &[usize])]) -> Model {
    let mut m = manifest(vec![]);
    m.params = params.iter().map(|(name, shape)| param(name, shape)).collect();
    model(&m, 1)
}

#[test]
fn parameters_of_experts_are_published_one_by_one() {
    let params: [(&str, &[usize]); 2] = [("ff.experts.{}.w", &[3, 2]), ("a", &[1])];
    let mut m = with_params(&params);
    init(&mut m, 5);
    let mut out = vec![];
    write_weights(&mut out, m.params()).unwrap();
    let written = SafeTensors::deserialize(&out).unwrap();
    let names: std::collections::BTreeSet<_> = written.names().into_iter().collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "ff.experts.0.w", "ff.experts.1.w", "ff.experts.2.w"]);
    let mut back = with_params(&params);
    load_bytes(&mut back, &out, Path::new("w"), Purpose::Training).unwrap();
    assert_eq!(back.params().raw(0), m.params().raw(0));
    assert_eq!(back.params().raw(1), m.params().raw(1));
    let one: Row = ("ff.experts.1.w", &[2], &[0.0; 2]);
    let wrong: Row = ("ff.experts.2.w", &[1], &[0.0]);
    let more: Row = ("ff.experts.3.w", &[2], &[0.0; 2]);
    let e = load_bytes(&mut back, &file(&[one, wrong, more, ("a", &[1], &[0.0])]), Path::new("w"), Purpose::Inference);
    assert_eq!(
        e.unwrap_err().to_string(),
        "w does not hold the weights of this model:\
         \n  missing: `ff.experts.0.w` [2]\
         \n  wrong shape: `ff.experts.2.w` is [1], expected [2]\
         \n  unexpected: `ff.experts.3.w` [2]"
    );
}

#[test]
fn every_family_ties_its_head_and_an_untied_one_is_needed() {
    let x: [f32; 2] = [1.0, 2.0];
    let head: Row = ("lm_head.weight", &[2], &x);
    for name in ["model.embed_tokens.weight", "backbone.embeddings.weight", "decoder.tok_emb.weight", "embed.weight"] {
        let embedding: Row = (name, &[2], &x);
        for rows in [&[embedding][..], &[head], &[embedding, head]] {
            let mut m = with_params(&[(name, &[2])]);
            load_bytes(&mut m, &file(rows), Path::new("w"), Purpose::Training).unwrap();
            assert_eq!(m.params().view::<f32>(0), x);
        }
        let mut untied = with_params(&[(name, &[2]), ("lm_head.weight", &[2])]);
        let e = load_bytes(&mut untied, &file(&[head]), Path::new("w"), Purpose::Inference).unwrap_err();
        assert!(e.to_string().ends_with(&format!("\n  missing: `{name}` [2]")), "{e}");
    }
}

#[test]
fn other_implementations_names_and_derived_tensors_are_known() {
    let x: [f32; 2] = [1.0, 2.0];
    let theirs: Row = ("backbone.embedding.weight", &[2], &x);
    let mut m = with_params(&[("backbone.embeddings.weight", &[2])]);
    for rows in [&[theirs][..], &[theirs, ("lm_head.weight", &[2], &x)]] {
        load_bytes(&mut m, &file(rows), Path::new("w"), Purpose::Training).unwrap();
        assert_eq!(m.params().view::<f32>(0), x);
    }
    let other: Row = ("lm_head.weight", &[2], &[1.0, 3.0]);
    let e = load_bytes(&mut m, &file(&[theirs, other]), Path::new("w"), Purpose::Training).unwrap_err().to_string();
    assert!(e.contains("`lm_head.weight` differs from `backbone.embeddings.weight`"), "{e}");
    let ours: Row = ("backbone.embeddings.weight", &[2], &x);
    let e = load_bytes(&mut m, &file(&[theirs, ours]), Path::new("w"), Purpose::Training).unwrap_err().to_string();
    assert!(e.contains("unexpected: `backbone.embedding.weight` [2]"), "{e}");
    let derived: Row = ("model.layers.0.self_attn.rotary_emb.inv_freq", &[1], &[1.0]);
    load_bytes(&mut m, &file(&[ours, derived]), Path::new("w"), Purpose::Training).unwrap();
}

#[test]
fn long_lists_of_problems_are_cut() {
    let names: Vec<String> = (0..99).map(|i| format!("x{i}")).collect();
    let rows: Vec<Row> = names.iter().map(|n| (n.as_str(), &[1][..], &[0.0][..])).collect();
    let e = load_bytes(&mut with_params(&[]), &file(&rows), Path::new("w"), Purpose::Training).unwrap_err().to_string();
    assert!(e.lines().count() == 42 && e.ends_with("and 59 more"), "{e}");
}
