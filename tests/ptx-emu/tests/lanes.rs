//! Exchanges between lanes, special registers, memory of every space, atomics and matrix fragments, each against plain Rust.
// Lanes are counted, and formulas are written as in the manual.
#![allow(clippy::precedence, clippy::needless_range_loop)]
mod common;
use common::Arg::{U32, U64};
use common::rows::{Row, Rows, ints, narrow, try_rows};
use common::{HEADER, bf16, from_bf16, get_u32, layout, numbers, put_u32, run};
use lolm_ptx_emu::{FaultKind, Launch, Memory, Module, Options, launch};

fn lane_row() -> Row {
    std::array::from_fn(|l| l as u32)
}

#[test]
fn shuffles() {
    let a = ints(0);
    let run = |mode: &str, b: u32, c: u32| {
        let body =
            format!("shfl.sync.{mode}.b32 %d0|%p0, %a0, {b}, {c}, 0xffffffff;\n@%p0 xor.b32 %d0, %d0, 0xff00ff00;");
        narrow(&body, &[a])
    };
    let mark = 0xff00_ff00;
    let want =
        |g: &dyn Fn(usize) -> Option<usize>| -> Row { std::array::from_fn(|l| g(l).map_or(a[l], |s| a[s] ^ mark)) };
    assert_eq!(run("up", 3, 0), want(&|l| l.checked_sub(3)));
    assert_eq!(run("down", 5, 31), want(&|l| Some(l + 5).filter(|&s| s < 32)));
    assert_eq!(run("bfly", 16, 31), want(&|l| Some(l ^ 16)));
    assert_eq!(run("idx", 9, 31), want(&|_| Some(9)));
    // Segments of eight lanes: the upper bits of c name the lanes that stay apart.
    assert_eq!(run("down", 3, 0x181f), want(&|l| Some(l + 3).filter(|s| s / 8 == l / 8)));
    assert_eq!(run("up", 3, 0x1800), want(&|l| l.checked_sub(3).filter(|s| s / 8 == l / 8)));
    assert_eq!(run("idx", 2, 0x181f), want(&|l| Some(l / 8 * 8 + 2)));
    let d = narrow("sub.u32 %x0, 31, %lane;\nshfl.sync.idx.b32 %d0, %a0, %x0, 31, -1;", &[a]);
    assert!((0..32).all(|l| d[l] == a[31 - l]));
}

#[test]
fn votes_matches_and_reductions() {
    let a: Row = std::array::from_fn(|l| (l as u32 * 7) % 5);
    let body = "setp.gt.u32 %p0, %a0, 2;\nvote.sync.ballot.b32 %d0, %p0, -1;\nvote.sync.any.pred %p1, %p0, -1;\n\
                vote.sync.all.pred %p2, %p0, -1;\nselp.b32 %d1, 1, 0, %p1;\n@%p2 add.u32 %d1, %d1, 2;\n\
                match.any.sync.b32 %d2, %a0, -1;\nmatch.all.sync.b32 %d3|%p3, %a0, -1;\nactivemask.b32 %d4;\n\
                redux.sync.add.s32 %d5, %a0, -1;\nredux.sync.max.u32 %d6, %a0, -1;\nredux.sync.xor.b32 %d7, %a0, -1;\n\
                elect.sync %d8|%p4, -1;\n@%p4 add.u32 %d8, %d8, 100;";
    let d = try_rows(body, &Rows { narrow: vec![a], wide: vec![] }, (9, 0), &Options::default()).unwrap().narrow;
    let ballot = (0..32).filter(|&l| a[l] > 2).fold(0, |m, l| m | 1 << l);
    for l in 0..32 {
        let equal = (0..32).filter(|&o| a[o] == a[l]).fold(0, |m, o| m | 1 << o);
        let all = [ballot, 1, equal, 0, !0, a.iter().sum(), 4, a.iter().fold(0, |x, y| x ^ y), 100 * (l == 0) as u32];
        assert_eq!(d.iter().map(|r| r[l]).collect::<Vec<_>>(), all);
    }
}

