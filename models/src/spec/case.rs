//! A golden case in the form of a spec.
use super::hf;
use super::reader::{Result, Section};
use super::source::{Entry, Node, Value};

/// `config` at the top, `loss` beside it if the family has one, `optim` as optimizer and step count. The other keys of a
/// case hold results, not the model.
pub fn as_spec(case: Node) -> Result<Node> {
    const CASE: &[&str] = &["kind", "config", "tau", "loss", "optim", "batch", "seq"];
    const RESULTS: &[&str] = &["losses", "grad_norm", "trajectory"];
    let s = Section::open("", case.clone(), &[CASE, RESULTS].concat())?;
    let take = |key: &str| s.find(key).cloned().map_or_else(|| s.refuse(key, "a part of a golden case"), Ok);
    let entry = |key: &str, node: Node| Entry { key: key.into(), place: node.place.clone(), node };
    let table = |entries: Vec<Entry>| Node { place: case.place.clone(), value: Value::Table(entries) };
    let entries_of = |node: Node, key: &str| match node.value {
        Value::Table(entries) => Ok(entries),
        _ => s.refuse(key, "a table"),
    };
    let kind = take("kind")?;
    let mut top = match &kind.value {
        Value::Text(k) if k != "lolm" => entries_of(hf::dimensions(k, take("config")?, &[])?, "config")?,
        _ => {
            let mut top = entries_of(take("config")?, "config")?;
            if !is_on(&top, "ssm") {
                switch_off(&mut top, "gate");
            }
            top.push(entry("loss", take("loss")?));
            top
        }
    };
    let (steps, optim): (Vec<Entry>, Vec<Entry>) =
        entries_of(take("optim")?, "optim")?.into_iter().partition(|e| e.key == "steps");
    let run = [steps, vec![entry("batch", take("batch")?), entry("seq", take("seq")?)]].concat();
    let bytes = Node { place: case.place.clone(), value: Value::Text("bytes".into()) };
    top.push(entry("kind", kind));
    top.push(entry("tokenizer", bytes));
    top.push(entry("optimizer", table(optim)));
    top.push(entry("training", table(run)));
    Ok(table(top))
}

fn is_on(top: &[Entry], part: &str) -> bool {
    let table = top.iter().find(|e| e.key == part).map(|e| &e.node.value);
    match table {
        Some(Value::Table(keys)) => {
            !keys.iter().any(|k| k.key == "enabled" && matches!(k.node.value, Value::Flag(false)))
        }
        _ => false,
    }
}

/// The published code has no gate without a latent path to mix in, whatever its configuration says.
fn switch_off(top: &mut [Entry], part: &str) {
    for e in top.iter_mut().filter(|e| e.key == part) {
        if let Value::Table(keys) = &mut e.node.value {
            keys.iter_mut().filter(|k| k.key == "enabled").for_each(|k| k.node.value = Value::Flag(false));
        }
    }
}
