//! Gradients and five AdamW steps of the golden cases, by the interpreter, against what PyTorch computed in f64.
use lolm_ir::graph::{Graph, LeafId, LeafKind, ValueId};
use lolm_ir::interp::{self, Feeds};
use lolm_ir::op::Op;
use lolm_models::{Noise, Program, Spec};
use lolm_passes::canonicalize::canonicalize;
use lolm_passes::differentiate::{Gradients, differentiate};
use lolm_passes::optimizer::{AdamW, attach, expose_gradients};
use lolm_passes::raise::raise;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;

/// Goldens are stored in f32, and constants of the graphs are f32.
const TOLERANCE: f64 = 1e-5;

struct Case {
    name: &'static str,
    json: Value,
    spec: Spec,
    /// Weights, tokens, targets, noise and τ.
    feeds: Feeds,
    grads: Feeds,
}

impl Case {
    fn load(name: &'static str) -> Case {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        let read = |file: &str| tensors(&std::fs::read(dir.join(file)).unwrap());
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
        let spec = Spec::from_case_json("case.json", &json).unwrap();
        let mut feeds = read("model.safetensors");
        feeds.extend(read("io.safetensors"));
        feeds.insert("tau".into(), vec![json["tau"].as_f64().unwrap()]);
        Case { name, spec, feeds, grads: read("grads.safetensors"), json }
    }

    /// The training program without its backward pass, in small or in fused operations, its loss and its parameters.
    fn forward(&self, raised: bool) -> (Graph, ValueId, Vec<LeafId>) {
        let (batch, seq) = (self.spec.training.batch, self.spec.training.seq);
        let program = Program::Train { batch, seq, noise: Noise::Input };
        let mut g = canonicalize(&lolm_models::build(&self.spec, &program).unwrap()).unwrap();
        if raised {
            g = raise(&g).unwrap().0;
        }
        let loss = g.find_output("loss.total").unwrap().value;
        let leaves = (0..g.leaves.len() as u32).map(LeafId);
        let params = leaves.filter(|l| matches!(g.leaf(*l).kind, LeafKind::Param(_))).collect();
        (g, loss, params)
    }

    fn gradients(&self, raised: bool) -> (Gradients, ValueId, Vec<LeafId>) {
        let (g, loss, params) = self.forward(raised);
        (differentiate(&g, loss, &params).unwrap(), loss, params)
    }
}

fn tensors(bytes: &[u8]) -> Feeds {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let read = |view: safetensors::tensor::TensorView| match view.dtype() {
        Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c) as f64).collect(),
        Dtype::I64 => view.data().as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c) as f64).collect(),
        other => panic!("golden tensor of {other:?}"),
    };
    file.tensors().into_iter().map(|(name, view)| (name, read(view))).collect()
}

/// ‖a - b‖ / ‖b‖
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: Vec<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (apart, size) = (norm(a.iter().zip(b).map(|(x, y)| x - y).collect()), norm(b.to_vec()));
    if size == 0.0 { apart } else { apart / size }
}

/// Every weight's gradient, in small or in fused operations, before and after the backward pass is canonicalized.
fn gradients_agree(name: &'static str, raised: bool) {
    let case = Case::load(name);
    let (gradients, _, params) = case.gradients(raised);
    let fused = |op: &Op| matches!(op, Op::AttentionGrad(_) | Op::CrossEntropyGrad { .. });
    assert_eq!(raised, gradients.graph.nodes.iter().any(|n| fused(&n.op)));
    let g = expose_gradients(gradients, &params).unwrap();
    let smaller = canonicalize(&g).unwrap();
    assert!(smaller.nodes.len() <= g.nodes.len());
    for g in [&g, &smaller] {
        let outputs = interp::run(g, &case.feeds).unwrap().outputs;
        let named = outputs.iter().filter_map(|(k, x)| Some((k.strip_prefix("grad.")?.to_string(), x.clone())));
        compare(case.name, &named.collect(), &case.grads);
    }
}

fn compare(case: &str, found: &Feeds, expected: &Feeds) {
    for (name, want) in expected {
        // Without a latent path the heads of the contrastive loss see nothing, and the graph leaves them out.
        let Some(found) = found.get(name) else {
            assert!(name.starts_with("loss.cpc_") && want.iter().all(|x| *x == 0.0), "{case}: no gradient of {name}");
            continue;
        };
        let error = distance(found, want);
        assert!(error < TOLERANCE, "{case}: the gradient of {name} is off by {error:.1e}");
    }
    assert!(found.keys().all(|name| expected.contains_key(name)));
}

/// Losses and gradient norms of the five steps, and the loss after them.
fn trajectory_agrees(name: &'static str) {
    let case = Case::load(name);
    let (gradients, loss, params) = case.gradients(false);
    let o = &case.spec.optimizer;
    let adamw = AdamW {
        beta1: o.betas[0],
        beta2: o.betas[1],
        eps: o.eps,
        weight_decay: o.weight_decay,
        clip: Some(o.clip),
        skip_above: case.spec.training.loss_limit,
    };
    let g = canonicalize(&attach(gradients, loss, &params, &adamw).unwrap()).unwrap();
    let mut feeds = case.feeds.clone();
    feeds.insert("lr".into(), vec![o.lr]);
    for leaf in g.leaves.iter().filter(|l| matches!(l.kind, LeafKind::State { .. })) {
        feeds.insert(leaf.name.clone(), vec![0.0; leaf.shape(&g).iter().product()]);
    }
    for (i, want) in case.json["trajectory"].as_array().unwrap().iter().enumerate() {
        let results = interp::run(&g, &feeds).unwrap();
        for (output, key) in [("loss.total", "loss"), ("grad_norm", "grad_norm")] {
            let Some(want) = want[key].as_f64() else { continue };
            let error = distance(&results.outputs[output], &[want]);
            assert!(error < TOLERANCE, "{name}: {key} before step {i} is off by {error:.1e}");
        }
        assert_eq!(results.outputs["skipped"], [0.0]);
        feeds.extend(results.writes);
    }
}

macro_rules! golden {
    ($($case:ident)*) => {$(
        mod $case {
            #[test]
            fn gradients() {
                super::gradients_agree(stringify!($case), false);
            }
            #[test]
            fn gradients_of_fused_operations() {
                super::gradients_agree(stringify!($case), true);
            }
            #[test]
            fn trajectory() {
                super::trajectory_agrees(stringify!($case));
            }
        }
    )*};
}

golden! {
    lolm_plain_decoder
    lolm_decoder_memory
    lolm_decoder_ssm
    lolm_decoder_ssm_memory
    lolm_full
    lolm_full_mamba_ssm
}
