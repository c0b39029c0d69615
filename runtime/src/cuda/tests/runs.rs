//! The same model on the CPU and on the emulator: training, checkpoints and generation give the same bits.
use super::kernels::{ported, steps_kernel, toy_step};
use crate::cuda::device::{
    Address, Device, DeviceError, Entry, Kernel, Launch, MemoryInfo, Prepared, Sequence, Snapshot,
};
use crate::cuda::emulator::Emulator;
use crate::generate::{Generated, Generator, Sampling, Settings};
use crate::testing::{steps, toy};
use crate::train::{
    Checkpoints, Config, LearningRate, Match, Outcome, Report, Run, Temperature, Tokens, Trainer, Watch,
};
use crate::{Artifact, Model, weights};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn config(steps: u64) -> Config {
    Config {
        seed: 5,
        steps,
        learning_rate: LearningRate { peak: 0.01, warmup_steps: 3, steps, floor: 0.1 },
        temperature: Temperature { start: 1.0, end: 0.5, steps: 10 },
        vocab: 100,
        skip_limit: 3,
    }
}

fn gpu_toy() -> Artifact {
    ported(toy(), &toy_step(0))
}

fn trainer(mut model: Model, steps: u64) -> Trainer {
    weights::init(&mut model, 1);
    let text = (0..200u32).map(|i| (i * i % 61 + 6) as u16).collect();
    Trainer::new(model, Tokens::U16(text), config(steps)).unwrap()
}

fn on_gpu(steps: u64) -> Trainer {
    trainer(Model::load_on(gpu_toy(), Arc::new(Emulator::default())).unwrap(), steps)
}

fn bits(t: &Trainer) -> Vec<u8> {
    [t.model().params().raw(0), t.model().states().raw(0)].concat()
}

