//! The files of a golden case.
use anyhow::{Context, Result, bail};
use lolm_models::Spec;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// A tensor of a case, in f64, which holds all that f32 and the integers of a vocabulary can be.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub spec: Spec,
    pub batch: usize,
    pub seq: usize,
    pub tau: f64,
    /// Each loss part by name, `total` among them.
    pub losses: BTreeMap<String, f64>,
    pub grad_norm: f64,
    /// Loss before each step, and the norm of the gradient where it is given.
    pub trajectory: Vec<(f64, Option<f64>)>,
    pub io: Tensors,
    pub gradients: Tensors,
}

impl Case {
    pub fn load(folder: &Path) -> Result<Case> {
        let path = folder.join("case.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = path.display().to_string();
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))?;
        let spec = Spec::from_case_json(&file, &json)?;
        let at = |key: &str| format!("{file}: `{key}`");
        let losses = json["losses"].as_object().with_context(|| format!("{} must be an object", at("losses")))?;
        let losses = losses.iter().map(|(name, x)| Ok((name.clone(), number(x, &at(name))?)));
        let name = folder.file_name().map_or_else(|| file.clone(), |n| n.to_string_lossy().into_owned());
        Ok(Case {
            name,
            folder: folder.into(),
            batch: spec.training.batch,
            seq: spec.training.seq,
            tau: if spec.lolm().is_some() { number(&json["tau"], &at("tau"))? } else { 1.0 },
            losses: losses.collect::<Result<_>>()?,
            grad_norm: number(&json["grad_norm"], &at("grad_norm"))?,
            trajectory: trajectory(&json["trajectory"], &at("trajectory"))?,
            io: tensors(&folder.join("io.safetensors"))?,
            gradients: stacked(tensors(&folder.join("grads.safetensors"))?, &spec)?,
            spec,
        })
    }

    /// A tensor of `io.safetensors` as integers of this shape.
    pub fn integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i32>> {
        let t = self.given(name, shape)?;
        let whole = |x: &f64| (x.fract() == 0.0 && x.abs() < 2e9).then_some(*x as i32);
        let all: Option<Vec<i32>> = t.data.iter().map(whole).collect();
        all.with_context(|| format!("`{name}` in io.safetensors must hold integers"))
    }

    /// A tensor of `io.safetensors` of this shape.
    pub fn given(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let t = self.io.get(name).with_context(|| format!("io.safetensors has no `{name}`"))?;
        if t.shape != shape {
            bail!("`{name}` in io.safetensors has the shape {:?}, expected {shape:?}", t.shape);
        }
        Ok(t)
    }
}

/// Experts, which the file holds one by one, as the gradients of the parameters that hold all of them.
fn stacked(mut files: Tensors, spec: &Spec) -> Result<Tensors> {
    for (name, shape) in lolm_models::parameters(spec)?.into_iter().filter(|(name, _)| name.contains("{}")) {
        let mut data = vec![];
        for i in 0..shape[0] {
            let one = name.replace("{}", &i.to_string());
            let part = files.remove(&one).with_context(|| format!("grads.safetensors has no `{one}`"))?;
            if part.shape != shape[1..] {
                bail!("`{one}` in grads.safetensors has the shape {:?}, expected {:?}", part.shape, &shape[1..]);
            }
            data.extend(part.data);
        }
        files.insert(name, Tensor { shape, data });
    }
    Ok(files)
}

fn number(v: &Value, at: &str) -> Result<f64> {
    v.as_f64().with_context(|| format!("{at} must be a number"))
}

fn trajectory(v: &Value, at: &str) -> Result<Vec<(f64, Option<f64>)>> {
    let steps = v.as_array().with_context(|| format!("{at} must be a list"))?;
    let step = |s: &Value| Ok((number(&s["loss"], &format!("{at}.loss"))?, s["grad_norm"].as_f64()));
    steps.iter().map(step).collect()
}

fn tensors(path: &Path) -> Result<Tensors> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{} is not safetensors", path.display()))?;
    let mut out = Tensors::new();
    for (name, view) in file.tensors() {
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c) as f64).collect(),
            Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c)).collect(),
            Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c) as f64).collect(),
            Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c) as f64).collect(),
            other => bail!("`{name}` in {} is {other:?}, expected F32, F64, I32 or I64", path.display()),
        };
        out.insert(name, Tensor { shape: view.shape().to_vec(), data });
    }
    Ok(out)
}