#[test]
fn lanes_that_part_and_meet_again() {
    // A loop of as many turns as the lane's number, a branch inside, and an exchange of all behind it.
    let body = "mov.u32 %x0, 0;\nmov.u32 %x1, 0;\nLOOP:\nsetp.ge.u32 %p0, %x0, %a0;\n@%p0 bra OUT;\nand.b32 %x2, %x0, 1;\n\
                setp.eq.u32 %p1, %x2, 0;\n@%p1 bra EVEN;\nadd.u32 %x1, %x1, 10;\nbra NEXT;\nEVEN:\nadd.u32 %x1, %x1, 1;\n\
                NEXT:\nadd.u32 %x0, %x0, 1;\nbra.uni LOOP;\nOUT:\nshfl.sync.bfly.b32 %d0, %x1, 1, 31, -1;";
    let d = narrow(body, &[lane_row()]);
    let sum = |n: u32| n.div_ceil(2) + n / 2 * 10;
    (0..32).for_each(|l| assert_eq!(d[l], sum(l as u32 ^ 1)));
    // Half a warp exchanges among itself while the other half is elsewhere.
    let body = "setp.lt.u32 %p0, %a0, 16;\n@%p0 bra LOW;\nshfl.sync.bfly.b32 %d0, %a0, 1, 31, 0xffff0000;\nbra END;\nLOW:\n\
                shfl.sync.bfly.b32 %d0, %a0, 2, 31, 0x0000ffff;\nEND:";
    let d = narrow(body, &[lane_row()]);
    (0..32).for_each(|l| assert_eq!(d[l], if l < 16 { l ^ 2 } else { l ^ 1 } as u32));
    // Lanes that come late to an exchange are waited for.
    let body = "setp.lt.u32 %p0, %a0, 16;\nmov.u32 %x0, 0;\n@%p0 bra MEET;\nbra SLOW;\nMEET:\n\
                shfl.sync.bfly.b32 %d0, %a0, 16, 31, -1;\nbra END;\nSLOW:\nadd.u32 %x0, %x0, 1;\nbra MEET;\nEND:";
    let d = narrow(body, &[lane_row()]);
    (0..32).for_each(|l| assert_eq!(d[l], l as u32 ^ 16));
}

