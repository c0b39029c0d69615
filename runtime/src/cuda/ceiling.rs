//! What a device can do at most, by kernels that do nothing else: copy memory, multiply and add in f32, multiply matrices
//! of bf16. Rooflines are drawn with these.
use super::device::{Address, Device, DeviceError, Entry, Kernel, Launch, Sequence};

/// Bytes that a block copies: four vectors of 16 bytes to a thread.
const BLOCK_BYTES: usize = THREADS as usize * 16 * 4;
const THREADS: u32 = 256;
/// Sums that a thread, or a warp, keeps at once: more than the units have stages.
const CHAINS: usize = 16;
const TILES: usize = 8;
/// Operations of one matrix instruction: 16 · 8 · 16 products and sums.
const TILE_FLOPS: u64 = 2 * 16 * 8 * 16;
/// How often each is measured; the best counts.
const ROUNDS: usize = 10;

/// How large the measurements are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Bytes that are copied: many times the last cache.
    pub bytes: usize,
    /// Turns of the loops of arithmetic.
    pub turns: u32,
    /// Blocks for each multiprocessor.
    pub blocks: u32,
}

impl Effort {
    /// Enough for a GPU: milliseconds.
    pub const GPU: Effort = Effort { bytes: 1 << 30, turns: 2048, blocks: 16 };
    /// What an emulator does in a moment, to show that the kernels are right.
    pub const SMALL: Effort = Effort { bytes: 4 * BLOCK_BYTES, turns: 2, blocks: 1 };
}

/// The most that a device does in a second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ceilings {
    /// Bytes read and written by a copy.
    pub bytes: f64,
    /// Operations in f32.
    pub f32_flops: f64,
    /// Operations of matrix instructions on bf16, with sums in f32.
    pub bf16_flops: f64,
}

/// Measures all of them.
pub fn measure(device: &dyn Device, effort: Effort) -> Result<Ceilings, DeviceError> {
    let blocks = device.multiprocessors() * effort.blocks;
    let copied = effort.bytes / BLOCK_BYTES * BLOCK_BYTES;
    let memory = Memory::new(device, &[copied, copied, (blocks * THREADS) as usize * 4])?;
    let [from, to, out] = memory.at[..] else { return Err(few()) };
    device.fill(from, copied, 1)?;
    let kernels = device.load(&text(effort.turns), &entries())?;
    let [copy, fma, mma] = kernels[..] else { return Err(few()) };
    let (turns, warps) = (effort.turns as u64, (THREADS / 32) as u64);
    let copy = best(device, copy, (copied / BLOCK_BYTES) as u32, &[from, to])?;
    let fma = best(device, fma, blocks, &[out])?;
    let mma = best(device, mma, blocks, &[out])?;
    let f32_flops = 2 * turns * CHAINS as u64 * (blocks * THREADS) as u64;
    let bf16_flops = TILE_FLOPS * turns * TILES as u64 * blocks as u64 * warps;
    Ok(Ceilings {
        bytes: 2.0 * copied as f64 / copy,
        f32_flops: f32_flops as f64 / fma,
        bf16_flops: bf16_flops as f64 / mma,
    })
}

fn few() -> DeviceError {
    DeviceError::Call { call: "measuring", what: "bug: the device gives less than it was asked for".into() }
}

/// Memory that is given back.
struct Memory<'a> {
    device: &'a dyn Device,
    at: Vec<Address>,
}

impl<'a> Memory<'a> {
    fn new(device: &'a dyn Device, sizes: &[usize]) -> Result<Self, DeviceError> {
        Ok(Memory { device, at: device.alloc(sizes)? })
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // What cannot be freed is freed with the device.
        let _ = self.device.free(&self.at);
    }
}

/// The least seconds that a launch took.
fn best(device: &dyn Device, kernel: Kernel, grid: u32, operands: &[Address]) -> Result<f64, DeviceError> {
    let mut program = Sequence::default();
    (0..ROUNDS).for_each(|_| program.push(Launch { kernel, grid, block: THREADS, shared: 0, operands, after: &[] }));
    let (prepared, mut times) = (device.prepare(&program)?, [0; ROUNDS]);
    device.time(prepared, &mut times)?;
    Ok(times.into_iter().min().unwrap_or(0).max(1) as f64 / 1e9)
}

fn entries() -> [Entry; 3] {
    let entry = |name: &str, operands| Entry { name: name.into(), operands, threads: THREADS, shared: 0 };
    [entry("copy", 2), entry("multiply_add", 1), entry("matrix", 1)]
}

/// The module.
fn text(turns: u32) -> String {
    [".version 7.0\n.target sm_80\n.address_size 64\n".into(), copy(), multiply_add(turns), matrix(turns)].concat()
}

