//! Small graphs with the contents of their leaves.
use lolm_ir::graph::{Builder, Dim};
use lolm_ir::interp::{Feeds, run};
use lolm_ir::{AxisId, DType, ValueId, philox};

/// Dims of one axis each.
pub fn dims(axes: &[AxisId]) -> Vec<Dim> {
    axes.iter().map(|a| vec![*a]).collect()
}

pub fn feed(name: &str, data: &[f64]) -> (String, Vec<f64>) {
    (name.into(), data.to_vec())
}

/// A graph in the making, and its feeds.
pub struct Case {
    pub b: Builder,
    pub feeds: Feeds,
}

impl Case {
    pub fn new() -> Case {
        Case { b: Builder::new("case"), feeds: Feeds::new() }
    }
    /// An input, row-major over `axes`.
    pub fn input(&mut self, name: &str, dtype: DType, axes: &[AxisId], data: &[f64]) -> ValueId {
        self.feeds.insert(name.into(), data.to_vec());
        self.b.input(name, dtype, &dims(axes))
    }
    pub fn f32(&mut self, name: &str, axes: &[AxisId], data: &[f64]) -> ValueId {
        self.input(name, DType::F32, axes, data)
    }
    /// An input of numbers in [lo, hi), different for every name and the same in every run.
    pub fn random(&mut self, name: &str, axes: &[AxisId], lo: f64, hi: f64) -> ValueId {
        self.random_of(name, DType::F32, axes, lo, hi)
    }
    pub fn random_of(&mut self, name: &str, dtype: DType, axes: &[AxisId], lo: f64, hi: f64) -> ValueId {
        let n: usize = axes.iter().map(|a| self.b.graph().len(*a)).product();
        let seed = name.bytes().fold(7u32, |h, c| h.wrapping_mul(31).wrapping_add(c as u32));
        let draw = |i: usize| lo + (hi - lo) * philox::uniform(seed, 0, 0, i as u64) as f64;
        let round = |x: f64| if dtype == DType::I32 { x.floor() } else { x };
        let data: Vec<f64> = (0..n).map(|i| round(draw(i))).collect();
        self.input(name, dtype, axes, &data)
    }
    /// All results of a value as outputs `name.0`, `name.1`, ….
    pub fn output(&mut self, name: &str, v: ValueId) {
        for i in 0..self.b.graph().node(v).types.len() {
            let several = self.b.graph().node(v).types.len() > 1;
            let part = if several { self.b.part(v, i) } else { v };
            let axes: Vec<AxisId> = self.b.graph().axes_of(part).iter().collect();
            self.b.output(&format!("{name}.{i}"), part, &dims(&axes));
        }
    }
    /// Result `i` of `v`, row-major over `axes`.
    pub fn value(self, v: ValueId, i: usize, axes: &[AxisId]) -> Vec<f64> {
        let Case { mut b, feeds } = self;
        let v = if b.graph().node(v).types.len() > 1 { b.part(v, i) } else { v };
        b.output("y", v, &dims(axes));
        run(&b.finish().unwrap(), &feeds).unwrap().outputs.remove("y").unwrap()
    }
}
