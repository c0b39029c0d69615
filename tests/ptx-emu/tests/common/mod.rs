//! What the tests of the emulator share: kernels as text, and a device to run them on.
#![allow(dead_code)]
pub mod gemm;
pub mod kernels;
pub mod rows;

use lolm_ptx_emu::{Address, Counts, Fault, FaultKind, Launch, Memory, Module, Options, launch};

pub const HEADER: &str = ".version 7.0\n.target sm_80\n.address_size 64\n";

/// A parameter of a launch.
#[derive(Clone, Copy)]
pub enum Arg {
    U64(u64),
    U32(u32),
    F32(f32),
}

/// The bytes of a launch, laid out as the kernel says.
pub fn layout(module: &Module, kernel: &str, args: &[Arg]) -> Vec<u8> {
    let k = module.kernel(kernel).unwrap();
    let mut bytes = vec![0; k.param_bytes()];
    assert_eq!(k.params().len(), args.len());
    for (p, a) in k.params().iter().zip(args) {
        let value = match *a {
            Arg::U64(v) => v.to_le_bytes().to_vec(),
            Arg::U32(v) => v.to_le_bytes().to_vec(),
            Arg::F32(v) => v.to_le_bytes().to_vec(),
        };
        assert_eq!(value.len(), p.bytes, "{}", p.name);
        bytes[p.offset..p.offset + p.bytes].copy_from_slice(&value);
    }
    bytes
}

/// Runs the only kernel of a text.
pub fn run(m: &mut Memory, text: &str, grid: [u32; 3], block: [u32; 3], args: &[Arg]) -> Result<Counts, Fault> {
    run_with(m, text, grid, block, args, 0, &Options::default())
}

pub fn run_with(
    m: &mut Memory,
    text: &str,
    grid: [u32; 3],
    block: [u32; 3],
    args: &[Arg],
    dynamic_shared: u32,
    options: &Options,
) -> Result<Counts, Fault> {
    let module = Module::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let name = module.kernels().next().unwrap().to_string();
    let params = layout(&module, &name, args);
    let kernel = module.kernel(&name).unwrap();
    launch(m, &Launch { kernel, grid, block, dynamic_shared, params: &params }, options)
}

pub fn put_f32(m: &mut Memory, v: &[f32]) -> Address {
    let a = m.alloc(4 * v.len());
    m.write(a, &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    a
}

pub fn put_u32(m: &mut Memory, v: &[u32]) -> Address {
    let a = m.alloc(4 * v.len());
    m.write(a, &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    a
}

pub fn put_u16(m: &mut Memory, v: &[u16]) -> Address {
    let a = m.alloc(2 * v.len());
    m.write(a, &v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    a
}

pub fn get_f32(m: &Memory, a: Address, n: usize) -> Vec<f32> {
    get_u32(m, a, n).into_iter().map(f32::from_bits).collect()
}

pub fn get_u32(m: &Memory, a: Address, n: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * n];
    m.read(a, &mut bytes).unwrap_or_else(|e| panic!("{e}"));
    bytes.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect()
}

/// Numbers that look random, between -1 and 1.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(2654435761).wrapping_add(1);
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 17;
        s ^= s << 5;
        (s >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// bf16 to nearest even, in its own words.
pub fn bf16(x: f32) -> u16 {
    let b = x.to_bits();
    ((b + 0x7fff + (b >> 16 & 1)) >> 16) as u16
}

pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits((x as u32) << 16)
}

/// Checks that a launch failed in this way, at the line that holds this text.
#[track_caller]
pub fn faults(result: Result<Counts, Fault>, kind: FaultKind, text: &str) -> Fault {
    let fault = match result {
        Err(f) => f,
        Ok(_) => panic!("expected {kind:?} at `{text}`, and nothing went wrong"),
    };
    assert_eq!(fault.kind, kind, "{fault}");
    let place = fault.place.as_ref().unwrap();
    assert!(place.text.contains(text), "expected it at `{text}`:\n{fault}");
    fault
}
