//! `lolm doctor`: what this machine has, what can run on it, and what is missing for the rest.
use crate::output::{bytes, show};
use anyhow::Result;
use clap::Args;
use lolm_codegen::cpu::FEATURES;
use lolm_runtime::artifact::missing;
use lolm_runtime::bench::read_bandwidth;
use serde::Serialize;

/// Larger than the caches, so that it is memory that is measured.
const SWEEP: usize = 1 << 28;

/// Say what this machine has: CPU, memory, GPUs, and which targets run on them
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    cpu: Cpu,
    cuda: Cuda,
    targets: Vec<Target>,
    /// What to do about what is missing.
    advice: Vec<String>,
}

#[derive(Serialize)]
struct Cpu {
    architecture: &'static str,
    /// Threads that run at once.
    threads: usize,
    /// Features that our code uses and this CPU lacks.
    missing: Vec<String>,
    /// Features beyond those, which products use where they are there.
    wide: bool,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    read_bytes_per_second: f64,
}

#[derive(Serialize, Default)]
struct Cuda {
    /// The newest CUDA that the driver knows.
    driver: Option<String>,
    /// Why there is none.
    problem: Option<String>,
    gpus: Vec<Gpu>,
    /// Where kernels are kept as the driver assembled them.
    cache: Option<std::path::PathBuf>,
}

#[derive(Serialize)]
struct Gpu {
    device: String,
    name: String,
    sm: String,
    multiprocessors: u32,
    memory_bytes: u64,
    /// Absent if the GPU cannot be opened.
    free_bytes: Option<u64>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Target {
    target: &'static str,
    runs_on: Vec<String>,
}

impl Doctor {
    pub fn run(self) -> Result<()> {
        let (cpu, cuda) = (Cpu::look()?, Cuda::look());
        let targets = targets(&cpu, &cuda);
        let advice = advice(&cpu, &cuda);
        let report = Report { version: env!("CARGO_PKG_VERSION"), cpu, cuda, targets, advice };
        show(self.json, &report, Report::show)
    }
}

impl Cpu {
    fn look() -> Result<Cpu> {
        let threads = crate::threads();
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        let kilobytes = |name: &str| -> Option<u64> {
            let line = memory.as_ref()?.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
        };
        Ok(Cpu {
            architecture: std::env::consts::ARCH,
            threads,
            missing: missing(FEATURES.into_iter()),
            wide: missing(["avx512f", "avx512vl", "avx512bw", "avx512dq"].into_iter()).is_empty(),
            memory_bytes: kilobytes("MemTotal"),
            available_bytes: kilobytes("MemAvailable"),
            read_bytes_per_second: read_bandwidth(threads, SWEEP)?,
        })
    }
}

impl Cuda {
    #[cfg(feature = "cuda")]
    fn look() -> Cuda {
        use lolm_runtime::cuda::device::{Device, DeviceError};
        use lolm_runtime::cuda::driver::{Driver, Info, devices, version};
        let of = |i: Info| {
            let memory = Driver::open(i.ordinal, None).and_then(|d| d.memory());
            let (free_bytes, problem) = match memory {
                Ok(m) => (Some(m.free), None),
                Err(e) => (None, Some(e.to_string())),
            };
            Gpu {
                device: format!("cuda:{}", i.ordinal),
                name: i.name,
                sm: format!("sm_{}{}", i.sm.0, i.sm.1),
                multiprocessors: i.multiprocessors,
                memory_bytes: i.memory_bytes,
                free_bytes,
                problem,
            }
        };
        let look = || -> Result<Cuda, DeviceError> {
            let (major, minor) = version()?;
            let gpus = devices()?.into_iter().map(of).collect();
            let driver = Some(format!("{major}.{minor}"));
            Ok(Cuda { driver, problem: None, gpus, cache: crate::device::cache() })
        };
        look().unwrap_or_else(|e| Cuda { problem: Some(e.to_string()), ..Cuda::default() })
    }