struct StopAt(u64, Vec<PathBuf>);
impl Watch for StopAt {
    fn step(&mut self, r: &Report, _: f64) -> bool {
        r.step != self.0
    }
    fn saved(&mut self, path: &Path) {
        self.1.push(path.into());
    }
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lolm-cuda-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn training_gives_the_bits_of_the_cpu() {
    let mut cpu = trainer(Model::load(toy(), 2).unwrap(), 40);
    let mut gpu = on_gpu(40);
    assert_eq!(bits(&cpu), bits(&gpu));
    for _ in 0..40 {
        let (a, b) = (cpu.step().clone(), gpu.step().clone());
        assert_eq!((a.skipped, a.reset, &a.values), (b.skipped, b.reset, &b.values), "step {}", a.step);
    }
    assert_eq!(bits(&cpu), bits(&gpu));
    assert!(cpu.progress().skipped > 0, "some step is skipped");
    gpu.model().check().unwrap();
}

#[test]
fn checkpoints_are_written_beside_the_run_and_hold_the_bits_of_their_step() {
    let folder = folder("checkpoints");
    let run =
        Run { checkpoints: Some(Checkpoints { folder: folder.clone(), interval: 4, keep_latest_k: 0 }), metrics: None };
    let mut whole = on_gpu(30);
    let mut at: Vec<Vec<u8>> = vec![bits(&whole)];
    (0..30).for_each(|_| {
        whole.step();
        at.push(bits(&whole));
    });
    let mut t = on_gpu(30);
    let mut watch = StopAt(18, vec![]);
    assert_eq!(run.go(&mut t, &mut watch).unwrap(), Outcome::Stopped);
    let saved: Vec<String> = watch.1.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(saved, [4, 8, 12, 16, 18].map(|s| format!("step-{s:08}")));
    // Each of them, on either machine, is the run at its step.
    for (path, step) in watch.1.iter().zip([4, 8, 12, 16, 18]) {
        let one = crate::train::Saved::open(path).unwrap();
        let mut back = on_gpu(30);
        back.restore(&one, Match::Exact).unwrap();
        assert_eq!((bits(&back), back.progress().step), (at[step].clone(), step as u64));
        let mut cpu = trainer(Model::load(toy(), 1).unwrap(), 30);
        cpu.restore(&one, Match::Weights).unwrap();
        assert_eq!(bits(&cpu), at[step]);
    }
    let mut resumed = on_gpu(30);
    assert_eq!(run.go(&mut resumed, &mut StopAt(0, vec![])).unwrap(), Outcome::Finished);
    assert_eq!(bits(&resumed), at[30]);
    fs::remove_dir_all(folder).unwrap();
}

/// A device without room for a second copy of anything.
struct Full(Emulator);

#[rustfmt::skip]
impl Device for Full {
    fn name(&self) -> String { self.0.name() }
    fn accepts(&self, a: &str) -> Result<(), DeviceError> { self.0.accepts(a) }
    fn memory(&self) -> Result<MemoryInfo, DeviceError> { self.0.memory() }
    fn multiprocessors(&self) -> u32 { self.0.multiprocessors() }
    fn alloc(&self, sizes: &[usize]) -> Result<Vec<Address>, DeviceError> { self.0.alloc(sizes) }
    fn free(&self, a: &[Address]) -> Result<(), DeviceError> { self.0.free(a) }
    fn upload(&self, to: Address, x: &[u8]) -> Result<(), DeviceError> { self.0.upload(to, x) }
    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> { self.0.download(from, to) }
    fn copy(&self, from: Address, to: Address, n: usize) -> Result<(), DeviceError> { self.0.copy(from, to, n) }
    fn fill(&self, at: Address, n: usize, x: u8) -> Result<(), DeviceError> { self.0.fill(at, n, x) }
    fn forget(&self, at: Address, n: usize) -> Result<(), DeviceError> { self.0.forget(at, n) }
    fn load(&self, ptx: &str, e: &[Entry]) -> Result<Vec<Kernel>, DeviceError> { self.0.load(ptx, e) }
    fn launch(&self, l: &Launch) -> Result<(), DeviceError> { self.0.launch(l) }
    fn prepare(&self, p: &Sequence) -> Result<Prepared, DeviceError> { self.0.prepare(p) }
    fn run(&self, p: Prepared) -> Result<(), DeviceError> { self.0.run(p) }
    fn time(&self, p: Prepared, times: &mut [u64]) -> Result<(), DeviceError> { self.0.time(p, times) }
    fn synchronize(&self) -> Result<(), DeviceError> { self.0.synchronize() }
    fn snapshot(&self, _: &[(Address, usize)]) -> Result<Box<dyn Snapshot>, DeviceError> {
        let device = self.name();
        Err(DeviceError::Memory { device, asked: 64, free: 0, total: 64, what: String::new() })
    }
}

#[test]
fn a_run_waits_for_its_checkpoint_where_a_copy_has_no_room_and_says_so() {
    struct Waited(usize);
    impl Watch for Waited {
        fn step(&mut self, _: &Report, _: f64) -> bool {
            true
        }
        fn waited(&mut self, why: &DeviceError) {
            assert!(why.to_string().starts_with("not enough memory"), "{why}");
            self.0 += 1;
        }
    }
    let folder = folder("full");
    let checkpoints = Checkpoints { folder: folder.clone(), interval: 3, keep_latest_k: 0 };
    let mut t = trainer(Model::load_on(gpu_toy(), Arc::new(Full(Emulator::default()))).unwrap(), 6);
    let mut watch = Waited(0);
    Run { checkpoints: Some(checkpoints.clone()), metrics: None }.go(&mut t, &mut watch).unwrap();
    assert_eq!(watch.0, 2);
    let mut back = on_gpu(6);
    back.restore(&checkpoints.latest().unwrap().0.unwrap(), Match::Exact).unwrap();
    assert_eq!(bits(&back), bits(&t));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn generation_gives_the_tokens_of_the_cpu() {
    let kernels = [2, 1, 4].iter().enumerate().map(|(i, t)| steps_kernel(i, *t)).collect::<String>();
    let mut gpu = Model::load_on(ported(steps(), &kernels), Arc::new(Emulator::default())).unwrap();
    let mut cpu = Model::load(steps(), 1).unwrap();
    let run = |m: &mut Model| -> (Generated, Vec<f32>) {
        let settings = Settings { max_seq_len: 64, gate_force: -1.0, tau: 0.5 };
        let mut g = Generator::new(m, settings).unwrap();
        let sampling = Sampling { temperature: 0.9, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3 };
        let out = g.generate(&[3, 1, 4, 1, 5, 2, 6], 12, sampling, &[], &mut |_| true).unwrap();
        (out, g.logits().to_vec())
    };
    for _ in 0..2 {
        assert_eq!(run(&mut cpu), run(&mut gpu));
    }
}
