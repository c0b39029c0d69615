//! Mixtures of experts, all the way down: what the plan and the machine compute is what the graph says, however unevenly
//! the tokens are spread.
use lolm_ir::graph::{Builder, Init, LeafKind};
use lolm_ir::interp::{self, Feeds};
use lolm_ir::plan::{Module, Stage, Step};
use lolm_ir::{DType, Graph, philox};
use lolm_models::blocks::{ExpertAxes, Experts, moe};
use lolm_passes::pipeline::{Goal, Moment, Options, Phase, Precision, Source, Target, compile, compile_with};
use lolm_passes::raise::raise;
use lolm_tests::plan_interp::Named;
use lolm_tests::{machine, plan_interp};
use std::sync::Arc;

/// The shape of a layer.
#[derive(Clone, Copy, Debug)]
struct Layer {
    tokens: usize,
    d: usize,
    f: usize,
    experts: usize,
    k: usize,
}

const SMALL: Layer = Layer { tokens: 7, d: 6, f: 10, experts: 4, k: 2 };

impl Layer {
    /// The layer of x `[b, t, d]` with Σ y · along as its loss.
    fn graph(self, renormalise: bool) -> Graph {
        let mut b = Builder::new("layer");
        let [bt, t, d, f] = [("b", 1), ("t", self.tokens), ("d", self.d), ("f", self.f)].map(|(n, l)| b.axis(n, l));
        let (expert, k) = (b.axis("e", self.experts), b.axis("k", self.k));
        let normal = Init::Normal(0.02);
        let dims = |axes: &[lolm_ir::AxisId]| axes.iter().map(|a| vec![*a]).collect::<Vec<_>>();
        let x = b.param("x", normal, &dims(&[bt, t, d]));
        let w = Experts {
            router: b.param("router", normal, &dims(&[expert, d])),
            gate: b.param("gate", normal, &dims(&[expert, f, d])),
            up: b.param("up", normal, &dims(&[expert, f, d])),
            down: b.param("down", normal, &dims(&[expert, d, f])),
        };
        let y = moe(&mut b, ExpertAxes { d, f, expert, k }, x, w, renormalise); // [b, t, d]
        let along = b.input("along", DType::F32, &dims(&[bt, t, d]));
        let loss = b.dot(&[bt, t, d], y, along);
        b.output("y", y, &dims(&[bt, t, d]));
        b.output("loss.total", loss, &[]);
        b.finish().unwrap()
    }

    /// The compiled layer; without gradients, x is an input, as activations are.
    fn module(self, goal: Goal) -> Module {
        let mut graph = self.graph(false);
        for x in Arc::make_mut(&mut graph.leaves).iter_mut().filter(|l| l.name == "x" && goal == Goal::Forward) {
            x.kind = LeafKind::Input;
        }
        compile(&[Source { graph, goal }], &|_, _| ()).unwrap()
    }
}

/// Contents of all leaves, the same in every run: activations around one, weights that keep the output so.
fn feeds(g: &Graph) -> Feeds {
    let leaf = |(i, l): (usize, &lolm_ir::Leaf)| {
        let n: usize = l.shape(g).iter().product();
        let scale = if l.dims.len() == 3 && l.name != "x" && l.name != "along" { 0.3 } else { 1.0 };
        let draw = |j: usize| scale * (2.0 * philox::uniform(5, i as u32, 0, j as u64) as f64 - 1.0);
        (l.name.clone(), (0..n).map(draw).collect())
    };
    g.leaves.iter().enumerate().map(leaf).collect()
}

/// The greatest difference, of the greatest element.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let size = b.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    let difference = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() / size };
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(difference).fold(0.0, f64::max)
}

fn compare(layer: Layer, what: &str, found: &Named, expected: &Named, tolerance: f64) {
    for (name, want) in expected {
        let error = apart(&found[name], want);
        assert!(error <= tolerance, "{layer:?}, {what}: {name} is off by {error:.1e}");
    }
}

/// The outputs of the graph with the goal's backward pass, by the interpreter, by the plan's, and by the machine.
fn agree(layer: Layer, goal: Goal, feeds: &Feeds) -> Named {
    let fused = std::sync::Mutex::new(None);
    let source = Source { graph: layer.graph(false), goal };
    let m = compile(&[source], &|_, moment| {
        if let Moment::Graph(Phase::Graph | Phase::Differentiate, g) = moment {
            *fused.lock().unwrap() = Some(g.clone());
        }
    });
    let (m, g) = (m.unwrap(), fused.into_inner().unwrap().unwrap());
    let expected = interp::run(&g, feeds).unwrap().outputs;
    let planned = plan_interp::run(&m, &m.plans[0], feeds).0;
    compare(layer, "plan", &planned, &expected, 1e-9);
    for threads in [1, 3] {
        let found = machine::run(&m, feeds, threads).unwrap().0;
        compare(layer, "machine", &found, &expected, 2e-5);
    }
    expected
}

