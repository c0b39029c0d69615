//! x
use lolm_models::{Noise, Program};
use lolm_passes::pipeline::{Goal, Options, Precision, Target, compile_with};
use lolm_tests::compiled::source;
fn main() {
    for name in std::env::args().skip(1) {
        let spec = lolm_models::spec::library(&name).unwrap().unwrap();
        for (target, precision) in
            [(Target::Cpu, Precision::F32), (Target::Gpu, Precision::F32), (Target::Gpu, Precision::Bf16)]
        {
            let p = Program::Train { batch: 4, seq: 512.min(spec.max_seq_len), noise: Noise::Random };
            let t = std::time::Instant::now();
            let s = [source(&spec, "train", p, Goal::Gradients)];
            let m = compile_with(&s, Options { target, precision, ..Options::default() }, &|_, _| ()).unwrap();
            let t1 = t.elapsed();
            let plan = &m.plans[0];
            let mut sizes: Vec<(u64, &str)> = plan
                .buffers
                .iter()
                .filter(|b| matches!(b.place, lolm_ir::plan::Place::Arena(_)))
                .map(|b| (b.len * 4, b.name.as_str()))
                .collect();
            sizes.sort();
            println!(
                "{name} {target:?} {precision:?}: arena {} MB, {} steps {} kernels, {t1:?}; largest {:?}",
                plan.arena >> 20,
                plan.steps.len(),
                m.kernels.len(),
                sizes.iter().rev().take(6).map(|s| (s.0 >> 20, s.1)).collect::<Vec<_>>()
            );
            if target == Target::Gpu {
                let t = std::time::Instant::now();
                let info = lolm_codegen::Info { name: "x".into(), spec: String::new() };
                match lolm_codegen::compile_for(&m, &info, "cuda".parse().unwrap()) {
                    Ok(c) => println!("   ptx {} KB {:?}", c.bytes.len() >> 10, t.elapsed()),
                    Err(e) => println!("   FAIL {e}"),
                }
            }
        }
    }
}
