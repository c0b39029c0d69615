//! Names of parameters and of the tensors that stand for them in files.
//!
//! A parameter is published under its own name but for two cases. One whose name holds `{}` stands for a tensor for each
//! index of its first dimension, as experts are published. And an output head that is tied to the embedding may be
//! published beside it, or in its stead; so may an embedding under the name of another implementation.
use std::ops::Range;

/// What an index stands for in a name.
const EACH: &str = "{}";

/// Names under which a tied output head is published, each with the embedding that it stands for.
const TIED_HEADS: [(&str, &str); 4] = [
    ("lm_head.weight", "decoder.tok_emb.weight"),
    ("lm_head.weight", "model.embed_tokens.weight"),
    ("lm_head.weight", "backbone.embeddings.weight"),
    ("lm_head.weight", "embed.weight"),
];

/// Names of other implementations, each with ours.
const ALIASES: [(&str, &str); 1] = [("backbone.embedding.weight", "backbone.embeddings.weight")];

/// Tensors that follow from the configuration, which old checkpoints hold nevertheless.
const DERIVED: [&str; 1] = [".rotary_emb.inv_freq"];

/// A tensor in a file, and which elements of the parameter it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published<'a> {
    pub name: String,
    pub shape: &'a [usize],
    pub elements: Range<usize>,
}

/// The tensors that a parameter of this name and shape is published as.
pub fn published<'a>(name: &str, shape: &'a [usize]) -> Vec<Published<'a>> {
    let len = |shape: &[usize]| shape.iter().product::<usize>();
    let (Some((before, after)), Some((n, part))) = (name.split_once(EACH), shape.split_first()) else {
        return vec![Published { name: name.into(), shape, elements: 0..len(shape) }];
    };
    let len = len(part);
    let one =
        |i: usize| Published { name: format!("{before}{i}{after}"), shape: part, elements: i * len..(i + 1) * len };
    (0..*n).map(one).collect()
}

/// Other names under which a tensor may be published: of another implementation, and of the head that is tied to it.
pub fn others(name: &str) -> impl Iterator<Item = &'static str> {
    ALIASES.iter().chain(&TIED_HEADS).filter(move |(_, ours)| *ours == name).map(|(theirs, _)| *theirs)
}

/// The embeddings that a head of this name may be tied to.
pub fn embeddings(head: &str) -> impl Iterator<Item = &'static str> {
    TIED_HEADS.iter().filter(move |(h, _)| *h == head).map(|(_, embedding)| *embedding)
}

/// The name that we have for a tensor of another implementation.
pub fn ours(name: &str) -> &str {
    ALIASES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours)
}

/// True if a file may hold a tensor of this name although no model has it.
pub fn is_derived(name: &str) -> bool {
    DERIVED.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_are_published_one_by_one() {
        let all = published("a.{}.w", &[3, 2, 4]);
        let names: Vec<(&str, &[usize], Range<usize>)> =
            all.iter().map(|p| (p.name.as_str(), p.shape, p.elements.clone())).collect();
        assert_eq!(names, [("a.0.w", &[2, 4][..], 0..8), ("a.1.w", &[2, 4], 8..16), ("a.2.w", &[2, 4], 16..24)]);
        assert_eq!(published("w", &[3, 2]), [Published { name: "w".into(), shape: &[3, 2], elements: 0..6 }]);
        assert_eq!(published("w", &[])[0].elements, 0..1);
    }
}