/// A block copies a part of its own; neighbours among the threads copy neighbours.
fn copy() -> String {
    let at = |i: usize| i * THREADS as usize * 16;
    let vector = |i: usize| format!("{{%v{}, %v{}, %v{}, %v{}}}", 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3);
    let loads: String = (0..4).map(|i| format!("ld.global.v4.u32 {}, [%d0+{}];\n", vector(i), at(i))).collect();
    let stores: String = (0..4).map(|i| format!("st.global.v4.u32 [%d1+{}], {};\n", at(i), vector(i))).collect();
    format!(
        ".visible .entry copy(.param .u64 from, .param .u64 to)\n.maxntid {THREADS}, 1, 1\n{{\n\
         .reg .b32 %r<2>;\n.reg .b32 %v<16>;\n.reg .b64 %d<4>;\n\
         ld.param.u64 %d0, [from];\nld.param.u64 %d1, [to];\nmov.u32 %r0, %ctaid.x;\nmov.u32 %r1, %tid.x;\n\
         mul.wide.u32 %d2, %r0, {BLOCK_BYTES};\nmul.wide.u32 %d3, %r1, 16;\nadd.u64 %d2, %d2, %d3;\n\
         add.u64 %d0, %d0, %d2;\nadd.u64 %d1, %d1, %d2;\n{loads}{stores}ret;\n}}\n"
    )
}

/// Chains of multiply and add in each thread; their sum is stored, so that all of them are needed.
fn multiply_add(turns: u32) -> String {
    let each = |line: &dyn Fn(usize) -> String| (0..CHAINS).map(line).collect::<String>();
    let starts = each(&|i| format!("add.rn.f32 %f{i}, %x, 0f{:08X};\n", (i as f32).to_bits()));
    let body = each(&|i| format!("fma.rn.f32 %f{i}, %f{i}, %y, %x;\n"));
    let sums: String = (1..CHAINS).map(|i| format!("add.rn.f32 %f0, %f0, %f{i};\n")).collect();
    arithmetic("multiply_add", turns, &format!(".reg .f32 %f<{CHAINS}>;\n"), &starts, &body, &sums)
}

/// Chains of matrix instructions in each warp.
fn matrix(turns: u32) -> String {
    let d = |t: usize| format!("{{%f{}, %f{}, %f{}, %f{}}}", 4 * t, 4 * t + 1, 4 * t + 2, 4 * t + 3);
    let count = 4 * TILES;
    let mut starts: String = (0..count).map(|i| format!("mov.f32 %f{i}, 0f00000000;\n")).collect();
    // Two bf16 about 1 whose last bits differ from lane to lane: what the units turn over costs power.
    starts += &(0..6)
        .map(|i| {
            format!(
                "mul.lo.u32 %m{i}, %id, {};\nand.b32 %m{i}, %m{i}, 0x007F007F;\nor.b32 %m{i}, %m{i}, 0x3F803F80;\n",
                0x9E37 + 2 * i
            )
        })
        .collect::<String>();
    let body: String = (0..TILES)
        .map(|t| {
            format!(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {}, {{%m0, %m1, %m2, %m3}}, {{%m4, %m5}}, {};\n",
                d(t),
                d(t)
            )
        })
        .collect();
    let sums: String = (1..count).map(|i| format!("add.rn.f32 %f0, %f0, %f{i};\n")).collect();
    let registers = format!(".reg .f32 %f<{count}>;\n.reg .b32 %m<6>;\n");
    arithmetic("matrix", turns, &registers, &starts, &body, &sums)
}

/// A loop of so many turns; each thread stores what is left in %f0.
fn arithmetic(name: &str, turns: u32, registers: &str, starts: &str, body: &str, sums: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 out)\n.maxntid {THREADS}, 1, 1\n{{\n\
         .reg .pred %p;\n.reg .b32 %r<3>;\n.reg .b32 %id;\n.reg .f32 %x;\n.reg .f32 %y;\n.reg .b64 %d<2>;\n{registers}\
         ld.param.u64 %d0, [out];\nmov.u32 %id, %tid.x;\nmov.u32 %r0, %ctaid.x;\n\
         mad.lo.u32 %r1, %r0, {THREADS}, %id;\nmul.wide.u32 %d1, %r1, 4;\nadd.u64 %d0, %d0, %d1;\n\
         cvt.rn.f32.u32 %x, %id;\nmov.f32 %y, 0f3F000000;\n{starts}mov.u32 %r2, 0;\nAGAIN:\n{body}\
         add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p, %r2, {turns};\n@%p bra AGAIN;\n{sums}st.global.f32 [%d0], %f0;\nret;\n}}\n"
    )
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::cuda::emulator::Emulator;

    #[test]
    fn the_kernels_do_what_they_are_measured_by() {
        let device = Emulator::default();
        let c = measure(&device, Effort::SMALL).unwrap();
        assert!(c.bytes > 0.0 && c.f32_flops > 0.0 && c.bf16_flops > 0.0, "{c:?}");
        let at = device.alloc(&[2 * BLOCK_BYTES, 2 * BLOCK_BYTES]).unwrap();
        let bytes: Vec<u8> = (0..2 * BLOCK_BYTES).map(|i| (i * 7 % 251) as u8).collect();
        device.upload(at[0], &bytes).unwrap();
        let kernels = device.load(&text(1), &entries()).unwrap();
        let launch = Launch { kernel: kernels[0], grid: 2, block: THREADS, shared: 0, operands: &at, after: &[] };
        device.launch(&launch).unwrap();
        let mut copied = vec![0; bytes.len()];
        device.download(at[1], &mut copied).unwrap();
        assert_eq!(copied, bytes);
    }
}
