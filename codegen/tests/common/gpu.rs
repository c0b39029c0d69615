//! Runs kernels as PTX in the emulator.
use super::{decode, encode};
use lolm_codegen::Claim;
use lolm_codegen::ptx::{Assembler, Sm, Usage, preamble};
use lolm_ir::DType;
use lolm_ir::kernel::{Kernel, Mode, interp};
use lolm_ptx_emu::{Counts, Launch, Memory, Module, Options, launch};
use std::path::{Path, PathBuf};

pub const ENTRY: &str = "kernel_0";

pub fn claim(k: &Kernel) -> Claim {
    lolm_codegen::claim(k, ENTRY).unwrap_or_else(|e| panic!("{e}\n{k}"))
}

/// The claim's entry as a module of its own.
pub fn text(c: &Claim) -> String {
    preamble(Sm::Sm80, [&c.code].into_iter()) + &c.code.text
}

pub fn units(c: &Claim) -> u32 {
    c.code.unit_dims.iter().product()
}

/// Runs all units on these operands, which come back as bytes.
pub fn run(k: &Kernel, c: &Claim, data: &[Vec<f64>]) -> (Vec<Vec<u8>>, Counts) {
    let text = text(c);
    run_text(k, c, &text, data).unwrap_or_else(|e| panic!("{e}\n{}\n{k}\n{text}", c.schedule))
}

/// The same of this text, with what the emulator has against it.
pub fn run_text(k: &Kernel, c: &Claim, text: &str, data: &[Vec<f64>]) -> Result<(Vec<Vec<u8>>, Counts), String> {
    let module = Module::parse(text).map_err(|e| e.to_string())?;
    let kernel = module.kernel(ENTRY).expect("the entry");
    let mut memory = Memory::new();
    let (mut params, mut addresses) = (vec![], vec![]);
    for (o, d) in k.operands.iter().zip(data) {
        let bytes = encode(o.dtype, d);
        let a = memory.alloc(bytes.len());
        memory.write(a, &bytes).expect("an operand");
        params.extend(a.to_le_bytes());
        addresses.push((a, bytes.len()));
    }
    let block = c.code.block;
    let grid = [units(c).div_ceil(block.units), 1, 1];
    let l = Launch { kernel, grid, block: [block.threads, 1, 1], dynamic_shared: block.shared, params: &params };
    let counts = launch(&mut memory, &l, &Options::default()).map_err(|e| e.to_string())?;
    let read = |(a, len): &(u64, usize)| {
        let mut out = vec![0; *len];
        memory.read(*a, &mut out).expect("an operand");
        out
    };
    Ok((addresses.iter().map(read).collect(), counts))
}

/// Compares with what the interpreter expects, as strictly as the CPU's code is compared.
pub fn compare(k: &Kernel, c: &Claim, expected: &[Vec<f64>], found: &[Vec<u8>], tolerance: f64) {
    for ((o, e), b) in k.operands.iter().zip(expected).zip(found) {
        let found = decode(o.dtype, b);
        let limit = match (o.mode, o.dtype) {
            (Mode::In, _) | (_, DType::I32 | DType::Bool) => 0.0,
            (_, DType::Bf16) => tolerance.max(1.0 / 128.0),
            (_, DType::F32) => tolerance,
        };
        let d = super::difference(e, &found);
        let at = e.iter().zip(&found).position(|(e, f)| e != f && !(e.is_nan() && f.is_nan()));
        let values = at.map(|i| (i, e[i], found[i]));
        let schedule = &c.schedule;
        assert!(d <= limit, "${} differs by {d}, first at {values:?}\n{schedule}\n{k}\n{}", o.name, c.code.text);
    }
}

/// Runs and compares with the interpreter.
pub fn check_on(k: &Kernel, data: &[Vec<f64>], tolerance: f64) {
    let c = claim(k);
    let mut expected = data.to_vec();
    interp::run(k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
    compare(k, &c, &expected, &run(k, &c, data).0, tolerance);
}

/// Takes each barrier out, and each wait for what was copied, one at a time: the emulator misses every one. Gives their
/// number. The last wait only ends what nobody reads any more.
pub fn barriers_are_needed(k: &Kernel, c: &Claim, data: &[Vec<f64>]) -> usize {
    let text = text(c);
    let lines: Vec<&str> = text.lines().collect();
    let last_wait = lines.iter().rposition(|l| l.contains("cp.async.wait"));
    let holds = |l: &str| l.trim_start().starts_with("bar.") || l.contains("cp.async.wait");
    let barriers: Vec<usize> = (0..lines.len()).filter(|i| holds(lines[*i]) && Some(*i) != last_wait).collect();
    for at in &barriers {
        let without: Vec<&str> = lines.iter().enumerate().filter(|l| l.0 != *at).map(|l| *l.1).collect();
        let found = run_text(k, c, &(without.join("\n") + "\n"), data);
        assert!(found.is_err(), "{}: line {at} `{}` is not missed\n{text}", c.schedule, lines[*at]);
    }
    barriers.len()
}

/// NVIDIA's assembler, and a folder for what goes through it, which goes away with it.
pub struct Assembly {
    assembler: Assembler,
    folder: PathBuf,
}

impl Assembly {
    /// Nothing if it was not fetched; then it says how many kernels, and of what, are not assembled.
    pub fn of(count: usize, what: &str) -> Option<Assembly> {
        let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ptx-tools/ptxas");
        let Some(assembler) = Assembler::at(&at) else {
            eprintln!("skipped: {count} {what} were not assembled; scripts/ptxas.sh fetches ptxas");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("lolm-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Some(Assembly { assembler, folder })
    }

    /// What a kernel takes of this chip, where all of its values are in registers.
    pub fn usage(&self, c: &Claim, chip: &str) -> Usage {
        let done = self.assembler.assemble(&text(c), chip, &self.folder.join("a.ptx")).expect("the assembler runs");
        assert!(done.complaints.is_empty(), "{}\n{}", c.schedule, done.complaints.join("\n"));
        done.entries.into_iter().next().expect("the entry")
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        // A folder that is left behind in the temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
