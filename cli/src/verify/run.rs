//! Runs the programs of a golden case and compares what they give.
use super::case::{Case, Tensor as Theirs};
use super::{Bounds, Results, Row, Shaped};
use crate::compiler::{To, in_memory};
use crate::device::Opened;
use crate::programs::adamw;
use crate::spec::Named;
use anyhow::{Context, Result};
use lolm_models::{Noise, Program, build};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Source};
use lolm_runtime::weights::{self, Purpose};
use lolm_runtime::{Data, Model, Tensor};
use std::collections::{BTreeMap, BTreeSet};

type Outputs = BTreeMap<String, Tensor>;

const FORCED: &str = "eval.logits.gate=";

/// A case with its model in memory.
struct Runner<'a> {
    case: &'a Case,
    model: Model,
    bounds: Bounds,
    rows: Vec<Row>,
}

/// Compiles the case, runs it and compares everything.
pub fn run(case: &Case, on: &Opened, to: To) -> Result<Results> {
    let named = Named { name: case.name.clone(), spec: case.spec.clone(), folder: Some(case.folder.clone()) };
    let model = on.load(in_memory(&named, &sources(case)?, to)?)?;
    let mut r = Runner { case, model, bounds: Bounds::of(to.precision), rows: vec![] };
    r.load()?;
    r.outputs()?;
    r.forced_gate()?;
    r.losses_and_gradients()?;
    r.trajectory()?;
    Ok(Results { case: case.name.clone(), rows: r.rows })
}

/// The programs: forward as learned and with a forced gate, the gradients, and a training step.
fn sources(case: &Case) -> Result<Vec<Source>> {
    let (batch, seq) = (case.batch, case.seq);
    let train = Program::Train { batch, seq, noise: Noise::Input };
    let forward = |forced_gate| Program::Forward { batch, seq, forced_gate };
    // The reference takes every step.
    let adamw = AdamW { skip_above: f32::MAX as f64, ..adamw(&case.spec) };
    let programs = [
        ("forward", forward(false), Goal::Forward),
        ("forced", forward(true), Goal::Forward),
        ("gradients", train, Goal::Gradients),
        ("train", train, Goal::Train(adamw)),
    ];
    let source = |(name, program, goal): (&str, Program, Goal)| {
        let mut graph = build(&case.spec, &program)?;
        graph.name = name.into();
        Ok(Source { graph, goal })
    };
    programs.into_iter().map(source).collect()
}

