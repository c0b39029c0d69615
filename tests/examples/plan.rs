//! Times a spec's training step: `plan SPEC BATCH SEQ [RUNS]`.
use lolm_models::{LolmSpec, Noise, Program, build};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_runtime::bench::Profile;
use lolm_runtime::{Artifact, Model};
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (spec, batch, seq) = (&a[1], a[2].parse().unwrap(), a[3].parse().unwrap());
    let spec = LolmSpec::load(std::path::Path::new(spec)).unwrap();
    let mut graph = build(&spec, &Program::Train { batch, seq, noise: Noise::Random }).unwrap();
    graph.name = "train".into();
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1000.0 };
    let t = Instant::now();
    let m = compile(&[Source { graph, goal: Goal::Train(adamw) }], &mut |_, _| ()).unwrap();
    println!("passes {:?}", t.elapsed());
    let t = Instant::now();
    let c = lolm_codegen::compile(&m, &lolm_codegen::Info::default()).unwrap();
    println!("codegen {:?} {} kernels {} KB", t.elapsed(), m.kernels.len(), c.bytes.len() >> 10);
    let mut model =
        Model::load(Artifact::from_bytes(c.bytes).unwrap(), a.get(5).map_or(2, |x| x.parse().unwrap())).unwrap();
    lolm_runtime::weights::init(&mut model, 1);
    let p = model.program("train").unwrap();
    for name in ["tokens", "targets"] {
        let i = model.input(p, name, lolm_ir::DType::I32).unwrap();
        for (j, x) in model.input_mut::<i32>(i).iter_mut().enumerate() {
            *x = (j * 7919 % spec.vocab_size) as i32;
        }
    }
    for (name, v) in [("tau", 1.0f32), ("lr", 1e-4)] {
        if let Ok(i) = model.input(p, name, lolm_ir::DType::F32) {
            model.input_mut::<f32>(i)[0] = v;
        }
    }
    for _ in 0..a.get(4).map_or(4, |x| x.parse().unwrap()) {
        let t = Instant::now();
        model.run(p);
        let loss = model.output(p, "loss.total", lolm_ir::DType::F32).unwrap();
        println!("step {:?} loss {}", t.elapsed(), model.output_slice::<f32>(loss)[0]);
    }
    let prof = Profile::of(&mut model, p, 1);
    for r in prof.by_kind() {
        println!("{r:?}");
    }
    let mut rows = prof.launches.clone();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    for r in rows.iter().take(70) {
        println!("{:9.3} ms {:8.1} GFLOP/s {:8.1} GB/s {}", r.seconds * 1e3, r.gflops(), r.gbytes(), r.name);
    }
}
