//! Golden cases: a spec, its weights, and what PyTorch made of them in f64.
use lolm_ir::interp::Feeds;
use lolm_models::Spec;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub const CASES: [&str; 18] = [
    "lolm_plain_decoder",
    "lolm_decoder_memory",
    "lolm_decoder_ssm",
    "lolm_decoder_ssm_memory",
    "lolm_full",
    "lolm_full_mamba_ssm",
    "transformer",
    "mamba",
    "jamba",
    "griffin",
    "samba",
    "transformer_llama3",
    "transformer_window",
    "mamba_biased",
    "jamba_uneven",
    "jamba_one_expert",
    "griffin_wide",
    "samba_short_window",
];

pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

pub struct Case {
    pub name: &'static str,
    pub json: serde_json::Value,
    pub spec: Spec,
    pub weights: Tensors,
    pub io: Tensors,
}

impl Case {
    pub fn load(name: &'static str) -> Case {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(dir.join("case.json")).unwrap()).unwrap();
        let spec = Spec::from_case_json("case.json", &json).unwrap();
        let read = |file: &str| tensors(&std::fs::read(dir.join(file)).unwrap());
        let weights = stacked(read("model.safetensors"), &spec);
        Case { name, spec, weights, io: read("io.safetensors"), json }
    }

    pub fn batch(&self) -> usize {
        self.spec.training.batch
    }
    pub fn seq(&self) -> usize {
        self.spec.training.seq
    }
    /// The temperature of the regime; 1 for a model that has none.
    pub fn tau(&self) -> f64 {
        self.spec.lolm().map_or(1.0, |_| self.json["tau"].as_f64().unwrap())
    }

    pub fn gradients(&self) -> Tensors {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(self.name);
        stacked(tensors(&std::fs::read(dir.join("grads.safetensors")).unwrap()), &self.spec)
    }

    /// Weights, τ, and the tensors of io under these names.
    pub fn feeds(&self, io: &[&str]) -> Feeds {
        let mut f: Feeds = self.weights.iter().map(|(k, v)| (k.clone(), v.1.clone())).collect();
        f.insert("tau".into(), vec![self.tau()]);
        for name in io {
            if let Some((_, x)) = self.io.get(*name) {
                f.insert(name.to_string(), x.clone());
            }
        }
        f
    }
}

/// Experts, which the files hold one by one, as the parameters that hold all of them.
fn stacked(mut files: Tensors, spec: &Spec) -> Tensors {
    let all = lolm_models::parameters(spec).unwrap().into_iter().filter(|(name, _)| name.contains("{}"));
    for (name, shape) in all {
        let parts = (0..shape[0]).map(|i| files.remove(&name.replace("{}", &i.to_string())).unwrap());
        let data = parts.flat_map(|(part, data)| {
            assert_eq!(part, shape[1..]);
            data
        });
        let data = data.collect();
        files.insert(name, (shape, data));
    }
    files
}

fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let read = |view: safetensors::tensor::TensorView| {
        let data = match view.dtype() {
            Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c) as f64).collect(),
            Dtype::I64 => view.data().as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c) as f64).collect(),
            other => panic!("golden tensor of {other:?}"),
        };
        (view.shape().to_vec(), data)
    };
    file.tensors().into_iter().map(|(name, view)| (name, read(view))).collect()
}

/// ‖a - b‖ / ‖b‖
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let (diff, size) = (norm(&mut a.iter().zip(b).map(|(x, y)| x - y)), norm(&mut b.iter().copied()));
    if size == 0.0 { diff } else { diff / size }
}