impl Runner<'_> {
    fn load(&mut self) -> Result<()> {
        Ok(weights::load(&mut self.model, &self.case.folder, Purpose::Training)?)
    }

    /// Runs a program on the inputs of the case and on these.
    fn call(&mut self, program: &str, more: &[(&str, f32)]) -> Result<Outputs> {
        let ports = self.model.plan(self.model.program(program)?).inputs.clone();
        let mut inputs: Vec<(&str, Tensor)> = vec![];
        for p in &ports {
            let scalar = |x: f64| Tensor::f32(&[], vec![x as f32]);
            let value = match p.name.as_str() {
                "tokens" | "targets" => Tensor::i32(&p.shape, self.case.integers(&p.name, &p.shape)?),
                "tau" => scalar(self.case.tau),
                "lr" => scalar(self.case.spec.optimizer.lr),
                "train.gumbel" => {
                    let noise = self.case.given(&p.name, &p.shape)?;
                    Tensor::f32(&p.shape, noise.data.iter().map(|x| *x as f32).collect())
                }
                name => match more.iter().find(|(n, _)| *n == name) {
                    Some((_, x)) => scalar(*x as f64),
                    None => anyhow::bail!("bug: program {program} needs the input `{name}`"),
                },
            };
            inputs.push((&p.name, value));
        }
        Ok(self.model.call(program, &inputs)?)
    }

    fn compare(&mut self, kind: &'static str, name: &str, bound: f64, ours: &Tensor, theirs: &Theirs) {
        let data = wide(ours);
        let ours = Shaped { shape: &ours.shape, data: &data };
        self.rows.push(Row::compare(kind, name, bound, ours, Shaped { shape: &theirs.shape, data: &theirs.data }));
    }

    fn compare_number(
        &mut self,
        kind: &'static str,
        name: &str,
        bound: f64,
        ours: &Outputs,
        output: &str,
        theirs: f64,
    ) {
        match ours.get(output) {
            Some(x) => {
                let theirs = Theirs { shape: vec![], data: vec![theirs] };
                self.compare(kind, name, bound, x, &theirs);
            }
            None => self.rows.push(Row::fault(kind, name, bound, "the model gives no such number")),
        }
    }

    /// Every output of the forward pass, and every `eval.*` of the case.
    fn outputs(&mut self) -> Result<()> {
        let ours = self.call("forward", &[])?;
        let case = self.case;
        let given = case.io.iter().filter(|(n, _)| !n.starts_with(FORCED));
        let theirs: BTreeMap<&str, &Theirs> = given.filter_map(|(n, t)| Some((n.strip_prefix("eval.")?, t))).collect();
        for (name, theirs) in &theirs {
            match ours.get(*name) {
                Some(x) => self.compare("output", name, self.bounds.output, x, theirs),
                None => {
                    self.rows.push(Row::fault("output", name, self.bounds.output, "the model gives no such tensor"))
                }
            }
        }
        for name in ours.keys().filter(|n| !theirs.contains_key(n.as_str())) {
            self.rows.push(Row::fault("output", name, self.bounds.output, "the case has no such tensor"));
        }
        let inputs = ["tokens", "targets", "train.gumbel"];
        for name in case.io.keys().filter(|n| !n.starts_with("eval.") && !inputs.contains(&n.as_str())) {
            self.rows.push(Row::fault("input", name, self.bounds.output, "the model takes no such tensor"));
        }
        if case.io.contains_key("train.gumbel") && case.spec.regime().is_none() {
            self.rows.push(Row::fault("input", "train.gumbel", self.bounds.output, "the model has no regime layer"));
        }
        Ok(())
    }

    /// The logits with the gate forced to each value that the case has.
    fn forced_gate(&mut self) -> Result<()> {
        let case = self.case;
        for (name, theirs) in case.io.iter().filter(|(n, _)| n.starts_with(FORCED)) {
            let text = &name[FORCED.len()..];
            let value: f32 = text.parse().ok().filter(|x: &f32| (0.0..=1.0).contains(x)).with_context(|| {
                format!("`{name}` in io.safetensors forces the gate to {text}, expected a number from 0 to 1")
            })?;
            let name = &name["eval.".len()..];
            if case.spec.gate().is_none() {
                self.rows.push(Row::fault("output", name, self.bounds.output, "the model has no gate"));
                continue;
            }
            let ours = self.call("forced", &[("gate.force", value)])?;
            let logits = ours.get("logits").context("bug: the program `forced` gives no logits")?;
            self.compare("output", name, self.bounds.output, logits, theirs);
        }
        if case.spec.gate().is_some() {
            // A negative value leaves the gate as learned.
            let ours = self.call("forced", &[("gate.force", -1.0)])?;
            let (logits, theirs) = (ours.get("logits"), case.io.get("eval.logits"));
            let logits = logits.context("bug: the program `forced` gives no logits")?;
            if let Some(theirs) = theirs {
                self.compare("output", "logits.gate=learned", self.bounds.output, logits, theirs);
            }
        }
        Ok(())
    }

    fn losses_and_gradients(&mut self) -> Result<()> {
        let ours = self.call("gradients", &[])?;
        let (case, bounds) = (self.case, self.bounds);
        for (part, theirs) in &case.losses {
            self.compare_number("loss", part, bounds.loss, &ours, &format!("loss.{part}"), *theirs);
        }
        let parts = ours.keys().filter_map(|n| n.strip_prefix("loss."));
        let extra: Vec<&str> = parts.filter(|p| !case.losses.contains_key(*p)).collect();
        self.rows.extend(extra.into_iter().map(|p| Row::fault("loss", p, bounds.loss, "the case has no such loss")));
        let mut names: BTreeSet<&str> = case.gradients.keys().map(String::as_str).collect();
        names.extend(ours.keys().filter_map(|n| n.strip_prefix("grad.")));
        for name in names {
            match (ours.get(&format!("grad.{name}")), case.gradients.get(name)) {
                (Some(x), Some(theirs)) => {
                    let data = wide(x);
                    let ours = Shaped { shape: &x.shape, data: &data };
                    let theirs = Shaped { shape: &theirs.shape, data: &theirs.data };
                    self.rows.push(Row::compare_gradient(name, bounds.gradient, ours, theirs, case.grad_norm));
                }
                // Heads of a loss that the model lacks: they are in the files, and nothing flows into them.
                (None, Some(theirs)) if name.starts_with("loss.") && theirs.data.iter().all(|x| *x == 0.0) => {}
                (None, _) => {
                    self.rows.push(Row::fault("gradient", name, bounds.gradient, "the model has no such parameter"))
                }
                (_, None) => {
                    self.rows.push(Row::fault("gradient", name, bounds.gradient, "the case has no such gradient"))
                }
            }
        }
        Ok(())
    }

    /// Steps of AdamW on the same batch.
    fn trajectory(&mut self) -> Result<()> {
        let case = self.case;
        for (i, (loss, norm)) in case.trajectory.iter().enumerate() {
            let ours = self.call("train", &[])?;
            if i == 0 {
                self.compare_number("gradient", "grad_norm", self.bounds.gradient, &ours, "grad_norm", case.grad_norm);
            }
            self.compare_number("step", &format!("loss {i}"), self.bounds.step, &ours, "loss.total", *loss);
            if let Some(norm) = norm {
                self.compare_number("step", &format!("grad_norm {i}"), self.bounds.step, &ours, "grad_norm", *norm);
            }
            if ours.get("skipped").is_none_or(|s| wide(s) != [0.0]) {
                self.rows.push(Row::fault("step", &format!("step {i}"), self.bounds.step, "the optimizer skipped it"));
            }
        }
        Ok(())
    }
}

/// A tensor of ours in f64.
fn wide(t: &Tensor) -> Vec<f64> {
    match &t.data {
        Data::F32(x) => x.iter().map(|x| *x as f64).collect(),
        Data::I32(x) => x.iter().map(|x| *x as f64).collect(),
        Data::Bf16(x) => x.iter().map(|x| f32::from_bits((*x as u32) << 16) as f64).collect(),
        Data::Bool(x) => x.iter().map(|x| *x as f64).collect(),
    }
}