/// The same programs for a GPU, where rows are sorted by expert, by the plan's interpreter and by the emulator.
fn agree_on_a_gpu(layer: Layer, goal: Goal, feeds: &Feeds, expected: &Named) -> Module {
    let source = Source { graph: layer.graph(false), goal };
    let options = Options { target: Target::Gpu, ..Options::default() };
    let m = compile_with(&[source], options, &|_, _| ()).unwrap();
    let planned = plan_interp::run(&m, &m.plans[0], feeds).0;
    compare(layer, "plan for a GPU", &planned, expected, 1e-9);
    let found = machine::run_emulated(&m, feeds).unwrap_or_else(|e| panic!("{layer:?}: {e}")).0;
    compare(layer, "emulator", &found, expected, 2e-5);
    m
}

/// Few rows find their experts one by one, many are sorted: a token has the same bits either way.
#[test]
fn few_rows_on_a_gpu_have_the_bits_of_many() {
    let many = Layer { tokens: 40, d: 48, f: 64, experts: 4, k: 2 };
    let few = Layer { tokens: 3, ..many };
    for precision in [Precision::F32, Precision::Bf16] {
        let module = |layer: Layer| {
            let source = Source { graph: layer.graph(false), goal: Goal::Forward };
            compile_with(&[source], Options { target: Target::Gpu, precision, ..Options::default() }, &|_, _| ())
                .unwrap()
        };
        let (sorted, single) = (module(many), module(few));
        assert!(sorted.plans[0].steps.len() > single.plans[0].steps.len() + 2, "no rows are sorted");
        let feeds = feeds(&many.graph(false));
        let whole = machine::run_emulated(&sorted, &feeds).unwrap().0;
        for first in [0, 17, 37] {
            let mut part = feeds.clone();
            for name in ["x", "along"] {
                part.insert(name.into(), feeds[name][first * many.d..][..few.tokens * few.d].to_vec());
            }
            let found = machine::run_emulated(&single, &part).unwrap().0;
            assert_eq!(found["y"], whole["y"][first * many.d..][..few.tokens * few.d], "{precision:?}, token {first}");
        }
    }
}

/// Few rows, more than fit a tile, and experts that get none; short products and such that are made by tiles.
#[test]
fn rows_are_sorted_by_expert_on_a_gpu() {
    let layers = [
        SMALL,
        Layer { tokens: 1, ..SMALL },
        Layer { tokens: 33, d: 36, f: 40, experts: 3, k: 1 },
        Layer { tokens: 70, d: 40, f: 36, experts: 5, k: 2 },
    ];
    for layer in layers {
        let feeds = feeds(&layer.graph(false));
        for goal in [Goal::Forward, Goal::Gradients] {
            let expected = agree(layer, goal, &feeds);
            agree_on_a_gpu(layer, goal, &feeds, &expected);
        }
    }
    let m = agree_on_a_gpu(layers[3], Goal::Gradients, &feeds(&layers[3].graph(false)), &Named::new());
    let tiles = m.kernels.iter().filter(|k| k.name.starts_with("routed_dot") || k.name.starts_with("routed_sums_of"));
    for k in tiles {
        assert_eq!(lolm_codegen::claim(k, "k").unwrap().generator, "contract", "{k}");
    }
}

#[test]
fn uneven_shapes() {
    for experts in [3, 4, 8, 16] {
        for k in [1, 2, 3, experts] {
            for tokens in [1, 7, 64] {
                let layer = Layer { tokens, d: 5, f: 6, experts, k };
                agree(layer, Goal::Forward, &feeds(&layer.graph(false)));
            }
        }
    }
}

#[test]
fn gradients_of_uneven_shapes() {
    for (experts, k, tokens) in [(3, 1, 7), (4, 2, 64), (8, 3, 7), (16, 2, 1), (3, 3, 7)] {
        let layer = Layer { tokens, d: 5, f: 6, experts, k };
        agree(layer, Goal::Gradients, &feeds(&layer.graph(false)));
    }
}

