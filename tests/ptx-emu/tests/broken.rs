//! The real kernels, broken on purpose: each fault is found, and names the line where it shows.
mod common;
use common::Arg::{F32, U32, U64};
use common::{HEADER, bf16, faults, gemm, kernels, numbers, put_f32, put_u16, put_u32, run, run_with};
use lolm_ptx_emu::{Counts, Fault, FaultKind, Memory, Options};

/// The text with one piece replaced, which has to be there.
#[track_caller]
fn broken(text: &str, good: &str, bad: &str) -> String {
    assert!(text.contains(good), "`{good}` is not in the text");
    text.replacen(good, bad, 1)
}

fn saxpy(text: &str) -> Result<Counts, Fault> {
    let mut m = Memory::new();
    let (x, y) = (put_f32(&mut m, &numbers(1000, 1)), put_f32(&mut m, &numbers(1000, 2)));
    run(&mut m, text, [8, 1, 1], [128, 1, 1], &[U64(y), U64(x), F32(0.5), U32(1000)])
}

fn block_sum(text: &str, seed: u64) -> Result<Counts, Fault> {
    let mut m = Memory::new();
    let (x, out) = (put_f32(&mut m, &numbers(1500, 3)), m.alloc(24));
    let o = Options { seed, ..Options::default() };
    run_with(&mut m, text, [6, 1, 1], [256, 1, 1], &[U64(out), U64(x), U32(1500)], 0, &o)
}

fn matmul(text: &str, seed: u64) -> Result<Counts, Fault> {
    let mut m = Memory::new();
    let (a, b) = (put_f32(&mut m, &numbers(48 * 48, 5)), put_f32(&mut m, &numbers(48 * 48, 6)));
    let c = m.alloc(4 * 48 * 48);
    let o = Options { seed, ..Options::default() };
    run_with(&mut m, text, [3, 3, 1], [16, 16, 1], &[U64(c), U64(a), U64(b), U32(48)], 0, &o)
}

fn product(text: &str, seed: u64) -> Result<Counts, Fault> {
    let mut d = Memory::new();
    let halves = |n, seed| numbers(n, seed).iter().map(|&x| bf16(x)).collect::<Vec<_>>();
    let (a, b) = (put_u16(&mut d, &halves(64 * 80, 7)), put_u16(&mut d, &halves(80 * 96, 8)));
    let c = d.alloc(4 * 64 * 96);
    let o = Options { seed, ..Options::default() };
    run_with(&mut d, text, [3, 2, 1], [64, 1, 1], &[U64(c), U64(a), U64(b), U32(96), U32(80)], 0, &o)
}

fn last_block(text: &str, seed: u64) -> Result<Counts, Fault> {
    let mut m = Memory::new();
    let (x, out, part, count) = (put_f32(&mut m, &numbers(3000, 9)), m.alloc(4), m.alloc(96), m.alloc_zeroed(4));
    let o = Options { seed, ..Options::default() };
    let args = [U64(out), U64(part), U64(count), U64(x), U32(3000)];
    run_with(&mut m, text, [24, 1, 1], [128, 1, 1], &args, 0, &o)
}

/// Whatever the order of the warps, the launch ends in one of these faults.
#[track_caller]
fn always(runs: impl Fn(u64) -> Result<Counts, Fault>, kinds: &[FaultKind]) {
    for seed in 0..12 {
        match runs(seed) {
            Ok(_) => panic!("seed {seed} found nothing"),
            Err(f) => assert!(kinds.contains(&f.kind), "seed {seed}: {f}"),
        }
    }
}

#[test]
fn an_index_past_the_end_is_out_of_bounds() {
    let text = broken(&kernels::saxpy(), "setp.ge.u32 %p1, %r5, %r1", "setp.gt.u32 %p1, %r5, %r1");
    let f = faults(saxpy(&text), FaultKind::OutOfBounds, "ld.global.nc.f32 %f2, [%rd6]");
    let place = f.place.as_ref().unwrap();
    assert_eq!((place.block, place.warp, place.lane), ([7, 0, 0], 3, Some(8)), "{f}");
    assert!(f.what.contains("0 past the end of allocation 0"), "{f}");
}

#[test]
fn a_wrong_stride_is_misaligned() {
    let text = broken(&kernels::saxpy(), "mul.wide.u32 %rd5, %r5, 4", "mul.wide.u32 %rd5, %r5, 2");
    faults(saxpy(&text), FaultKind::Misaligned, "ld.global.nc.f32");
}