    #[cfg(not(feature = "cuda"))]
    fn look() -> Cuda {
        let problem = "this lolm was built without GPUs; build it with the feature `cuda`";
        Cuda { problem: Some(problem.into()), ..Cuda::default() }
    }
}

/// What each target runs on here.
fn targets(cpu: &Cpu, cuda: &Cuda) -> Vec<Target> {
    let gpus = |fits: &dyn Fn(u32) -> bool| -> Vec<String> {
        let number = |g: &Gpu| g.sm.trim_start_matches("sm_").parse().unwrap_or(0);
        let able = cuda.gpus.iter().filter(|g| g.free_bytes.is_some() && fits(number(g)));
        able.map(|g| g.device.clone()).collect()
    };
    let emulator = cfg!(feature = "emulator").then(|| "emulator".to_string());
    let here = cpu.architecture == "x86_64" && cpu.missing.is_empty();
    vec![
        Target { target: "cpu", runs_on: if here { vec!["cpu".into()] } else { vec![] } },
        Target { target: "cuda:sm_80", runs_on: gpus(&|sm| sm >= 80).into_iter().chain(emulator).collect() },
        Target { target: "cuda:sm_90a", runs_on: gpus(&|sm| sm == 90) },
    ]
}

fn advice(cpu: &Cpu, cuda: &Cuda) -> Vec<String> {
    let mut out = vec![];
    if cpu.architecture != "x86_64" {
        out.push(format!("code for the CPU is for x86-64, and this machine is {}", cpu.architecture));
    } else if !cpu.missing.is_empty() {
        out.push(format!("this CPU lacks {}, which code for the CPU uses", cpu.missing.join(", ")));
    }
    out.extend(cuda.problem.clone());
    if cuda.driver.is_some() && cuda.gpus.is_empty() {
        out.push("the NVIDIA driver is there, and finds no GPU: see what `nvidia-smi` says".into());
    }
    for g in &cuda.gpus {
        out.extend(g.problem.as_ref().map(|p| format!("{} cannot be used: {p}", g.device)));
    }
    if !cuda.gpus.is_empty() && cuda.cache.is_none() {
        out.push("set XDG_CACHE_HOME or HOME, so that kernels need not be assembled at every start".into());
    }
    out
}

impl Report {
    fn show(&self) -> String {
        let c = &self.cpu;
        let size = |n: Option<u64>| n.map_or("unknown".into(), bytes);
        let features = match (c.missing.is_empty(), c.wide) {
            (true, true) => "AVX-512".into(),
            (true, false) => "AVX2 and FMA".into(),
            (false, _) => format!("without {}", c.missing.join(", ")),
        };
        let mut out = format!(
            "lolm {}\nCPU: {}, {features}, {} threads; memory {}, {} available, read at {}/s\n",
            self.version,
            c.architecture,
            c.threads,
            size(c.memory_bytes),
            size(c.available_bytes),
            bytes(c.read_bytes_per_second as u64),
        );
        out += &match &self.cuda.driver {
            Some(version) => format!("CUDA: a driver for CUDA {version}, {} GPUs\n", self.cuda.gpus.len()),
            None => "CUDA: none\n".into(),
        };
        for g in &self.cuda.gpus {
            let (whole, free) = (bytes(g.memory_bytes), size(g.free_bytes));
            let Gpu { device, name, sm, multiprocessors: n, .. } = g;
            out += &format!("  {device}: {name}, {sm}, {n} multiprocessors; memory {whole}, {free} free\n");
        }
        out += "targets:\n";
        for t in &self.targets {
            let on = if t.runs_on.is_empty() { "nothing here".into() } else { t.runs_on.join(", ") };
            out += &format!("  {:<12} runs on {on}\n", t.target);
        }
        self.advice.iter().for_each(|a| out += &format!("note: {a}\n"));
        out
    }
}
