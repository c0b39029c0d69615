//! Runs compiled kernels in this process, and as PTX in the emulator, and compares them with the interpreter.
pub mod attention;
pub mod gpu;

use lolm_codegen::KernelCode;
use lolm_ir::DType;
use lolm_ir::kernel::{Kernel, Mode, interp, text};

/// Code mapped read-execute.
pub struct Mapped {
    at: *mut libc::c_void,
    len: usize,
}

impl Mapped {
    pub fn new(code: &[u8]) -> Self {
        let len = code.len().next_multiple_of(4096);
        // SAFETY: a fresh anonymous mapping is written within its length before it becomes executable.
        unsafe {
            let rw = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(std::ptr::null_mut(), len, rw, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            at.cast::<u8>().copy_from_nonoverlapping(code.as_ptr(), code.len());
            assert_eq!(libc::mprotect(at, len, libc::PROT_READ | libc::PROT_EXEC), 0);
            Mapped { at, len }
        }
    }

    /// Runs units begin..end on these operands.
    pub fn call(&self, operands: &mut [Vec<u8>], begin: i64, end: i64) {
        let pointers: Vec<*mut u8> = operands.iter_mut().map(|o| o.as_mut_ptr()).collect();
        // SAFETY: the mapping holds a function of this type, and the operands have the lengths of the kernel's.
        unsafe {
            let f: extern "C" fn(*const *mut u8, i64, i64) = std::mem::transmute(self.at);
            f(pointers.as_ptr(), begin, end);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`.
        unsafe {
            libc::munmap(self.at, self.len);
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// Uniform in -1..1, exact in f32.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 41) as f64 / (1u64 << 22) as f64 - 1.0
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.word() % n
    }
}

/// The bytes of numbers as elements of this dtype.
pub fn encode(dtype: DType, data: &[f64]) -> Vec<u8> {
    let one = |x: &f64| match dtype {
        DType::F32 => (*x as f32).to_le_bytes().to_vec(),
        DType::I32 => (*x as i32).to_le_bytes().to_vec(),
        DType::Bf16 => ((*x as f32).to_bits() >> 16).to_le_bytes()[..2].to_vec(),
        DType::Bool => vec![(*x != 0.0) as u8],
    };
    data.iter().flat_map(one).collect()
}

pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let one = |c: &[u8]| {
        let word = c.iter().rev().fold(0u32, |w, b| w << 8 | *b as u32);
        match dtype {
            DType::F32 => f32::from_bits(word) as f64,
            DType::I32 => word as i32 as f64,
            DType::Bf16 => f32::from_bits(word << 16) as f64,
            DType::Bool => word as f64,
        }
    };
    bytes.chunks_exact(dtype.bytes()).map(one).collect()
}

/// Operands that fit the kernel: numbers in -1..1, bools, and small i32.
pub fn inputs(k: &Kernel, seed: u64) -> Vec<Vec<f64>> {
    let mut n = Numbers(seed);
    let mut one = |dtype: DType| match dtype {
        DType::F32 => n.unit(),
        DType::Bf16 => lolm_ir::interp::round_bf16(n.unit()),
        DType::I32 => n.below(9) as f64 - 1.0,
        DType::Bool => n.below(2) as f64,
    };
    k.operands.iter().map(|o| (0..o.len).map(|_| one(o.dtype)).collect()).collect()
}

pub fn kernel(source: &str) -> Kernel {
    let k = text::parse(source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    k.verify().unwrap_or_else(|e| panic!("{e}"));
    k
}

pub fn compile(k: &Kernel) -> KernelCode {
    lolm_codegen::compile_kernel(k).unwrap_or_else(|e| panic!("{e}\n{k}"))
}

pub fn unit_count(k: &Kernel, code: &KernelCode) -> i64 {
    code.schedule.unit_dims(k).iter().map(|n| *n as i64).product()
}

/// Bytes of guard around each operand, to notice writes outside.
const FENCE: usize = 64;
const FENCE_BYTE: u8 = 0xa5;

/// Runs all units in pieces that end at `cuts`; the operands come back as bytes. Nothing but the operands may be written.
pub fn run_cut(k: &Kernel, code: &KernelCode, data: &[Vec<f64>], cuts: &[i64]) -> Vec<Vec<u8>> {
    let mapped = Mapped::new(&code.code);
    let fence = vec![FENCE_BYTE; FENCE];
    let mut operands: Vec<Vec<u8>> = vec![];
    for (o, d) in k.operands.iter().zip(data) {
        operands.push([&encode(o.dtype, d)[..], &fence].concat());
    }
    let mut begin = 0;
    for end in cuts.iter().copied().chain([unit_count(k, code)]) {
        mapped.call(&mut operands, begin, end);
        begin = end;
    }
    for (o, bytes) in k.operands.iter().zip(&mut operands) {
        let written = bytes.split_off(o.len as usize * o.dtype.bytes());
        assert_eq!(written, fence, "written behind ${}", o.name);
    }
    operands
}

pub fn run(k: &Kernel, code: &KernelCode, data: &[Vec<f64>]) -> Vec<Vec<u8>> {
    run_cut(k, code, data, &[])
}

/// The largest difference of an operand, relative to the larger of 1 and the expected number.
pub fn difference(expected: &[f64], found: &[f64]) -> f64 {
    let one = |(e, f): (&f64, &f64)| {
        if e == f || e.is_nan() && f.is_nan() { 0.0 } else { (e - f).abs() / e.abs().max(1.0) }
    };
    let worst = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
    expected.iter().zip(found).map(one).fold(0.0, worst)
}

/// Compiles, runs and compares with the interpreter, and shows that the partition changes no bit.
pub fn check_on(k: &Kernel, data: &[Vec<f64>], tolerance: f64) {
    let code = compile(k);
    let mut expected = data.to_vec();
    interp::run(k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
    let bytes = run(k, &code, data);
    gpu::check_on(k, data, tolerance);
    for ((o, e), b) in k.operands.iter().zip(&expected).zip(&bytes) {
        let found = decode(o.dtype, b);
        let limit = match (o.mode, o.dtype) {
            (Mode::In, _) | (_, DType::I32 | DType::Bool) => 0.0,
            (_, DType::Bf16) => tolerance.max(1.0 / 128.0),
            (_, DType::F32) => tolerance,
        };
        let d = difference(e, &found);
        let at = e.iter().zip(&found).position(|(e, f)| e != f && !(e.is_nan() && f.is_nan()));
        let values = at.map(|i| (i, e[i], found[i]));
        assert!(d <= limit, "${} differs by {d}, first at {values:?}\n{}\n{k}", o.name, code.schedule_text);
    }
    let n = unit_count(k, &code);
    if n > 1 {
        let cuts: Vec<i64> = if n <= 40 { (1..n).collect() } else { vec![1, n / 3, n / 2, n - 1] };
        assert_eq!(run_cut(k, &code, data, &cuts), bytes, "the partition changes bits\n{k}");
    }
}

pub fn check(source: &str, tolerance: f64) {
    let k = kernel(source);
    check_on(&k, &inputs(&k, 1), tolerance);
}
