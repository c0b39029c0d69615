//! Files that fit, files that do not, and what is said about those.
use super::*;
use crate::testing::{manifest, model, param, state};
use lolm_ir::DType;

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