#[test]
fn an_index_without_the_block_is_a_race_between_blocks() {
    let text = broken(&kernels::saxpy(), "mad.lo.s32 %r5, %r2, %r3, %r4", "mov.u32 %r5, %r4");
    let f = faults(saxpy(&text), FaultKind::Race, "%rd7]");
    assert!(f.other.as_ref().unwrap().1.contains("st.global.f32 [%rd7], %f4"), "{f}");
    assert!(f.what.contains("another block"), "{f}");
}

#[test]
fn a_register_that_one_path_does_not_set() {
    let f = faults(
        block_sum(&broken(&kernels::block_sum(), "mov.f32 %f1, 0f00000000;", ""), 0),
        FaultKind::UninitialisedRegister,
        "shfl.sync.bfly.b32 %f2, %f1, 16",
    );
    assert!(f.what.contains("%f1"), "{f}");
}

#[test]
fn a_missing_barrier_is_a_race_or_an_undefined_read() {
    let text = broken(&kernels::block_sum(), "bar.sync 0; ", "");
    always(|seed| block_sum(&text, seed), &[FaultKind::Race, FaultKind::UninitialisedMemory]);
    // Between reading the tile and filling it again: the values are defined, so only the race shows.
    let text = broken(&kernels::matmul(), "bar.sync 0;                          // both tiles were read", "");
    always(|seed| matmul(&text, seed), &[FaultKind::Race]);
    let f = matmul(&text, 0).unwrap_err();
    let (here, there) = (&f.place.as_ref().unwrap().text, &f.other.as_ref().unwrap().1);
    assert!(here.contains(".shared.f32") && there.contains(".shared.f32"), "{f}");
}

#[test]
fn a_missing_wait_reads_what_is_in_flight() {
    for bad in ["", "cp.async.wait_group 2;"] {
        let text = broken(&gemm::gemm(), "cp.async.wait_group 1;", bad);
        for seed in 0..4 {
            faults(product(&text, seed), FaultKind::InFlight, "ldmatrix");
        }
    }
    // Without a group of its own the last stage is waited for too early to be there.
    let text = broken(&gemm::gemm(), "FILLED:\n    cp.async.commit_group;", "FILLED:");
    always(|seed| product(&text, seed), &[FaultKind::InFlight]);
}

#[test]
fn a_pipeline_without_its_barriers() {
    let kinds = [FaultKind::Race, FaultKind::InFlight, FaultKind::UninitialisedMemory];
    let text = broken(&gemm::gemm(), "bar.sync 0;                          // the stage of all threads is there", "");
    always(|seed| product(&text, seed), &kinds);
    let text = broken(&gemm::gemm(), "bar.sync 0;                          // the stage was read by all", "");
    always(|seed| product(&text, seed), &kinds);
}

#[test]
fn a_swizzle_of_one_side_alone_gives_wrong_numbers_but_bank_conflicts_are_counted() {
    let text = broken(&gemm::gemm(), "xor.b32 %r14, %r12, %r14;", "mov.b32 %r14, %r12;");
    let text = broken(&text, "xor.b32 %r24, %r20, %r23;", "mov.b32 %r24, %r20;");
    let text = broken(&text, "xor.b32 %r26, %r26, %r23;", "");
    let (bad, good) = (product(&text, 0).unwrap(), product(&gemm::gemm(), 0).unwrap());
    assert!(bad.shared.bank_conflicts > 2 * good.shared.bank_conflicts);
}

#[test]
fn a_last_block_without_its_fences() {
    let release =
        broken(&gemm::last_block(), "membar.gl;                           // the part is seen before the count", "");
    let acquire =
        broken(&gemm::last_block(), "membar.gl;                           // the count is seen before the parts", "");
    for text in [release, acquire] {
        for seed in 0..4 {
            faults(last_block(&text, seed), FaultKind::Race, "ld.global.f32 %f6, [%rd2]");
        }
    }
    // A plain counter orders nothing, and is a race itself.
    let text = broken(
        &gemm::last_block(),
        "atom.global.inc.u32 %r9, [%rd3], %r8;",
        "ld.global.u32 %r9, [%rd3]; st.global.u32 [%rd3], %r8;",
    );
    always(|seed| last_block(&text, seed), &[FaultKind::Race]);
}

#[test]
fn a_counter_that_nobody_has_set() {
    let mut m = Memory::new();
    let (x, out, part, count) = (put_f32(&mut m, &[1.0; 128]), m.alloc(4), m.alloc(4), m.alloc(4));
    let args = [U64(out), U64(part), U64(count), U64(x), U32(128)];
    let done = run(&mut m, &gemm::last_block(), [1, 1, 1], [128, 1, 1], &args);
    faults(done, FaultKind::UninitialisedMemory, "atom.global.inc.u32");
}

