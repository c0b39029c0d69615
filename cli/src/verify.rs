//! Golden cases: what is in their folder, what we make of it, and how far the two are apart.
//!
//! Every tensor of the case must have a counterpart among ours and every one of ours among the case's, and a number that is
//! not finite is wrong whatever it is compared with.
mod case;
mod run;

pub use case::Case;
pub use run::run;

use crate::table::Table;
use lolm_passes::pipeline::Precision;
use serde::Serialize;

/// How far from a case a program may be, by what it computes in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bounds {
    pub output: f64,
    pub loss: f64,
    pub gradient: f64,
    /// Losses and norms of the steps of the optimizer.
    pub step: f64,
}

impl Bounds {
    /// Gradients of bf16 products are noisy, and what they are is a matter of training, not of a tensor.
    pub fn of(precision: Precision) -> Bounds {
        match precision {
            Precision::F32 => Bounds { output: 1e-4, loss: 1e-4, gradient: 1e-3, step: 1e-3 },
            Precision::Bf16 => Bounds { output: 2e-2, loss: 1e-2, gradient: 2e-1, step: 5e-2 },
        }
    }
}

/// One comparison.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// output, loss, gradient or step
    pub kind: &'static str,
    pub name: String,
    /// ‖ours - theirs‖ / ‖theirs‖, and ‖ours‖ where theirs is zero. Absent if there is nothing to compare.
    pub error: Option<f64>,
    pub bound: f64,
    pub ok: bool,
    /// What is wrong, where it is more than a distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// All comparisons of a case.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Results {
    pub case: String,
    pub rows: Vec<Row>,
}

impl Row {
    /// Compares two tensors.
    pub fn compare(kind: &'static str, name: &str, bound: f64, ours: Shaped, theirs: Shaped) -> Row {
        if ours.shape != theirs.shape || ours.data.len() != theirs.data.len() {
            return Row::fault(kind, name, bound, format!("its shape is {:?}, not {:?}", ours.shape, theirs.shape));
        }
        if let Some(x) = ours.data.iter().find(|x| !x.is_finite()) {
            return Row::fault(kind, name, bound, format!("it holds {x}"));
        }
        let error = distance(ours.data, theirs.data);
        Row { kind, name: name.into(), error: Some(error), bound, ok: error <= bound, fault: None }
    }

    /// Compares gradients. One that is zero but for the rounding of f64, beside the gradient of the whole model, is
    /// compared on that scale: how far two roundings of zero are apart says nothing.
    pub fn compare_gradient(name: &str, bound: f64, ours: Shaped, theirs: Shaped, whole: f64) -> Row {
        let mut row = Row::compare("gradient", name, bound, ours, theirs);
        if row.error.is_some() && whole > 0.0 && norm(theirs.data) <= 1e-12 * whole {
            let error = norm(ours.data) / whole;
            (row.error, row.bound, row.ok) = (Some(error), 1e-3 * bound, error <= 1e-3 * bound);
        }
        row
    }

    pub fn fault(kind: &'static str, name: &str, bound: f64, fault: impl Into<String>) -> Row {
        Row { kind, name: name.into(), error: None, bound, ok: false, fault: Some(fault.into()) }
    }
}

/// A tensor in f64.
#[derive(Clone, Copy, Debug)]
pub struct Shaped<'a> {
    pub shape: &'a [usize],
    pub data: &'a [f64],
}

/// ‖a - b‖ / ‖b‖, or ‖a‖ where b is zero. NaN if b is not finite, which is within no bound.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let apart: Vec<f64> = a.iter().zip(b).map(|(x, y)| x - y).collect();
    let (apart, size) = (norm(&apart), norm(b));
    if size == 0.0 { apart } else { apart / size }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

impl Results {
    pub fn wrong(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|r| !r.ok)
    }

    pub fn show(&self) -> String {
        let mut t = Table::new(&["what", "name", ">error", ">bound", ""]);
        for r in &self.rows {
            let verdict = match (&r.fault, r.ok) {
                (Some(fault), _) => format!("WRONG: {fault}"),
                (None, true) => "ok".into(),
                (None, false) => "WRONG".into(),
            };
            let error = r.error.map_or("-".into(), |e| format!("{e:.1e}"));
            t.row(&[r.kind.into(), r.name.clone(), error, format!("{:.0e}", r.bound), verdict]);
        }
        let worst = |kind: &str| {
            let errors = self.rows.iter().filter(|r| r.kind == kind).filter_map(|r| r.error);
            errors.fold(0.0, f64::max)
        };
        let kinds = ["output", "loss", "gradient", "step"].map(|k| format!("{k} {:.1e}", worst(k)));
        let right = self.rows.iter().filter(|r| r.ok).count();
        format!("{t}\n{}: {right} of {} are right; worst: {}\n", self.case, self.rows.len(), kinds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], theirs: &[f64]) -> Row {
        let (a, b) = ([ours.len()], [theirs.len()]);
        Row::compare("output", "x", 1e-4, Shaped { shape: &a, data: ours }, Shaped { shape: &b, data: theirs })
    }

    #[test]
    fn only_near_and_finite_numbers_are_right() {
        assert!(row(&[1.0, 2.0], &[1.0, 2.0001]).ok);
        assert!(!row(&[1.0, 2.0], &[1.0, 2.01]).ok);
        assert!(row(&[0.0], &[0.0]).ok && !row(&[0.1], &[0.0]).ok);
        for (a, b) in
            [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, f64::NAN), (1.0, f64::INFINITY), (f64::NAN, f64::NAN)]
        {
            assert!(!row(&[a], &[b]).ok, "{a} {b}");
        }
        assert!(row(&[1.0], &[1.0, 2.0]).fault.unwrap().contains("shape"));
    }

    #[test]
    fn roundings_of_zero_are_compared_with_the_whole_gradient() {
        let gradient = |ours: f64, theirs: f64, whole: f64| {
            let (ours, theirs) = ([ours], [theirs]);
            let shaped = |data| Shaped { shape: &[1], data };
            Row::compare_gradient("x", 1e-3, shaped(&ours), shaped(&theirs), whole).ok
        };
        assert!(gradient(1e-9, 1e-17, 4.0) && !gradient(1e-5, 1e-17, 4.0) && !gradient(f64::NAN, 1e-17, 4.0));
        assert!(!gradient(2e-9, 1e-9, 4.0), "a small gradient is a gradient");
        assert!(gradient(0.0, 0.0, 0.0));
    }
}
