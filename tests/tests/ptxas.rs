//! NVIDIA's assembler takes every kernel of every program of the families' demos, for sm_80 and sm_90, with all values in
//! registers and without a remark. `scripts/ptxas.sh` fetches it; where it is not there, this is skipped and said so.
use lolm_codegen::ptx::{Sm, preamble};
use lolm_codegen::{Claim, claim};
use lolm_ir::artifact::entry;
use lolm_ir::plan::Module;
use lolm_ir::threads::in_order;
use lolm_models::spec::{Override, library_with};
use lolm_models::{Noise, Program, build};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Options, Source, Target, compile_with};
use std::path::{Path, PathBuf};
use std::process::Command;

const FAMILIES: [&str; 6] = ["lolm", "transformer", "mamba", "jamba", "griffin", "samba"];

fn ptxas() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ptx-tools/ptxas");
    path.exists().then_some(path)
}

/// A training step, an evaluation, a prompt and a token, of the demo of a family.
fn module(family: &str) -> Module {
    let keys = [("training.seq", 64), ("training.batch", 2)].map(|(k, n)| Override::new(k, n.to_string()));
    let spec = library_with(&format!("{family}-demo"), &keys).unwrap().unwrap_or_else(|e| panic!("{family}: {e}"));
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1e3 };
    let programs = [
        (Program::Train { batch: 2, seq: 64, noise: Noise::Random }, Goal::Train(adamw)),
        (Program::Eval { batch: 2, seq: 64 }, Goal::Forward),
        (Program::Step { slots: 1, tokens: 16 }, Goal::Forward),
        (Program::Step { slots: 1, tokens: 1 }, Goal::Forward),
    ];
    let source = |(n, (p, goal)): (usize, &(Program, Goal))| {
        let mut graph = build(&spec, p).unwrap_or_else(|e| panic!("{family}: {e}"));
        graph.name = format!("program_{n}");
        Source { graph, goal: *goal }
    };
    let sources: Vec<Source> = programs.iter().enumerate().map(source).collect();
    let options = Options { target: Target::Gpu, ..Options::default() };
    compile_with(&sources, options, &|_, _| ()).unwrap_or_else(|e| panic!("{family}: {e}"))
}

/// What is wrong in what ptxas says of a module: it exits with 0 after much that is.
fn complaints(said: &str) -> Vec<&str> {
    let wrong = |l: &&str| {
        let memory =
            l.contains("bytes stack frame") && !l.contains("0 bytes stack frame, 0 bytes spill stores, 0 bytes");
        let remark = l.contains("(C75") || l.contains("warning") || l.contains("error") || l.contains("fatal");
        memory || remark || l.contains("lmem")
    };
    said.lines().filter(wrong).collect()
}

#[test]
fn every_kernel_of_the_demos_assembles_in_registers() {
    let Some(ptxas) = ptxas() else {
        eprintln!(
            "skipped: the kernels of {} demos were not assembled; scripts/ptxas.sh fetches ptxas",
            FAMILIES.len()
        );
        return;
    };
    let folder = tempfile();
    let failed: Vec<String> = in_order(FAMILIES.len(), |i| assemble(FAMILIES[i], &ptxas, &folder)).concat();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn tempfile() -> PathBuf {
    let path = std::env::temp_dir().join(format!("lolm-ptxas-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn assemble(family: &str, ptxas: &Path, folder: &Path) -> Vec<String> {
    let m = module(family);
    let claims: Vec<Claim> = m
        .kernels
        .iter()
        .enumerate()
        .map(|(i, k)| claim(k, &entry(i, &k.name)).unwrap_or_else(|e| panic!("{e}")))
        .collect();
    let texts: Vec<&str> = claims.iter().map(|c| c.code.text.as_str()).collect();
    let text = preamble(Sm::Sm80, claims.iter().map(|c| &c.code)) + &texts.join("\n");
    let path = folder.join(format!("{family}.ptx"));
    std::fs::write(&path, text).unwrap();
    let mut failed = vec![];
    for arch in ["sm_80", "sm_90"] {
        let out = folder.join(format!("{family}.{arch}.cubin"));
        let run = Command::new(ptxas).args(["-v", "-arch", arch]).arg(&path).arg("-o").arg(out).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        let assembled = said.matches("Used ").count();
        if !run.status.success() || assembled != m.kernels.len() {
            failed.push(format!("{family}, {arch}: {assembled} of {} kernels\n{said}", m.kernels.len()));
        }
        failed.extend(complaints(&said).iter().map(|l| format!("{family}, {arch}: {l}")));
        println!("{family}: {assembled} kernels assembled for {arch}");
    }
    failed
}

#[test]
fn complaints_are_heard() {
    let fine =
        "ptxas info    : Function properties for f\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    assert!(complaints(fine).is_empty());
    for bad in [
        "    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
        "    0 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads",
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized",
    ] {
        assert_eq!(complaints(bad), [bad]);
    }
}