#[test]
fn a_shuffle_from_a_lane_that_is_not_there() {
    let text = broken(&kernels::block_sum(), "%f3, 4, 31, 0xff", "%f3, 8, 31, 0xff");
    let f = faults(block_sum(&text, 0), FaultKind::AbsentLane, "shfl.sync.bfly.b32 %f4, %f3, 8");
    assert!(f.what.contains("lane 8"), "{f}");
    let text = broken(&kernels::block_sum(), "%f3, 4, 31, 0xff", "%f3, 4, 31, 0xf");
    faults(block_sum(&text, 0), FaultKind::AbsentLane, "%f3, 4, 31, 0xf;");
}

#[test]
fn a_barrier_that_not_all_lanes_reach() {
    let text = broken(&kernels::block_sum(), "bar.sync 0; ", "@%p2 bra OVER;\n bar.sync 0;\nOVER: //");
    faults(block_sum(&text, 0), FaultKind::DivergentBarrier, "bar.sync 0");
    let text = broken(&kernels::block_sum(), "bar.sync 0; ", "@%p2 bar.sync 0; ");
    faults(block_sum(&text, 0), FaultKind::DivergentBarrier, "@%p2 bar.sync 0");
}

/// A kernel of one parameter, an array of 64 words that are all 7, with these lines in it.
fn small(body: &str, block: u32) -> Result<Counts, Fault> {
    let text = HEADER.to_string()
        + "\n.visible .entry small(.param .u64 x)\n{\n.reg .pred %p<8>;\n.reg .b32 %r<16>;\n.reg .b64 %rd<8>;\n"
        + ".shared .align 16 .b32 s[64];\nld.param.u64 %rd1, [x];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, s;\n"
        + "shl.b32 %r3, %r1, 2;\nadd.u32 %r3, %r2, %r3;\n"
        + body
        + "\nret;\n}\n";
    let mut m = Memory::new();
    let x = put_u32(&mut m, &[7; 64]);
    run(&mut m, &text, [1, 1, 1], [block, 1, 1], &[U64(x)])
}

#[test]
fn lanes_of_a_warp_are_ordered_by_bar_warp_sync_alone() {
    let exchange = |between: &str| {
        format!("st.shared.u32 [%r3], %r1;\n{between}\nxor.b32 %r4, %r3, 4;\nld.shared.u32 %r5, [%r4];")
    };
    let f = faults(small(&exchange(""), 32), FaultKind::Race, "ld.shared.u32 %r5");
    assert!(f.other.as_ref().unwrap().1.contains("st.shared.u32"), "{f}");
    // A shuffle brings lanes together and orders no memory.
    faults(small(&exchange("shfl.sync.idx.b32 %r6, %r1, 0, 31, -1;"), 32), FaultKind::Race, "ld.shared.u32 %r5");
    small(&exchange("bar.warp.sync 0xffffffff;"), 32).unwrap();
    small(&exchange("bar.sync 0;"), 64).unwrap();
    // The other warp is not ordered by it.
    let far = exchange("bar.warp.sync 0xffffffff;").replace("%r3, 4;", "%r3, 128;");
    assert!(small(&far, 64).is_err());
}

#[test]
fn lanes_of_one_store_may_write_one_value_to_one_place() {
    small("mov.u32 %r4, 5;\nst.shared.u32 [%r2], %r4;", 32).unwrap();
    faults(small("st.shared.u32 [%r2], %r1;", 32), FaultKind::Race, "st.shared.u32 [%r2], %r1");
    small("atom.shared.exch.b32 %r4, [%r2], %r1;", 1).unwrap_err();
    small("st.shared.u32 [%r3], 0;\nbar.sync 0;\natom.shared.add.u32 %r4, [%r2], %r1;", 64).unwrap();
}

#[test]
fn named_barriers_order_those_who_meet_there() {
    // Warp 0 fills, warp 1 reads; warp 0 does not wait.
    let body = "setp.ge.u32 %p1, %r1, 32;\n@%p1 bra READ;\nst.shared.u32 [%r3], %r1;\nbar.arrive 1, 64;\nbra DONE;\nREAD:\n\
                bar.sync 1, 64;\nsub.u32 %r4, %r3, 128;\nld.shared.u32 %r5, [%r4];\nDONE:";
    small(body, 64).unwrap();
    assert!(small(&body.replace("bar.arrive 1, 64;", ""), 64).is_err());
    assert!(small(&body.replace("bar.sync 1, 64;", ""), 64).is_err());
    // What is written after the arrival is not ordered.
    let late = body.replace("bra DONE;", "st.shared.u32 [%r3], %r1;\nbra DONE;");
    assert!(small(&late, 64).is_err());
}

