//! Text that is wrong in any way: the parser answers, and what it takes runs to an end or to a fault. Nothing panics.
mod common;
use common::{gemm, kernels, numbers, put_f32};
use lolm_ptx_emu::{Launch, Memory, Module, Options, launch};
use proptest::prelude::*;

fn texts() -> Vec<String> {
    let extra = "\n.visible .entry more(.param .u64 p)\n{\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n.reg .pred %p;\n.reg .b16 %h;\n\
                 .local .align 8 .b8 own[32];\nld.param.u64 %rd1, [p];\ncvta.to.global.u64 %rd1, %rd1;\nmov.u32 %r1, %tid.x;\n\
                 st.local.u32 [own+4], %r1;\nld.local.u32 %r2, [own+4];\nbfe.u32 %r3, %r2, 3, 5;\nprmt.b32 %r3, %r2, %r1, 0x3210;\n\
                 vote.sync.any.pred %p, %p, -1;\natom.global.add.u32 %r4, [%rd1], 1;\n{ .reg .f32 %r1; mov.f32 %r1, 1.5; }\n\
                 cvt.rn.bf16.f32 %h, %r1;\nbar.red.popc.u32 %r5, 0, %p;\nred.shared.add.u32 [%r1], 3;\nret;\n}\n";
    vec![
        kernels::saxpy(),
        kernels::block_sum(),
        kernels::matmul(),
        gemm::gemm(),
        gemm::last_block(),
        common::HEADER.to_string() + ".const .align 8 .f32 t[3] = {1.0, 0f3f800000, -2.5};\n" + extra,
    ]
}

/// Pieces that often stand where they do harm.
const PIECES: &[&str] = &[
    "",
    ";",
    "{",
    "}",
    "[",
    "]",
    ",",
    "%r1",
    "%rd1",
    "%p1",
    "%f1",
    "0xffffffff",
    "-1",
    "4294967295",
    "18446744073709551615",
    ".b64",
    ".reg .b32 %z<4294967295>;",
    ".v4",
    "ret;",
    "bar.sync 0;",
    "bar.sync 17;",
    "bra LOOP;",
    "@!%p1",
    "/*",
    "\"",
    "é",
    "\u{0}",
    "0f12",
    ".shared .align 4 .b8 big[4294967295];",
    "[%rd1+9223372036854775807]",
    "|",
    "!",
    "%tid.x",
    "st.global.v4.f32",
    ":",
    "::",
    "0x",
    "<",
    ">",
    "shfl.sync.idx.b32 %r1, %r2, %r3, %r4, %r5;",
    "cp.async.wait_group 9;",
    "trap;",
    ".param",
    ".entry k() {",
    "exit;",
    "mov.u32 %r1, tile;",
];

/// Replaces a few stretches of a text by pieces, or by other stretches of it.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<u16>(), 0usize..24, 0usize..PIECES.len() * 2, any::<u16>());
    (0..texts().len(), prop::collection::vec(edit, 1..5)).prop_map(|(which, edits)| {
        let mut t: Vec<char> = texts()[which].chars().collect();
        for (at, len, piece, from) in edits {
            let at = at as usize % t.len();
            let end = (at + len).min(t.len());
            let new: Vec<char> = match PIECES.get(piece) {
                Some(p) => p.chars().collect(),
                None => t[from as usize % t.len()..].iter().take(len).copied().collect(),
            };
            t.splice(at..end, new);
        }
        t.into_iter().collect()
    })
}

/// Runs all kernels of a text with parameters that point somewhere.
fn run_all(text: &str) {
    let Ok(module) = Module::parse(text) else { return };
    let mut m = Memory::new();
    let a = put_f32(&mut m, &numbers(2048, 1));
    for name in module.kernels() {
        let kernel = module.kernel(name).unwrap();
        let mut params: Vec<u8> =
            [a, a + 2048, a + 4096].iter().flat_map(|x| x.to_le_bytes()).chain([32, 0, 0, 0, 32, 0, 0, 0]).collect();
        params.resize(kernel.param_bytes(), 0);
        for block in [[64, 1, 1], [16, 16, 1], [256, 1, 1], [128, 1, 1]] {
            let o = Options { max_steps: 3000, ..Options::default() };
            let l = Launch { kernel, grid: [2, 1, 1], block, dynamic_shared: 0, params: &params };
            if let Err(e) = launch(&mut m, &l, &o) {
                assert!(!e.to_string().contains("bug"), "{e}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_kernel_is_answered(text in mutated()) {
        run_all(&text);
    }

    #[test]
    fn any_text_is_answered(text in "[ -~\n]{0,200}") {
        let _ = Module::parse(&text);
        let _ = Module::parse(&format!(".entry k()\n{{\n{text}\n}}"));
    }
}

#[test]
fn the_end_may_come_anywhere() {
    for text in texts() {
        for (end, _) in text.char_indices().step_by(3) {
            let _ = Module::parse(&text[..end]);
        }
        Module::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn an_error_says_where_what_and_what_to_do() {
    let say = |text: &str| Module::parse(text).unwrap_err().to_string();
    let saxpy = kernels::saxpy();
    let e = say(&saxpy.replace("fma.rn.f32 %f4", "fma.rn.f32 %f9"));
    assert_eq!(e, "PTX line 29: the name `%f9` is not known; declare it with .reg, in this scope or in one around it");
    let e = say(&saxpy.replace("bra DONE", "bra GONE"));
    assert_eq!(e, "PTX line 21: the label `GONE` is not in this kernel; declare it in this scope or in one around it");
    let e = say(&saxpy.replace("ld.global.nc.f32", "ld.global.f32x"));
    assert!(e.starts_with("PTX line 27: `ld.global.f32x` has no type"), "{e}");
    let e = say(&saxpy.replace("add.s64", "wgmma.s64"));
    assert!(e.contains("`wgmma.s64` is an instruction this emulator does not run"), "{e}");
    let e = say(&saxpy.replace("the guard of the tail", "i \u{2265} n"));
    assert_eq!(e, "PTX line 20: the character '\u{2265}'; PTX is ASCII, in its comments as well");
    let e = say(&saxpy.replace("    ret;\n}", "    ret;\n"));
    assert!(e.contains("the end of the text stands where it cannot"), "{e}");
}
