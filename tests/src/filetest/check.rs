//! What a filetest holds its stages to: the interpreter's answers on random contents.
use super::{FileTest, Stage};
use crate::{machine, plan_interp};
use lolm_ir::arbitrary;
use lolm_ir::graph::LeafKind;
use lolm_ir::interp::{Feeds, Results, run};
use lolm_ir::plan::Module;
use lolm_ir::{Graph, LeafId, philox};

/// Half the distance of the two points of a difference, and the error it may have.
const STEP: f64 = 1e-5;
const DIFFERENCE: f64 = 1e-6;
/// The error of machine code, which computes in f32.
const F32: f64 = 1e-5;

impl FileTest {
    /// Outputs and writes stay after a stage; gradients are those of differences.
    pub(super) fn check_graph(&self, stage: Stage, after: &Graph) -> Result<(), String> {
        let Some((seed, tolerance)) = self.run else { return Ok(()) };
        let feeds = feeds(&self.graph, seed);
        let (before, now) = (answers(&self.graph, &feeds)?, answers(after, &feeds)?);
        compare(&before, &now, tolerance)?;
        match stage {
            Stage::Differentiate => self.check_gradients(&feeds, &now, seed),
            Stage::Print | Stage::Canonicalize | Stage::Raise | Stage::Rewrite => Ok(()),
            Stage::Expand | Stage::Kernels | Stage::Plan | Stage::Schedule | Stage::Clif => Ok(()),
        }
    }

    /// The plan, run by its interpreter, gives what the graph gives.
    pub(super) fn check_plan(&self, m: &Module) -> Result<(), String> {
        let Some((seed, tolerance)) = self.run else { return Ok(()) };
        let g = self.aimed(self.goal)?;
        let feeds = feeds(&g, seed);
        let before = answers(&g, &feeds)?;
        let (outputs, memory) = plan_interp::run(m, &m.plans[0], &feeds);
        let writes = memory.into_iter().filter(|(name, _)| before.writes.contains_key(name)).collect();
        compare(&before, &Results { outputs, writes }, tolerance)
    }

    /// The program as machine code, on one thread and on three, gives what the graph gives, to the digits of f32.
    pub(super) fn check_machine(&self, m: &Module) -> Result<(), String> {
        let Some((seed, _)) = self.run else { return Ok(()) };
        let g = self.aimed(self.goal)?;
        let feeds = feeds(&g, seed);
        let before = answers(&g, &feeds)?;
        for threads in [1, 3] {
            let (outputs, memory) = machine::run(m, &feeds, threads)?;
            let writes = memory.into_iter().filter(|(name, _)| before.writes.contains_key(name)).collect();
            compare(&before, &Results { outputs, writes }, F32)?;
        }
        Ok(())
    }

    /// The derivative along a random direction of every parameter.
    fn check_gradients(&self, feeds: &Feeds, now: &Results, seed: u32) -> Result<(), String> {
        let (_, params) = self.trained()?;
        for p in params {
            let name = &self.graph.leaf(p).name;
            let way = direction(&self.graph, p, seed);
            let at = |h: f64| -> Result<f64, String> {
                let mut moved = feeds.clone();
                let x = moved.get_mut(name).ok_or("bug: a parameter without contents")?;
                x.iter_mut().zip(&way).for_each(|(x, d)| *x += h * d);
                Ok(answers(&self.graph, &moved)?.outputs["loss.total"][0])
            };
            let slope = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let gradient = &now.outputs[&format!("grad.{name}")];
            let found: f64 = gradient.iter().zip(&way).map(|(g, d)| g * d).sum();
            let apart = (slope - found).abs();
            if apart.is_nan() || apart > DIFFERENCE * (1.0 + slope.abs()) {
                return Err(format!("the gradient of {name} gives a slope of {found}, a difference gives {slope}"));
            }
        }
        Ok(())
    }
}

/// Random contents. The optimizer's state is one that it could have left: second moments are positive.
fn feeds(g: &Graph, seed: u32) -> Feeds {
    let mut feeds = arbitrary::feeds(g, seed);
    for (name, x) in feeds.iter_mut().filter(|(name, _)| name.starts_with("adam.v.")) {
        x.iter_mut().for_each(|x| *x = *x * *x);
        assert!(g.leaves.iter().any(|l| l.name == *name && matches!(l.kind, LeafKind::State { .. })));
    }
    feeds.entry("adam.step".into()).and_modify(|x| *x = vec![3.0]);
    feeds
}

fn direction(g: &Graph, leaf: LeafId, seed: u32) -> Vec<f64> {
    let n: usize = g.leaf(leaf).shape(g).iter().product();
    (0..n).map(|i| 2.0 * philox::uniform(!seed, leaf.0, 0, i as u64) as f64 - 1.0).collect()
}

fn answers(g: &Graph, feeds: &Feeds) -> Result<Results, String> {
    run(g, feeds).map_err(|e| e.to_string())
}

/// Everything that was there before is there now, and the same.
fn compare(before: &Results, now: &Results, tolerance: f64) -> Result<(), String> {
    for (then, now) in [(&before.outputs, &now.outputs), (&before.writes, &now.writes)] {
        for (name, then) in then {
            let now = now.get(name).ok_or(format!("`{name}` is gone"))?;
            if then.len() != now.len() {
                return Err(format!("`{name}` had {} elements and has {}", then.len(), now.len()));
            }
            for (i, (x, y)) in then.iter().zip(now).enumerate() {
                let same = x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * (1.0 + x.abs());
                if !same {
                    return Err(format!("element {i} of `{name}` was {x} and is {y}"));
                }
            }
        }
    }
    Ok(())
}
