//! The initialisation keeps signals alive: after any number of latent layers z has a size that a norm can work with.
use lolm_ir::graph::{Init, LeafKind};
use lolm_ir::interp::{Feeds, run};
use lolm_models::{Program, Spec, build, spec};

/// Normal draws from a fixed sequence.
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
    fn fill(&mut self, init: Init, shape: &[usize]) -> Vec<f64> {
        let (len, last) = (shape.iter().product(), shape.last().copied().unwrap_or(1));
        let one = |i: usize| match init {
            Init::Zeros => 0.0,
            Init::Constant(x) => x as f64,
            Init::Normal(std) => std as f64 * self.normal(),
            Init::LogRange => ((i % last + 1) as f64).ln(),
            Init::Decay { lo, hi } => {
                let (lo, hi) = ((lo as f64).powi(2), (hi as f64).powi(2));
                (1.0 / (lo + (hi - lo) * self.uniform()).sqrt() - 1.0).ln()
            }
            Init::DtBias { lo, hi } => {
                let (lo, hi) = ((lo as f64).ln(), (hi as f64).ln());
                let dt = (lo + (hi - lo) * self.uniform()).exp();
                dt.exp_m1().ln()
            }
        };
        (0..len).map(one).collect()
    }
}

/// The root mean square of z at initialisation.
fn size_of_z(spec: &Spec) -> f64 {
    let g = build(spec, &Program::Forward { batch: 1, seq: 32, forced_gate: false }).unwrap();
    let mut draws = Draws(1);
    let mut feeds = Feeds::new();
    for leaf in g.leaves.iter() {
        if let LeafKind::Param(init) = leaf.kind {
            feeds.insert(leaf.name.clone(), draws.fill(init, &leaf.shape(&g)));
        }
    }
    feeds.insert("tau".into(), vec![1.0]);
    feeds.insert("tokens".into(), (0..32).map(|i| (i * 37 % 256) as f64).collect());
    let z = &run(&g, &feeds).unwrap().outputs["z"];
    (z.iter().map(|x| x * x).sum::<f64>() / z.len() as f64).sqrt()
}

#[test]
fn latent_layers_keep_the_signal() {
    let demo = spec::library("lolm-demo").unwrap().unwrap();
    for (kind, n_layers) in [
        (spec::SsmKind::Native, 4),
        (spec::SsmKind::Mamba { conv_kernel: 4, dt_rank: 8 }, 1),
        (spec::SsmKind::Mamba { conv_kernel: 4, dt_rank: 8 }, 4),
        (spec::SsmKind::Mamba { conv_kernel: 4, dt_rank: 8 }, 6),
    ] {
        let ssm = spec::SsmSpec { kind, n_layers, ..demo.ssm().cloned().unwrap() };
        let mut spec = demo.clone();
        spec.lolm_mut().unwrap().ssm = Some(ssm);
        let size = size_of_z(&spec);
        assert!((0.1..10.0).contains(&size), "{kind:?}, {n_layers} layers: z has size {size:e}");
    }
}
