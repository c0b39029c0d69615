//! How fast the emulator is: lane instructions a second for some kernels, with and without the race detector.
//! An argument names the only kernel that is run.
#[path = "../tests/common/mod.rs"]
mod common;
use common::Arg::{F32, U32, U64};
use common::{Arg, bf16, gemm, kernels, layout, numbers, put_f32, put_u16};
use lolm_ptx_emu::{Launch, Memory, Module, Options, launch};
use std::time::Instant;

/// x = exp2(x)·x in a loop: arithmetic alone.
fn arithmetic() -> String {
    let body = "    fma.rn.f32 %f2, %f1, %f1, %f2;\n    add.rn.f32 %f3, %f2, %f1;\n    mul.rn.f32 %f1, %f3, 0f3F000000;\n    \
                ex2.approx.ftz.f32 %f4, %f1;\n    max.f32 %f1, %f4, %f3;\n    add.s32 %r3, %r3, %r2;\n    xor.b32 %r4, %r3, %r2;\n";
    common::HEADER.to_string()
        + ".visible .entry arithmetic(.param .u64 out)\n{\n.reg .pred %p<2>;\n.reg .b32 %r<6>;\n.reg .b64 %rd<4>;\n.reg .f32 %f<6>;\n\
           ld.param.u64 %rd1, [out];\nmov.u32 %r2, %tid.x;\ncvt.rn.f32.u32 %f1, %r2;\nmov.f32 %f2, 0f00000000;\nmov.u32 %r3, 0;\n\
           mov.u32 %r1, 0;\nLOOP:\n"
        + &body.repeat(8)
        + "add.u32 %r1, %r1, 1;\nsetp.lt.u32 %p1, %r1, 200;\n@%p1 bra LOOP;\nmul.wide.u32 %rd2, %r2, 4;\nadd.u64 %rd1, %rd1, %rd2;\n\
           st.global.f32 [%rd1], %f1;\nret;\n}\n"
}

fn measure(text: &str, m: &mut Memory, grid: [u32; 3], block: [u32; 3], args: &[Arg]) {
    let module = Module::parse(text).unwrap();
    let name = module.kernels().next().unwrap();
    if std::env::args().nth(1).is_some_and(|only| only != name) {
        return;
    }
    let params = layout(&module, name, args);
    let kernel = module.kernel(name).unwrap();
    let mut rates = vec![];
    for races in [true, false] {
        let o = Options { races, ..Options::default() };
        let l = Launch { kernel, grid, block, dynamic_shared: 0, params: &params };
        let mut best = (f64::MAX, 0);
        for _ in 0..3 {
            let start = Instant::now();
            let c = launch(m, &l, &o).unwrap_or_else(|e| panic!("{e}"));
            let seconds = start.elapsed().as_secs_f64();
            if seconds < best.0 {
                best = (seconds, c.total.lanes);
            }
        }
        rates.push(best.1 as f64 / best.0 / 1e6);
    }
    println!("{name:12} {:8.0} M lane instructions/s, {:8.0} without races", rates[0], rates[1]);
}

fn main() {
    let mut m = Memory::new();
    let out = m.alloc(4096);
    measure(&arithmetic(), &mut m, [1, 1, 1], [256, 1, 1], &[U64(out)]);
    let n = 1 << 20;
    let (x, y) = (put_f32(&mut m, &numbers(n, 1)), put_f32(&mut m, &numbers(n, 2)));
    let args = [U64(y), U64(x), F32(0.5), U32(n as u32)];
    measure(&kernels::saxpy(), &mut m, [n as u32 / 128, 1, 1], [128, 1, 1], &args);
    let sums = m.alloc(4 * n / 256);
    measure(&kernels::block_sum(), &mut m, [n as u32 / 256, 1, 1], [256, 1, 1], &[U64(sums), U64(x), U32(n as u32)]);
    measure(&kernels::transpose(), &mut m, [16, 16, 1], [32, 8, 1], &[U64(y), U64(x), U32(512)]);
    let (a, c) = (put_f32(&mut m, &numbers(256 * 256, 3)), m.alloc(4 * 256 * 256));
    measure(&kernels::matmul(), &mut m, [16, 16, 1], [16, 16, 1], &[U64(c), U64(a), U64(a), U32(256)]);
    let h: Vec<u16> = numbers(256 * 256, 4).iter().map(|&v| bf16(v)).collect();
    let h = put_u16(&mut m, &h);
    measure(&gemm::gemm(), &mut m, [8, 8, 1], [64, 1, 1], &[U64(c), U64(h), U64(h), U32(256), U32(256)]);
}
