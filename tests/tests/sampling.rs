//! Tokens that a program chooses are those of the host's sampler: on an emulated GPU with every bit, whatever the row and
//! the settings; and in small operations on the CPU, where no rounding decides.
use lolm_codegen::{Info, Target};
use lolm_ir::artifact::lanes_program;
use lolm_ir::graph::Builder;
use lolm_ir::philox::philox4x32_10;
use lolm_ir::{DType, Graph};
use lolm_models::choosing;
use lolm_passes::pipeline::{self, Goal, Options, Source, compile_with};
use lolm_runtime::cuda::emulator::Emulator;
use lolm_runtime::generate::{Choice, Sampler, Sampling};
use lolm_runtime::{Artifact, Model};
use std::sync::Arc;

/// Numbers that look random and are the same in every run.
struct Numbers(u32);

impl Numbers {
    fn word(&mut self) -> u32 {
        self.0 += 1;
        philox4x32_10([self.0, 0, 0, 0], [7, 7])[0]
    }
    fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }
    /// Uniform in -1..1.
    fn unit(&mut self) -> f32 {
        self.word() as f32 / (1u32 << 31) as f32 - 1.0
    }
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
    fn sampling(&mut self) -> Sampling {
        Sampling {
            temperature: self.of(&[0.0, 0.2, 0.7, 1.0, 1.0, 1.3, 40.0, 1e-30]),
            top_k: self.of(&[0, 0, 0, 1, 3, 50, 4000]),
            top_p: self.of(&[1.0, 1.0, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999_99]),
            min_p: self.of(&[0.0, 0.0, 0.0, 0.02, 0.3, 1.0]),
            seed: self.word() as u64,
        }
    }
    /// A row of some kind: smooth, peaked, of few values, with holes.
    fn row(&mut self, len: usize) -> Vec<f32> {
        let (kind, spread) = (self.below(6), self.of(&[0.1, 2.0, 9.0]));
        let mut one = || match kind {
            0 | 1 => (self.unit() + self.unit() + self.unit()) * spread,
            2 => (self.below(5) as f32 - 2.0) * spread,
            3 => 0.5 + self.below(3) as f32 * f32::EPSILON,
            4 => [f32::NAN, f32::NEG_INFINITY, 1.0, self.unit()][self.below(4)],
            _ => self.unit().powi(9) * 60.0,
        };
        (0..len).map(|_| one()).collect()
    }
}

/// A step that does nothing but choose from logits that are handed to it.
fn step(rows: usize, len: usize) -> Graph {
    let mut b = Builder::new(lanes_program(rows));
    let (slots, v) = (b.axis("b", rows), b.axis("v", len));
    let x = b.input("x", DType::F32, &[vec![slots], vec![v]]);
    let logits = b.scale(x, 1.0);
    b.output("logits", logits, &[vec![slots], vec![v]]);
    choosing(b.finish().unwrap()).unwrap()
}

fn model(rows: usize, len: usize, target: pipeline::Target) -> Model {
    let source = Source { graph: step(rows, len), goal: Goal::Forward };
    let module = compile_with(&[source], Options { target, ..Options::default() }, &|_, _| ()).unwrap();
    let info = Info { name: "choice".into(), spec: String::new() };
    let on_gpu = target == pipeline::Target::Gpu;
    let machine = if on_gpu { "cuda".parse().unwrap() } else { Target::Cpu };
    let compiled = lolm_codegen::compile_for(&module, &info, machine).unwrap();
    let artifact = Artifact::from_bytes(compiled.bytes).unwrap();
    match on_gpu {
        true => Model::load_rows_on(artifact, Arc::new(Emulator::default()), rows).unwrap(),
        false => Model::load_rows(artifact, 1, rows).unwrap(),
    }
}

/// The tokens of the model and of the host.
fn both(m: &mut Model, rows: &[Vec<f32>], how: &[Sampling], index: u64) -> (Vec<u32>, Vec<u32>) {
    let p = m.program(&lanes_program(rows.len())).unwrap();
    let choice = Choice::of(m, p).unwrap().unwrap();
    let x = m.input(p, "x", DType::F32).unwrap();
    m.input_mut::<f32>(x).copy_from_slice(&rows.concat());
    choice.set(m, |at| Some(how[at].draw(index)));
    m.run(p);
    m.check().unwrap();
    let mut s = Sampler::new(rows[0].len());
    let host = rows.iter().zip(how).map(|(row, how)| s.choose(how, row, index)).collect();
    ((0..rows.len()).map(|at| choice.token(m, at)).collect(), host)
}

#[test]
fn a_gpu_chooses_what_the_host_chooses() {
    let mut n = Numbers(0);
    for (len, rounds) in [(1, 2), (2, 8), (30, 40), (129, 40), (1000, 25), (3001, 12)] {
        let mut m = model(8, len, pipeline::Target::Gpu);
        for index in 0..rounds {
            let rows: Vec<_> = (0..8).map(|_| n.row(len)).collect();
            let how: Vec<_> = (0..8).map(|_| n.sampling()).collect();
            let (found, expected) = both(&mut m, &rows, &how, index);
            for at in 0..8 {
                let few = &rows[at][..len.min(12)];
                assert_eq!(found[at], expected[at], "{len}, round {index}, row {at}: {:?} of {few:?}", how[at]);
            }
        }
    }
}

/// Weights are 1 or nothing, and uniform numbers lie between the borders that these make.
#[test]
fn small_operations_choose_what_the_host_chooses() {
    let mut n = Numbers(1 << 20);
    let mut m = model(8, 12, pipeline::Target::Cpu);
    for index in 0..60 {
        let rows: Vec<_> = (0..8).map(|_| (0..12).map(|_| n.of(&[0.0f32, 0.0, -300.0, f32::NAN])).collect()).collect();
        let setting = |n: &mut Numbers| Sampling {
            temperature: n.of(&[0.0, 1.0, 2.0]),
            top_k: n.of(&[0, 0, 1, 3, 5, 12]),
            top_p: n.of(&[1.0, 1.0, 0.31, 0.57, 0.83]),
            min_p: n.of(&[0.0, 0.5]),
            seed: n.word() as u64,
        };
        let how: Vec<_> = (0..8).map(|_| setting(&mut n)).collect();
        let (found, expected) = both(&mut m, &rows, &how, index);
        assert_eq!(found, expected, "{rows:?} {how:?}");
    }
}

#[test]
fn an_emulated_gpu_draws_by_the_distribution() {
    let logits: Vec<f32> = [0.1f32, 0.5, 0.15, 0.25].map(f32::ln).to_vec();
    let mut m = model(64, 4, pipeline::Target::Gpu);
    let mut counts = [0; 4];
    for index in 0..100 {
        let how: Vec<_> = (0..64).map(|seed| Sampling { seed, ..Sampling::default() }).collect();
        let (found, expected) = both(&mut m, &vec![logits.clone(); 64], &how, index);
        assert_eq!(found, expected);
        found.iter().for_each(|t| counts[*t as usize] += 1);
    }
    let off = counts.iter().zip([0.1, 0.5, 0.15, 0.25]).map(|(c, p)| (*c as f64 / 6400.0 - p).abs());
    assert!(off.fold(0.0, f64::max) < 0.02, "{counts:?}");
}