#[test]
fn deadlocks_say_where_everybody_stands() {
    let body = "setp.ge.u32 %p1, %r1, 32;\n@%p1 bra OTHER;\nbar.sync 0;\nbra DONE;\nOTHER:\nbar.sync 1;\nDONE:";
    let f = faults(small(body, 64), FaultKind::Deadlock, "bar.sync");
    assert!(f.what.contains("at barrier 0") && f.what.contains("at barrier 1"), "{f}");
    let body =
        "setp.ge.u32 %p1, %r1, 16;\n@%p1 bra OTHER;\nbar.warp.sync -1;\nbra DONE;\nOTHER:\nbar.warp.sync -1;\nDONE:";
    let f = faults(small(body, 32), FaultKind::Deadlock, "bar.warp.sync");
    assert!(f.what.contains("0x0000ffff") && f.what.contains("0xffff0000"), "{f}");
    let o = Options { max_steps: 10_000, ..Options::default() };
    let text = HEADER.to_string() + ".entry spin()\n{\nLOOP: bra LOOP;\n}";
    let f = run_with(&mut Memory::new(), &text, [1, 1, 1], [32, 1, 1], &[], 0, &o).unwrap_err();
    assert_eq!(f.kind, FaultKind::TooLong, "{f}");
}

#[test]
fn small_mistakes() {
    faults(small("mov.u32 %r4, 0;\ndiv.u32 %r5, %r1, %r4;", 32), FaultKind::DivisionByZero, "div.u32");
    faults(small("setp.eq.u32 %p1, %r1, 9;\n@%p1 trap;", 32), FaultKind::Trap, "@%p1 trap");
    faults(small("ld.shared.u32 %r4, [%r3];", 32), FaultKind::UninitialisedMemory, "ld.shared");
    faults(small("@%p3 bra DONE;\nDONE:", 32), FaultKind::UninitialisedRegister, "@%p3 bra");
    faults(small("ld.shared.u32 %r4, [%r3+256];", 32), FaultKind::OutOfBounds, "ld.shared");
    faults(small("ld.global.u32 %r4, [%rd1];\nst.global.u32 [%rd1+-4], %r4;", 1), FaultKind::OutOfBounds, "st.global");
    faults(
        small("add.u64 %rd2, %rd1, 8;\nld.global.v4.u32 {%r4,%r5,%r6,%r7}, [%rd2];", 1),
        FaultKind::Misaligned,
        "v4",
    );
    faults(small("st.global.u32 [%rd1], 1;\nld.global.nc.u32 %r4, [%rd1];", 1), FaultKind::Race, "ld.global.nc");
    faults(small("cvta.to.shared.u64 %rd2, %rd1;", 1), FaultKind::OutOfBounds, "cvta.to.shared");
    faults(small("vote.sync.ballot.b32 %r4, %p1, -1;", 32), FaultKind::UninitialisedRegister, "vote");
}

#[test]
fn the_host_is_checked_as_well() {
    let mut m = Memory::new();
    let a = m.alloc(16);
    assert_eq!(a % 256, 0);
    assert_eq!(m.read(a, &mut [0; 4]).unwrap_err().kind, FaultKind::UninitialisedMemory);
    m.write(a + 4, &[1, 2, 3, 4]).unwrap();
    m.read(a + 4, &mut [0; 4]).unwrap();
    m.poison(a + 4..a + 6).unwrap();
    assert_eq!(m.read(a + 4, &mut [0; 4]).unwrap_err().kind, FaultKind::UninitialisedMemory);
    m.track_undefined(false);
    m.read(a + 4, &mut [0; 4]).unwrap();
    assert_eq!(m.write(a + 14, &[0; 4]).unwrap_err().kind, FaultKind::OutOfBounds);
    let b = m.alloc_zeroed(16);
    m.copy(b, a, 16).unwrap();
    let mut bytes = [9; 16];
    m.read(a, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
    m.free(a).unwrap();
    assert_eq!(m.free(a).unwrap_err().kind, FaultKind::Allocation);
    assert_eq!(m.read(a, &mut [0; 4]).unwrap_err().kind, FaultKind::OutOfBounds);
    assert!(m.alloc(16) > b);
}

#[test]
fn a_launch_that_does_not_fit_its_kernel() {
    let launch = |block, args: &[common::Arg], shared| {
        let mut m = Memory::new();
        run_with(&mut m, &kernels::saxpy(), [1, 1, 1], block, args, shared, &Options::default()).unwrap_err()
    };
    let args = [U64(0), U64(0), F32(0.0), U32(0)];
    assert!(launch([256, 1, 1], &args, 0).what.contains("its text allows 128"));
    assert!(launch([0, 1, 1], &args, 0).what.contains("0 threads"));
    assert!(launch([32, 1, 1], &args, 64).what.contains("declares none"));
}
