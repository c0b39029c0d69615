//! Kernels of specs through NVIDIA's assembler: it must take all, with their values in registers and without a remark.
use lolm_codegen::claim;
use lolm_codegen::ptx::{Assembler, Code, Sm, preamble};
use lolm_ir::plan::Module;
use lolm_ir::threads::in_order;
use lolm_models::spec::{LIBRARY, library};
use lolm_models::{Noise, Program, Spec, build, choosing, prefill_sizes};
use lolm_passes::optimizer::AdamW;
use lolm_passes::pipeline::{Goal, Options, Precision, Source, Target, compile_with};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Kernels that are assembled in one call.
const TOGETHER: usize = 32;
const CHIPS: [&str; 2] = ["sm_80", "sm_90"];

/// The code of a kernel as an entry of no name, and who has it.
struct Entry {
    code: Code,
    owner: String,
}

/// What `lolm compile` makes of a spec: a training step, an evaluation, prompts of several lengths, a token.
fn programs(spec: &Spec) -> Vec<(Program, Goal)> {
    let t = &spec.training;
    let (batch, seq) = (t.batch, t.seq);
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), skip_above: 1e3 };
    let mut out = vec![
        (Program::Train { batch, seq, noise: Noise::Random }, Goal::Train(adamw)),
        (Program::Eval { batch, seq }, Goal::Forward),
    ];
    let sizes = prefill_sizes(spec);
    let prompts = [256, 64, 16, 4].into_iter().filter(|n| sizes.contains(n));
    out.extend(prompts.chain([1]).map(|tokens| (Program::Step { slots: 1, tokens }, Goal::Forward)));
    out
}

fn module(name: &str, precision: Precision) -> Module {
    let spec = library(name).unwrap().unwrap_or_else(|e| panic!("{name}: {e}"));
    let source = |(n, (p, goal)): (usize, &(Program, Goal))| {
        let graph = build(&spec, p).and_then(choosing);
        let mut graph = graph.unwrap_or_else(|e| panic!("{name}: {e}"));
        graph.name = format!("program_{n}");
        Source { graph, goal: *goal }
    };
    let sources: Vec<Source> = programs(&spec).iter().enumerate().map(source).collect();
    let options = Options { target: Target::Gpu, precision, ..Options::default() };
    compile_with(&sources, options, &|_, _| ()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The code of all kernels of a spec.
fn entries(name: &str, precision: Precision) -> Vec<Entry> {
    let m = module(name, precision);
    let one = |k: &lolm_ir::kernel::Kernel| {
        let code = claim(k, "entry").unwrap_or_else(|e| panic!("{e}")).code;
        let lines = code.text.lines().filter(|l| !l.is_empty() && !l.trim_start().starts_with("//"));
        let text = lines.collect::<Vec<_>>().join("\n");
        Entry { code: Code { text, ..code }, owner: format!("{name} {precision:?} {}", k.name) }
    };
    m.kernels.iter().map(one).collect()
}

/// The text with every number replaced: kernels that agree in it differ in lengths, offsets and constants.
pub fn skeleton(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_number = false;
    for c in text.chars() {
        let digit = c.is_ascii_digit();
        if digit && !in_number {
            out.push('0');
        }
        if !digit {
            out.push(c);
        }
        in_number = digit;
    }
    out
}

/// Of the entries with one key the longest.
fn distinct(all: Vec<Entry>, key: impl Fn(&str) -> String) -> Vec<Entry> {
    let mut kept: BTreeMap<String, Entry> = BTreeMap::new();
    for e in all {
        let key = key(&e.code.text);
        if kept.get(&key).is_none_or(|k| k.code.text.len() < e.code.text.len()) {
            kept.insert(key, e);
        }
    }
    kept.into_values().collect()
}

/// The specs that come with the compiler.
pub fn names() -> impl Iterator<Item = &'static str> {
    LIBRARY.iter().map(|(name, _)| *name)
}

fn folder() -> PathBuf {
    let path = std::env::temp_dir().join(format!("lolm-ptxas-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Assembles the kernels of these specs for both chips; `key` says which kernels are alike. Gives what was done, or what is
/// wrong.
pub fn assemble(specs: &[&str], key: impl Fn(&str) -> String) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ptx-tools/ptxas");
    let Some(ptxas) = Assembler::at(&path) else {
        let fetch = "scripts/ptxas.sh fetches ptxas";
        return Ok(format!("skipped: the kernels of {} specs were not assembled; {fetch}", specs.len()));
    };
    let both = [Precision::F32, Precision::Bf16];
    let all = in_order(2 * specs.len(), |i| entries(specs[i / 2], both[i % 2]));
    let all = all.into_iter().flatten().collect::<Vec<_>>();
    let count = all.len();
    let kept = distinct(all, key);
    let batches: Vec<&[Entry]> = kept.chunks(TOGETHER).collect();
    let folder = folder();
    let complaints = in_order(CHIPS.len() * batches.len(), |i| {
        let (n, chip) = (i / CHIPS.len(), CHIPS[i % CHIPS.len()]);
        batch(&ptxas, batches[n], chip, &folder.join(format!("{n}.{chip}.ptx")))
    });
    std::fs::remove_dir_all(&folder).unwrap();
    let complaints = complaints.concat();
    let (kept, specs, chips) = (kept.len(), specs.len(), CHIPS.join(" and "));
    match complaints.is_empty() {
        true => Ok(format!("{kept} distinct kernels of {count} in {specs} specs assembled for {chips}")),
        false => Err(complaints.join("\n")),
    }
}

/// Assembles kernels together, each under a name of its own.
fn batch(ptxas: &Assembler, kernels: &[Entry], chip: &str, file: &Path) -> Vec<String> {
    let named = |(i, e): (usize, &Entry)| e.code.text.replacen(".entry entry(", &format!(".entry k{i}("), 1);
    let texts: Vec<String> = kernels.iter().enumerate().map(named).collect();
    let text = preamble(Sm::Sm80, kernels.iter().map(|k| &k.code)) + &texts.join("\n");
    let done = ptxas.assemble(&text, chip, file).unwrap();
    let owner = |line: &str| {
        let number = line.strip_prefix('k').and_then(|l| l.split(':').next()?.parse::<usize>().ok());
        number.and_then(|n| kernels.get(n)).map_or("", |e| e.owner.as_str())
    };
    let mut out: Vec<String> = done.complaints.iter().map(|l| format!("{chip}: {}: {l}", owner(l))).collect();
    if done.entries.len() != kernels.len() {
        out.push(format!("{chip}: {} of {} kernels assembled", done.entries.len(), kernels.len()));
    }
    out
}
