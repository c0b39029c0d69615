//! Which tensor of the files goes where in a model; or everything that is wrong, at once.
use super::files::{Stored, WeightFiles};
use super::names::{Published, embeddings, is_derived, others, published};
use super::{LOSS, Purpose};
use safetensors::Dtype;
use std::collections::BTreeSet;
use std::ops::Range;

/// A tensor, by its position among the files' tensors, and the elements of a slot that it fills.
pub struct Assignment {
    pub tensor: usize,
    pub slot: usize,
    pub elements: Range<usize>,
}

struct Assigner<'a> {
    names: BTreeSet<&'a str>,
    files: &'a WeightFiles<'a>,
    used: Vec<bool>,
    assignments: Vec<Assignment>,
    problems: Vec<String>,
}

/// Finds a tensor for every part of every parameter, which come with their shapes in the order of their slots.
pub fn assign<'a>(
    params: impl Iterator<Item = (&'a str, &'a [usize])> + Clone,
    files: &'a WeightFiles,
    purpose: Purpose,
) -> Result<Vec<Assignment>, Vec<String>> {
    let (names, used) = (params.clone().map(|p| p.0).collect(), vec![false; files.len()]);
    let mut a = Assigner { names, files, used, assignments: vec![], problems: vec![] };
    for (slot, (name, shape)) in params.enumerate() {
        let may_lack = purpose == Purpose::Inference && name.starts_with(LOSS);
        published(name, shape).into_iter().for_each(|part| a.part(slot, part, may_lack));
    }
    a.left_over();
    if a.problems.is_empty() { Ok(a.assignments) } else { Err(a.problems) }
}

impl Assigner<'_> {
    fn part(&mut self, slot: usize, part: Published, may_lack: bool) {
        let Some(tensor) = self.find(&part.name) else {
            if !may_lack {
                self.problems.push(format!("missing: `{}` {:?}", part.name, part.shape));
            }
            return;
        };
        self.used[tensor] = true;
        let x = self.files.get(tensor);
        if x.shape != part.shape {
            self.problems.push(format!("wrong shape: `{}` is {:?}, expected {:?}", x.name, x.shape, part.shape));
        } else if !matches!(x.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            self.problems.push(format!("wrong dtype: `{}` is {:?}, expected F32, BF16 or F16", x.name, x.dtype));
        } else {
            self.assignments.push(Assignment { tensor, slot, elements: part.elements });
        }
    }

    /// The tensor of this name, or of another name for it that no parameter of the model has.
    fn find(&self, name: &str) -> Option<usize> {
        let other = |name: &&str| !self.names.contains(name);
        let also = || others(name).filter(other).find_map(|name| self.files.position(name));
        self.files.position(name).or_else(also)
    }

    /// Tensors that no parameter took: heads of losses, what follows from the configuration, and copies of the embedding.
    fn left_over(&mut self) {
        for i in (0..self.files.len()).filter(|i| !self.used[*i]) {
            let x = self.files.get(i);
            if x.name.starts_with(LOSS) || is_derived(x.name) {
                continue;
            }
            match embeddings(x.name).find(|e| self.names.contains(e)) {
                None => self.problems.push(format!("unexpected: `{}` {:?}", x.name, x.shape)),
                Some(e) => self.problems.extend(self.differs(x, e)),
            }
        }
    }

    /// What is wrong with a head that stands beside the embedding that it is tied to.
    fn differs(&self, head: Stored, embedding: &str) -> Option<String> {
        let e = self.files.get(self.find(embedding)?);
        let same = e.dtype == head.dtype && e.data == head.data;
        (!same).then(|| format!("`{}` differs from `{embedding}`, but this model's head is tied to it", head.name))
    }
}
