//! NVIDIA's assembler takes the kernels of the families' demos, in f32 and in bf16, for sm_80 and sm_90; of kernels that
//! differ in numbers alone the longest one. `cargo run --release -p lolm-tests --example ptxas` takes all of every spec.
//! `scripts/ptxas.sh` fetches the assembler; where it is not there, this is skipped and said so.
use lolm_tests::ptxas::{assemble, names, skeleton};

#[test]
fn every_kernel_of_the_demos_assembles_in_registers() {
    let demos: Vec<&str> = names().filter(|n| n.ends_with("-demo")).collect();
    let done = assemble(&demos, skeleton);
    eprintln!("{}", done.unwrap_or_else(|e| panic!("{e}")));
}

#[test]
fn kernels_that_differ_in_numbers_alone_are_alike() {
    assert_eq!(skeleton("add.s32 %r10, %r2, 512;"), skeleton("add.s32 %r9, %r11, 64;"));
    assert_ne!(skeleton("add.s32 %r10, %r2, 512;"), skeleton("sub.s32 %r10, %r2, 512;"));
}
