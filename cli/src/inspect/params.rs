//! Parameters by part of the model, counted from their shapes; no weights are allocated.
use crate::output::grouped;
use crate::table::Table;
use serde::Serialize;

/// Parameters of a model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Parameters {
    /// The published count: without the heads of the losses.
    pub total: u64,
    /// What only training needs: the heads of the losses.
    pub loss_heads: u64,
    pub parts: Vec<Part>,
}

/// The parameters under one name, layers and banks together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Part {
    pub part: String,
    pub tensors: u64,
    pub parameters: u64,
}

impl Parameters {
    /// Counts tensors by name and shape.
    pub fn of<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> Self {
        let mut out = Parameters { total: 0, loss_heads: 0, parts: vec![] };
        for (name, shape) in tensors {
            let n: u64 = shape.iter().map(|d| *d as u64).product();
            *(if name.starts_with("loss.") { &mut out.loss_heads } else { &mut out.total }) += n;
            let part = part_of(name);
            match out.parts.iter_mut().find(|p| p.part == part) {
                Some(p) => (p.tensors, p.parameters) = (p.tensors + 1, p.parameters + n),
                None => out.parts.push(Part { part, tensors: 1, parameters: n }),
            }
        }
        out
    }

    pub fn show(&self) -> String {
        let mut t = Table::new(&["part", ">tensors", ">parameters", ">share"]);
        for p in &self.parts {
            let share = match p.part.starts_with("loss.") {
                true => "-".into(),
                false => format!("{:.1} %", 100.0 * p.parameters as f64 / self.total.max(1) as f64),
            };
            t.row(&[p.part.clone(), p.tensors.to_string(), grouped(p.parameters), share]);
        }
        let heads = match self.loss_heads {
            0 => String::new(),
            n => format!(" and {} in the heads of the losses, which only training needs", grouped(n)),
        };
        format!("{t}\n{} parameters{heads}\n", grouped(self.total))
    }
}

/// `decoder.layers.*.attn` of `decoder.layers.3.attn.wq.weight`: numbers are one, and the tensor's own name is left out.
fn part_of(name: &str) -> String {
    let mut words: Vec<&str> = name.split('.').collect();
    if matches!(words.last(), Some(&"weight" | &"bias")) {
        words.pop();
    }
    let layered = words.iter().any(|w| is_number(w));
    words.truncate(if layered { 4 } else { 2 });
    words.iter().map(|w| if is_number(w) { "*" } else { w }).collect::<Vec<_>>().join(".")
}

fn is_number(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_layers() {
        assert_eq!(part_of("decoder.layers.3.attn.wq.weight"), "decoder.layers.*.attn");
        assert_eq!(part_of("decoder.tok_emb.weight"), "decoder.tok_emb");
        assert_eq!(part_of("gate.fc2.bias"), "gate.fc2");
        assert_eq!(part_of("memory.banks.0.init_memory"), "memory.banks.*.init_memory");
    }

    #[test]
    fn heads_of_losses_are_counted_apart() {
        let (a, b): (&[usize], &[usize]) = (&[2, 3], &[5]);
        let p = Parameters::of([("a.0.weight", a), ("a.1.weight", a), ("loss.x.0.weight", b)].into_iter());
        assert_eq!((p.total, p.loss_heads, p.parts[0].tensors), (12, 5, 2));
    }
}