#[test]
fn special_registers() {
    let text = HEADER.to_string()
        + ".visible .entry k(.param .u64 out)\n{\n.reg .b32 %r<20>;\n.reg .b64 %rd<4>;\nld.param.u64 %rd1, [out];\n\
           .reg .b32 %tidx, %tidy, %tidz, %ntidx, %ntidy, %ntidz, %ctaidx, %ctaidy, %ctaidz, %nctaidx, %nctaidy;\nmov.u32 %tidx, %tid.x;\nmov.u32 %tidy, %tid.y;\nmov.u32 %tidz, %tid.z;\nmov.u32 %ntidx, %ntid.x;\nmov.u32 %ntidy, %ntid.y;\nmov.u32 %ntidz, %ntid.z;\nmov.u32 %ctaidx, %ctaid.x;\nmov.u32 %ctaidy, %ctaid.y;\nmov.u32 %ctaidz, %ctaid.z;\nmov.u32 %nctaidx, %nctaid.x;\nmov.u32 %nctaidy, %nctaid.y;\n\
           mad.lo.u32 %r1, %tidz, %ntidy, %tidy;\nmad.lo.u32 %r1, %r1, %ntidx, %tidx;\n\
           mad.lo.u32 %r2, %ctaidz, %nctaidy, %ctaidy;\nmad.lo.u32 %r2, %r2, %nctaidx, %ctaidx;\n\
           mul.lo.u32 %r3, %ntidx, %ntidy;\nmul.lo.u32 %r3, %r3, %ntidz;\nmad.lo.u32 %r4, %r2, %r3, %r1;\n\
           mul.wide.u32 %rd2, %r4, 4;\nadd.u64 %rd2, %rd1, %rd2;\nmov.u32 %r5, %laneid;\nmov.u32 %r6, %warpid;\n\
           mad.lo.u32 %r7, %r6, 32, %r5;\nsub.u32 %r8, %r7, %r1;\nmov.u32 %r9, %lanemask_lt;\npopc.b32 %r10, %r9;\n\
           sub.u32 %r10, %r10, %r5;\nor.b32 %r8, %r8, %r10;\nmad.lo.u32 %r8, %r8, 1000, %r4;\nst.global.u32 [%rd2], %r8;\nret;\n}\n";
    let mut m = Memory::new();
    let out = m.alloc(4 * 40 * 12);
    run(&mut m, &text, [3, 2, 2], [5, 4, 2], &[U64(out)]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(get_u32(&m, out, 480), (0..480).collect::<Vec<_>>());
}

#[test]
fn memory_of_every_space_and_width() {
    let body = "
        mov.u32 %x3, tile;
        mad.lo.u32 %x0, %lane, 32, %x3;
        st.shared.v4.b32 [%x0], {%a0, %a1, %a0, %a1};
        st.shared.v2.b32 [%x0+16], {%a1, %a0};
        st.shared.b32 [%x0+24], 0;
        ld.shared.u8 %d0, [%x0+1];
        ld.shared.s8 %d1, [%x0+1];
        ld.shared.u16 %h0, [%x0+6];
        ld.shared.s16 %d2, [%x0+6];
        cvt.u32.u16 %d3, %h0;
        st.shared.u8 [%x0+25], %a0;
        ld.shared.u32 %d4, [%x0+24];
        ld.shared.v2.u64 {%D0, %D1}, [%x0];
        mov.u64 %A0, tile;
        cvta.shared.u64 %A1, %A0;
        mad.wide.u32 %A1, %lane, 32, %A1;
        ld.u32 %d5, [%A1+4];
        st.u32 [%A1+28], %a1;
        ld.shared.u32 %d6, [%x0+28];
        cvta.to.shared.u64 %A2, %A1;
        sub.u64 %D2, %A2, %A0;
        st.local.v2.b32 [own+8], {%a0, %a1};
        ld.local.b64 %D3, [own+8];
        and.b32 %x1, %lane, 3;
        shl.b32 %x1, %x1, 2;
        mov.u32 %x2, table;
        add.u32 %x2, %x2, %x1;
        ld.const.s32 %d7, [%x2];
        isspacep.shared %p0, %A1;
        isspacep.shared %p1, %out;
        selp.b32 %d8, 1, 0, %p0;
        @%p1 add.u32 %d8, %d8, 2;
        ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%d9, %d10}, [%in];";
    let rows = Rows { narrow: vec![ints(0), ints(1)], wide: vec![] };
    let d = try_rows(body, &rows, (11, 4), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    for l in 0..32 {
        let (a, b) = (ints(0)[l], ints(1)[l]);
        let both = (b as u64) << 32 | a as u64;
        let table = [10, 20, -30i32 as u32, 0x28][l % 4];
        let want = [
            a >> 8 & 255,
            (a >> 8) as u8 as i8 as u32,
            (b >> 16) as u16 as i16 as u32,
            b >> 16,
            (a & 255) << 8,
            b,
            b,
            table,
            1,
            a,
            0,
        ];
        assert_eq!(d.narrow.iter().map(|r| r[l]).collect::<Vec<_>>(), want, "lane {l}");
        assert_eq!([0, 1, 2, 3].map(|i| d.wide[i][l]), [both, both, 32 * l as u64, both]);
    }
}

#[test]
fn variables_of_a_module_live_in_global_memory() {
    let text = HEADER.to_string()
        + ".global .align 4 .u32 counter[2] = {5, 6};\n.extern .shared .align 16 .b8 dyn[];\n\
           .visible .entry bump(.param .u64 out, .param .align 8 .b8 pair[8])\n{\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n\
           ld.param.u64 %rd1, [out];\nld.param.u32 %r5, [pair+4];\natom.global.add.u32 %r1, [counter+4], %r5;\n\
           mov.u64 %rd2, counter;\nld.volatile.global.u32 %r2, [%rd2];\nst.global.v2.u32 [%rd1], {%r1, %r2};\n\
           mov.u32 %r3, dyn;\nst.shared.u32 [%r3+12], %r2;\nld.shared.u32 %r4, [dyn+12];\nst.global.u32 [%rd1+8], %r4;\nret;\n}\n";
    let module = Module::parse(&text).unwrap();
    let kernel = module.kernel("bump").unwrap();
    assert_eq!((kernel.param_bytes(), kernel.shared_bytes(), kernel.has_dynamic_shared()), (16, 0, true));
    let mut m = Memory::new();
    let out = m.alloc(12);
    let mut params = layout(&Module::parse(&kernels_of_one_pointer()).unwrap(), "k", &[U64(out)]);
    params.extend([0, 0, 0, 0, 3, 0, 0, 0]);
    for turn in 0..3 {
        let l = Launch { kernel, grid: [1; 3], block: [1, 1, 1], dynamic_shared: 16, params: &params };
        launch(&mut m, &l, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(get_u32(&m, out, 3), [6 + 3 * turn, 5, 5]);
    }
    let l = Launch { kernel, grid: [1; 3], block: [1, 1, 1], dynamic_shared: 8, params: &params };
    assert_eq!(launch(&mut m, &l, &Options::default()).unwrap_err().kind, FaultKind::OutOfBounds);
}

fn kernels_of_one_pointer() -> String {
    HEADER.to_string() + ".entry k(.param .u64 p)\n{\nret;\n}\n"
}

#[test]
fn atomics() {
    let run_atom = |op: &str, start: u32, value: &str| {
        let text = HEADER.to_string()
            + &format!(
                ".visible .entry k(.param .u64 x, .param .u64 old)\n{{\n.reg .b32 %r<8>;\n.reg .b64 %rd<8>;\n\
                 ld.param.u64 %rd1, [x];\nld.param.u64 %rd2, [old];\nmov.u32 %r1, %tid.x;\nmad.wide.u32 %rd3, %r1, 4, %rd2;\n\
                 cvt.rn.f32.u32 %r3, %r1;\n{op} %r2, [%rd1], {value};\nst.global.u32 [%rd3], %r2;\nret;\n}}\n"
            );
        let mut m = Memory::new();
        let (x, old) = (put_u32(&mut m, &[start]), m.alloc(4 * 64));
        run(&mut m, &text, [1, 1, 1], [64, 1, 1], &[U64(x), U64(old)]).unwrap_or_else(|e| panic!("{e}"));
        let mut olds = get_u32(&m, old, 64);
        olds.sort();
        (get_u32(&m, x, 1)[0], olds)
    };
    assert_eq!(run_atom("atom.global.add.u32", 7, "1"), (71, (7..71).collect()));
    assert_eq!(run_atom("atom.global.inc.u32", 0, "63").0, 0);
    assert_eq!(run_atom("atom.global.min.s32", 5, "-3").0 as i32, -3);
    assert_eq!(run_atom("atom.global.max.u32", 5, "%r1").0, 63);
    assert_eq!(run_atom("atom.global.and.b32", !0, "0xf0").0, 0xf0);
    assert_eq!(run_atom("atom.global.or.b32", 1, "%r1").0, 63);
    assert_eq!(run_atom("atom.global.xor.b32", 9, "%r1").0, 9);
    assert_eq!(run_atom("atom.acq_rel.gpu.global.cas.b32", 9, "9, 12"), (12, [vec![9], vec![12; 63]].concat()));
    assert_eq!(f32::from_bits(run_atom("atom.global.add.f32", 0, "%r3").0), 2016.0);
    let (last, olds) = run_atom("atom.global.exch.b32", 100, "%r1");
    assert!(olds.len() == 64 && olds[63] == 100 && last < 64);
    // Pairs of bf16, and red, which returns nothing.
    let one = (bf16(1.0) as u32) << 16 | bf16(0.5) as u32;
    let text = HEADER.replace("7.0", "7.8").replace("sm_80", "sm_90")
        + &format!(
            ".visible .entry k(.param .u64 x)\n{{\n.reg .b32 %r<4>;\n.reg .b64 %rd<4>;\n.shared .u32 s;\nld.param.u64 %rd1, [x];\n\
             mov.b32 %r1, {one};\nred.global.add.noftz.bf16x2 [%rd1], %r1;\nret;\n}}\n"
        );
    let mut m = Memory::new();
    let x = put_u32(&mut m, &[0]);
    run(&mut m, &text, [2, 1, 1], [32, 1, 1], &[U64(x)]).unwrap();
    let sum = get_u32(&m, x, 1)[0];
    assert_eq!((from_bf16((sum >> 16) as u16), from_bf16(sum as u16)), (64.0, 32.0));
}

#[test]
fn copies_of_fewer_bytes_fill_with_zero() {
    let body = "
        mov.u32 %x3, tile;
        mad.lo.u32 %x0, %lane, 16, %x3;
        and.b32 %x1, %lane, 15;
        shl.b32 %x2, %lane, 3;
        cvt.u64.u32 %A0, %x2;
        sub.u64 %A1, %in, %A0;
        mad.wide.u32 %A1, %lane, 16, %A1;
        setp.gt.u32 %p0, %lane, 15;
        @%p0 bra HIGH;
        cp.async.cg.shared.global [%x0], [%A1], 16, %x1;
        bra JOIN;
        HIGH:
        setp.gt.u32 %p1, %lane, 23;
        mov.u64 %A2, %in;
        cp.async.ca.shared.global [%x0], [%A2], 8, %p1;
        cp.async.ca.shared.global [%x0+8], [%A2], 4;
        cp.async.ca.shared.global.L2::128B [%x0+12], [%A2], 4;
        JOIN:
        cp.async.wait_all;
        ld.shared.v4.u32 {%d0, %d1, %d2, %d3}, [%x0];";
    let a = ints(3);
    let words: Vec<u32> = (0..1024).map(|i| if i % 2 == 0 { a.get(i / 2).copied().unwrap_or(0) } else { 0 }).collect();
    let d = try_rows(body, &Rows { narrow: vec![a, a, a], wide: vec![] }, (4, 0), &Options::default());
    let d = d.unwrap_or_else(|e| panic!("{e}")).narrow;
    for l in 0..16 {
        let source: Vec<u8> = words[4 * l..4 * l + 4].iter().flat_map(|w| w.to_le_bytes()).collect();
        let got: Vec<u8> = (0..4).flat_map(|i| d[i][l].to_le_bytes()).collect();
        let want: Vec<u8> = (0..16).map(|i| if i < l { source[i] } else { 0 }).collect();
        assert_eq!(got, want, "lane {l}");
    }
    for l in 16..32 {
        assert_eq!([0, 1, 2, 3].map(|i| d[i][l]), [if l > 23 { 0 } else { a[l] }, 0, a[l], a[l]]);
    }
}

/// Fragments of every shape against a product in f64, by the tables of the manual.
#[test]
fn matrix_fragments() {
    for (shape, ty, k, packed) in [
        ("m16n8k16", "bf16", 16, true),
        ("m16n8k8", "bf16", 8, true),
        ("m16n8k16", "f16", 16, true),
        ("m16n8k8", "tf32", 8, false),
        ("m16n8k4", "tf32", 4, false),
    ] {
        let round = |x: &f32| match ty {
            "f16" => half::f16::from_f32(*x).to_f32(),
            _ => from_bf16(bf16(*x)),
        };
        let bits = |x: f32| match ty {
            "f16" => half::f16::from_f32(x).to_bits() as u32,
            "bf16" => bf16(x) as u32,
            _ => x.to_bits(),
        };
        let a: Vec<f32> = numbers(16 * k, 1).iter().map(round).collect(); // [16, k]
        let b: Vec<f32> = numbers(k * 8, 2).iter().map(round).collect(); // [k, 8]
        let c = numbers(16 * 8, 3); // [16, 8]
        let per = if packed { 2 } else { 1 };
        let (na, nb) = (k / 4 / per * 2, k / 4 / per);
        let mut rows = vec![];
        for r in 0..na {
            rows.push(std::array::from_fn(|l| {
                let at = |i: usize| a[(l / 4 + r % 2 * 8) * k + per * (l % 4) + i + r / 2 * 4 * per];
                (0..per).map(|i| bits(at(i)) << (16 * i)).sum()
            }));
        }
        for r in 0..nb {
            rows.push(std::array::from_fn(|l| {
                let at = |i: usize| b[(per * (l % 4) + i + r * 4 * per) * 8 + l / 4];
                (0..per).map(|i| bits(at(i)) << (16 * i)).sum()
            }));
        }
        let place = |r: usize, l: usize| (l / 4 + r / 2 * 8) * 8 + l % 4 * 2 + r % 2;
        let mut load = String::new();
        let mut d = vec![];
        for half in 0..2 {
            // The accumulators come in two at a time, through the 64-bit rows of the harness.
            d.push(std::array::from_fn(|l| {
                let v = |r: usize| c[place(r, l)].to_bits() as u64;
                v(2 * half) | v(2 * half + 1) << 32
            }));
            load += &format!("mov.b64 {{%x{}, %x{}}}, %A{half};\n", 2 * half, 2 * half + 1);
        }
        let regs = |from: usize, n: usize| (from..from + n).map(|i| format!("%a{i}")).collect::<Vec<_>>().join(",");
        let body = format!(
            "{load}mma.sync.aligned.{shape}.row.col.f32.{ty}.{ty}.f32 {{%f0,%f1,%f2,%f3}}, {{{}}}, {{{}}}, {{%f4,%f5,%f6,%f7}};\n",
            regs(0, na),
            regs(na, nb)
        );
        let body = format!(".reg .f32 %f<8>;\n{body}");
        let moves: String = (0..4).map(|i| format!("mov.b32 %f{}, %x{i};\n", 4 + i)).collect();
        let body = body.replace("mma.sync", &format!("{moves}mma.sync"));
        let out: String = (0..4).map(|i| format!("mov.b32 %d{i}, %f{i};\n")).collect();
        let rows = Rows { narrow: rows, wide: d };
        let got =
            try_rows(&(body + &out), &rows, (4, 0), &Options::default()).unwrap_or_else(|e| panic!("{shape} {e}"));
        for (r, row) in got.narrow.iter().enumerate() {
            for (l, &bits) in row.iter().enumerate() {
                let (i, j) = (place(r, l) / 8, place(r, l) % 8);
                let sum: f64 = (0..k).map(|x| a[i * k + x] as f64 * b[x * 8 + j] as f64).sum();
                assert_eq!(f32::from_bits(bits), (c[place(r, l)] as f64 + sum) as f32, "{shape} {ty}");
            }
        }
    }
}

#[test]
fn reductions_at_a_barrier() {
    let text = HEADER.to_string()
        + ".visible .entry k(.param .u64 out, .param .u32 least)\n{\n.reg .pred %p<4>;\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n\
           ld.param.u64 %rd1, [out];\nld.param.u32 %r1, [least];\nmov.u32 %r2, %tid.x;\nsetp.ge.u32 %p0, %r2, %r1;\n\
           bar.red.popc.u32 %r3, 0, %p0;\nbar.red.and.pred %p1, 0, %p0;\nbar.red.or.pred %p2, 1, !%p0;\n\
           selp.b32 %r4, 256, 0, %p1;\nadd.u32 %r3, %r3, %r4;\nselp.b32 %r4, 512, 0, %p2;\nadd.u32 %r3, %r3, %r4;\n\
           mad.wide.u32 %rd2, %r2, 4, %rd1;\nst.global.u32 [%rd2], %r3;\nret;\n}\n";
    for least in [0, 1, 37, 96] {
        let mut m = Memory::new();
        let out = m.alloc(4 * 96);
        run(&mut m, &text, [1, 1, 1], [96, 1, 1], &[U64(out), U32(least)]).unwrap_or_else(|e| panic!("{e}"));
        let want = 96 - least + 256 * (least == 0) as u32 + 512 * (least > 0) as u32;
        assert_eq!(get_u32(&m, out, 96), [want; 96]);
    }
}
