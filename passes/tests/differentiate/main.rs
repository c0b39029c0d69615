//! Gradients against central finite differences in the f64 interpreter.
use lolm_ir::AxisId;
use lolm_ir::dtype::DType;
use lolm_ir::expand::expand;
use lolm_ir::graph::{Builder, Dim, Graph, Init, LeafId, LeafKind, ValueId};
use lolm_ir::interp::{self, Feeds};
use lolm_ir::text::print;
use lolm_passes::differentiate::{Gradients, differentiate};

mod compositions;
mod fused;
mod small;
mod structure;

/// A tensor under test: what its parameters range over, what its integer inputs hold, and how it is built.
pub struct Case {
    pub name: &'static str,
    pub range: (f64, f64),
    pub feeds: &'static [(&'static str, &'static [f64])],
    pub build: fn(&mut Builder) -> ValueId,
}

pub const PLAIN: (f64, f64) = (-1.0, 1.0);
pub const POSITIVE: (f64, f64) = (0.4, 1.6);

pub fn case(name: &'static str, build: fn(&mut Builder) -> ValueId) -> Case {
    Case { name, range: PLAIN, feeds: &[], build }
}

/// A parameter stored one axis a dimension.
pub fn param(b: &mut Builder, name: &str, axes: &[AxisId]) -> ValueId {
    b.param(name, Init::Zeros, &dims(axes))
}
pub fn input(b: &mut Builder, name: &str, axes: &[AxisId]) -> ValueId {
    b.input(name, DType::F32, &dims(axes))
}
pub fn indices(b: &mut Builder, name: &str, axes: &[AxisId]) -> ValueId {
    b.input(name, DType::I32, &dims(axes))
}
pub fn dims(axes: &[AxisId]) -> Vec<Dim> {
    axes.iter().map(|a| vec![*a]).collect()
}

/// Numbers in (lo, hi) that depend on a name: the same in every run, and different for every tensor.
pub fn numbers(name: &str, n: usize, (lo, hi): (f64, f64)) -> Vec<f64> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |h, c| (h ^ c as u64).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        lo + (hi - lo) * ((state >> 11) as f64 / (1u64 << 53) as f64)
    };
    (0..n).map(|_| next()).collect()
}

/// Every float leaf that the case does not feed, filled with numbers of its range.
pub fn feeds(g: &Graph, range: (f64, f64), given: &[(&str, &[f64])]) -> Feeds {
    let given = |name: &str| given.iter().find(|(n, _)| *n == name).map(|(_, x)| x.to_vec());
    let leaves = g.leaves.iter().filter(|l| !matches!(l.kind, LeafKind::Table(_)));
    let fill = |l: &lolm_ir::Leaf| numbers(&l.name, l.shape(g).iter().product(), range);
    leaves.map(|l| (l.name.clone(), given(&l.name).unwrap_or_else(|| fill(l)))).collect()
}

pub fn params(g: &Graph) -> Vec<LeafId> {
    let is_param = |l: &LeafId| matches!(g.leaf(*l).kind, LeafKind::Param(_));
    (0..g.leaves.len() as u32).map(LeafId).filter(is_param).collect()
}

/// The loss Σ y·weight, or Σ y, whose adjoint is one number for all elements.
fn loss_of(b: &mut Builder, y: ValueId, weighted: bool) -> ValueId {
    let axes: Vec<AxisId> = b.graph().axes_of(y).iter().collect();
    let y = if weighted {
        let w = input(b, "loss.weight", &axes);
        b.mul(y, w)
    } else {
        b.scale(y, 0.75)
    };
    if axes.is_empty() { y } else { b.sum(&axes, y) }
}

/// Checks a case under both losses.
pub fn check(c: &Case) {
    for weighted in [true, false] {
        let mut b = Builder::new(c.name);
        let y = (c.build)(&mut b);
        let loss = loss_of(&mut b, y, weighted);
        b.output("loss", loss, &[]);
        let g = b.finish().unwrap_or_else(|e| panic!("{}: {e}", c.name));
        let feeds = feeds(&g, c.range, c.feeds);
        check_graph(&g, loss, &feeds, 1e-6);
        check_expansion(&g, loss, &feeds);
    }
}

/// The gradient of a fused operation is the gradient of its expansion.
pub fn check_expansion(g: &Graph, loss: ValueId, feeds: &Feeds) {
    let wrt = params(g);
    let small = expand(g, &|_| true).unwrap();
    let small_loss = small.find_output("loss").unwrap().value;
    let fused = gradients(&differentiate(g, loss, &wrt).unwrap(), feeds);
    let expanded = gradients(&differentiate(&small, small_loss, &wrt).unwrap(), feeds);
    assert_same(&g.name, &fused, &expanded);
}

/// Two gradients are the same but for constants in f32, measured by the norm over all parameters.
pub fn assert_same(name: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    let (found, expected) = (found.concat(), expected.concat());
    let error = distance(&found, &expected) / (norm(&expected) + 1e-2);
    assert!(error < 1e-6, "{name}: two forms have gradients that differ by {error:.1e}\n{found:?}\n{expected:?}");
}

/// Checks the gradient of every parameter of a graph against finite differences.
pub fn check_graph(g: &Graph, loss: ValueId, feeds: &Feeds, tolerance: f64) {
    let wrt = params(g);
    let found = differentiate(g, loss, &wrt).unwrap_or_else(|e| panic!("{}: {e}", g.name));
    assert_eq!(found.graph.nodes[..g.nodes.len()], g.nodes, "{}: the forward pass was changed", g.name);
    for (leaf, grad) in wrt.iter().zip(gradients(&found, feeds)) {
        let name = &g.leaf(*leaf).name;
        let expected = numeric(g, loss, feeds, name);
        let error = distance(&grad, &expected) / (norm(&expected) + 1e-2);
        assert!(error < tolerance, "{}: d {name} is off by {error:.1e}\n{grad:?}\n{expected:?}\n{}", g.name, print(g));
    }
}

/// The values of all gradients, row-major over the leaf's dims.
pub fn gradients(found: &Gradients, feeds: &Feeds) -> Vec<Vec<f64>> {
    let wrt = params(&found.graph);
    let exposed = lolm_passes::optimizer::expose_gradients(found.clone(), &wrt).unwrap();
    let mut results = interp::run(&exposed, feeds).unwrap();
    wrt.iter().map(|l| results.outputs.remove(&format!("grad.{}", exposed.leaf(*l).name)).unwrap()).collect()
}

pub fn value(g: &Graph, v: ValueId, feeds: &Feeds) -> f64 {
    interp::values(g, feeds).unwrap()[v.0 as usize][0].data[0]
}

fn numeric(g: &Graph, loss: ValueId, feeds: &Feeds, name: &str) -> Vec<f64> {
    const H: f64 = 1e-5;
    let at = |i: usize, h: f64| {
        let mut moved = feeds.clone();
        moved.get_mut(name).unwrap()[i] += h;
        value(g, loss, &moved)
    };
    (0..feeds[name].len()).map(|i| (at(i, H) - at(i, -H)) / (2.0 * H)).collect()
}

pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}
pub fn distance(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    norm(&x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<_>>())
}