/// The gradient along a random direction of each parameter, the router's included.
#[test]
fn gradients_are_slopes() {
    for renormalise in [false, true] {
        let g = SMALL.graph(renormalise);
        let m = lolm_passes::pipeline::graph_passes(
            &Source { graph: g.clone(), goal: Goal::Gradients },
            Options::default(),
            &mut |_, _| (),
        );
        let (backward, at) = (m.unwrap(), feeds(&g));
        let gradients = interp::run(&backward, &at).unwrap().outputs;
        for name in ["x", "router", "gate", "up", "down"] {
            let n = at[name].len();
            let way: Vec<f64> = (0..n).map(|i| philox::uniform(9, 0, 0, i as u64) as f64 - 0.5).collect();
            let loss = |h: f64| {
                let mut moved = at.clone();
                moved.get_mut(name).unwrap().iter_mut().zip(&way).for_each(|(x, d)| *x += h * d);
                interp::run(&g, &moved).unwrap().outputs["loss.total"][0]
            };
            let slope = (loss(1e-6) - loss(-1e-6)) / 2e-6;
            let found: f64 = gradients[&format!("grad.{name}")].iter().zip(&way).map(|(g, d)| g * d).sum();
            assert!((slope - found).abs() < 1e-7 * (1.0 + slope.abs()), "{name}: {found} and {slope}");
            assert!(found != 0.0, "{name} has no gradient");
        }
    }
}

#[test]
fn all_tokens_on_one_expert() {
    let layer = Layer { tokens: 300, d: 6, f: 10, experts: 4, k: 1 };
    let mut at = feeds(&layer.graph(false));
    at.get_mut("x").unwrap().iter_mut().for_each(|x| *x = x.abs());
    let router = at.get_mut("router").unwrap();
    router.iter_mut().enumerate().for_each(|(i, x)| *x = if i / 6 == 2 { 1.0 } else { -1.0 });
    let all = agree(layer, Goal::Gradients, &at);
    // An expert that nobody chose has a gradient of exactly nothing.
    let m = layer.module(Goal::Gradients);
    let found = machine::run(&m, &at, 2).unwrap().0;
    for name in ["grad.gate", "grad.up", "grad.down"] {
        for (e, x) in found[name].chunks(60).enumerate() {
            assert_eq!(x.iter().any(|x| *x != 0.0), e == 2, "{name} of expert {e}");
        }
    }
    assert!(all["grad.router"].iter().any(|x| *x != 0.0));
}

/// The output of the layer as machine code, a row a token.
fn rows(layer: Layer, at: &Feeds, threads: usize) -> Vec<Vec<u32>> {
    let (y, _) = machine::run(&layer.module(Goal::Forward), at, threads).unwrap();
    y["y"].chunks(layer.d).map(|r| r.iter().map(|x| (*x as f32).to_bits()).collect()).collect()
}

#[test]
fn the_bits_of_a_row_are_its_own() {
    // Wide enough for products in several blocks of terms and tiles of columns.
    let many = Layer { tokens: 150, d: 300, f: 520, experts: 4, k: 2 };
    let at = feeds(&many.graph(false));
    let whole = rows(many, &at, 2);
    assert_eq!(whole, rows(many, &at, 1));
    for tokens in [1, 7] {
        let few = Layer { tokens, ..many };
        for first in [0, 60, 143] {
            let mut some = at.clone();
            for name in ["x", "along"] {
                some.insert(name.into(), at[name][first * 300..(first + tokens) * 300].to_vec());
            }
            assert_eq!(rows(few, &some, 2), whole[first..first + tokens], "{tokens} tokens from {first}");
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let layer = Layer { tokens: 20, ..SMALL };
    let at = feeds(&layer.graph(false));
    let clean = rows(layer, &at, 2);
    for bad in [f64::NAN, f64::INFINITY] {
        let mut broken = at.clone();
        broken.get_mut("x").unwrap()[3 * 6] = bad;
        let found = rows(layer, &broken, 2);
        assert!(found[3].iter().all(|x| f32::from_bits(*x).is_nan()));
        assert_eq!((&found[..3], &found[4..]), (&clean[..3], &clean[4..]));
    }
}

#[test]
fn a_layer_is_three_routed_products() {
    let (_, report) = raise(&SMALL.graph(false)).unwrap();
    assert_eq!(report.totals().get("routed_dot"), Some(&3), "{report}");
    for goal in [Goal::Forward, Goal::Gradients] {
        let layer = Layer { tokens: 512, d: 64, f: 96, experts: 8, k: 2 };
        let m = layer.module(goal);
        let (mut groups, mut flops) = (0, 0);
        for s in &m.plans[0].steps {
            let Step::Launch(l) = s else { continue };
            for stage in &l.stages {
                groups += matches!(stage, Stage::Group(_)) as usize;
                flops += if let Stage::Routed(_) = stage { l.flops } else { 0 };
            }
            // Nothing is as large as one product with all experts.
            assert!(l.flops < (2 * 512 * 64 * 96 * 8) as u64 / 2, "{}", l.name);
        }
        // Rows are grouped once, and k of the experts are multiplied: the forward pass, and twice as much backward.
        let forward = 3 * 2 * 512 * 2 * 64 * 96;
        assert_eq!((groups, flops), (1, if goal == Goal::Forward { forward } else { 3 * forward }));
    }
}
