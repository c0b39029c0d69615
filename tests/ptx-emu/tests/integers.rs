//! Integer instructions against plain Rust.
// Lanes are counted, and formulas are written as in the manual.
#![allow(clippy::precedence, clippy::needless_range_loop)]
mod common;
use common::rows::{Row, Rows, ints, narrow, try_rows, wide, wides};
use lolm_ptx_emu::Options;

/// `op d, a, b` over many pairs.
#[track_caller]
fn check2(op: &str, f: impl Fn(u32, u32) -> u32) {
    for turn in 0..6 {
        let (a, b) = (ints(turn), ints(turn + 3));
        let d = narrow(&format!("{op} %d0, %a0, %a1;"), &[a, b]);
        (0..32).for_each(|l| assert_eq!(d[l], f(a[l], b[l]), "{op} {:#x}, {:#x}", a[l], b[l]));
    }
}

#[track_caller]
fn check64(op: &str, f: impl Fn(u64, u64) -> u64) {
    for turn in 0..6 {
        let (a, b) = (wides(turn), wides(turn + 3));
        let d = wide(&format!("{op} %D0, %A0, %A1;"), &[a, b]);
        (0..32).for_each(|l| assert_eq!(d[l], f(a[l], b[l]), "{op} {:#x}, {:#x}", a[l], b[l]));
    }
}

#[track_caller]
fn check3(op: &str, f: impl Fn(u32, u32, u32) -> u32) {
    for turn in 0..6 {
        let (a, b, c) = (ints(turn), ints(turn + 3), ints(turn + 1));
        let d = narrow(&format!("{op};"), &[a, b, c]);
        (0..32).for_each(|l| assert_eq!(d[l], f(a[l], b[l], c[l]), "{op} {:#x}, {:#x}, {:#x}", a[l], b[l], c[l]));
    }
}

#[track_caller]
fn check1(op: &str, f: impl Fn(u32) -> u32) {
    for turn in 0..6 {
        let a = ints(turn);
        let d = narrow(&format!("{op} %d0, %a0;"), &[a]);
        (0..32).for_each(|l| assert_eq!(d[l], f(a[l]), "{op} {:#x}", a[l]));
    }
}

#[test]
fn arithmetic_of_32_bits() {
    let s = |x: u32| x as i32;
    check2("add.u32", u32::wrapping_add);
    check2("sub.s32", u32::wrapping_sub);
    check2("add.sat.s32", |a, b| s(a).saturating_add(s(b)) as u32);
    check2("sub.sat.s32", |a, b| s(a).saturating_sub(s(b)) as u32);
    check2("mul.lo.s32", u32::wrapping_mul);
    check2("mul.hi.u32", |a, b| (a as u64 * b as u64 >> 32) as u32);
    check2("mul.hi.s32", |a, b| (s(a) as i64 * s(b) as i64 >> 32) as u32);
    check2("min.s32", |a, b| s(a).min(s(b)) as u32);
    check2("max.s32", |a, b| s(a).max(s(b)) as u32);
    check2("min.u32", u32::min);
    check2("max.u32", u32::max);
    check2("and.b32", |a, b| a & b);
    check2("or.b32", |a, b| a | b);
    check2("xor.b32", |a, b| a ^ b);
    check1("not.b32", |a| !a);
    check1("cnot.b32", |a| (a == 0) as u32);
    check1("neg.s32", |a| s(a).wrapping_neg() as u32);
    check1("abs.s32", |a| s(a).wrapping_abs() as u32);
    check3("mad.lo.s32 %d0, %a0, %a1, %a2", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check3("mad.hi.u32 %d0, %a0, %a1, %a2", |a, b, c| ((a as u64 * b as u64 >> 32) as u32).wrapping_add(c));
    check3("sad.s32 %d0, %a0, %a1, %a2", |a, b, c| s(a).abs_diff(s(b)).wrapping_add(c));
    check3("sad.u32 %d0, %a0, %a1, %a2", |a, b, c| a.abs_diff(b).wrapping_add(c));
}

#[test]
fn division_where_the_divisor_is_not_zero() {
    let s = |x: u32| x as i32;
    let or1 = |op: &str| format!("or.b32 %x0, %a1, 1;\n{op} %d0, %a0, %x0;");
    for turn in 0..6 {
        let (a, b) = (ints(turn), ints(turn + 2));
        let run = |op: &str| narrow(&or1(op), &[a, b]);
        let (du, ru, ds, rs) = (run("div.u32"), run("rem.u32"), run("div.s32"), run("rem.s32"));
        for l in 0..32 {
            let (x, y) = (a[l], b[l] | 1);
            assert_eq!((du[l], ru[l]), (x / y, x % y));
            assert_eq!((ds[l], rs[l]), (s(x).wrapping_div(s(y)) as u32, s(x).wrapping_rem(s(y)) as u32));
        }
    }
    let d = wide("or.b64 %D1, %A1, 1;\ndiv.s64 %D0, %A0, %D1;", &[wides(0), wides(1)]);
    (0..32).for_each(|l| assert_eq!(d[l] as i64, (wides(0)[l] as i64).wrapping_div((wides(1)[l] | 1) as i64)));
}

#[test]
fn arithmetic_of_64_bits() {
    let s = |x: u64| x as i64;
    check64("add.s64", u64::wrapping_add);
    check64("sub.u64", u64::wrapping_sub);
    check64("mul.lo.u64", u64::wrapping_mul);
    check64("mul.hi.u64", |a, b| (a as u128 * b as u128 >> 64) as u64);
    check64("mul.hi.s64", |a, b| (s(a) as i128 * s(b) as i128 >> 64) as u64);
    check64("min.s64", |a, b| s(a).min(s(b)) as u64);
    check64("max.u64", u64::max);
    check64("xor.b64", |a, b| a ^ b);
    let (a, b) = (ints(1), ints(4));
    let rows = Rows { narrow: vec![a, b], wide: vec![wides(2)] };
    let body = "mul.wide.u32 %D0, %a0, %a1;\nmul.wide.s32 %D1, %a0, %a1;\nmad.wide.u32 %D2, %a0, %a1, %A0;\n\
                mad.wide.s32 %D3, %a0, -3, %A0;";
    let d = try_rows(body, &rows, (0, 4), &Options::default()).unwrap().wide;
    for l in 0..32 {
        let (x, y, z) = (a[l], b[l], wides(2)[l]);
        assert_eq!(d[0][l], x as u64 * y as u64);
        assert_eq!(d[1][l] as i64, x as i32 as i64 * y as i32 as i64);
        assert_eq!(d[2][l], (x as u64 * y as u64).wrapping_add(z));
        assert_eq!(d[3][l], (x as i32 as i64 * -3).wrapping_add(z as i64) as u64);
    }
}

#[test]
fn arithmetic_of_16_bits() {
    let half =
        |op: &str| format!("cvt.u16.u32 %h0, %a0;\ncvt.u16.u32 %h1, %a1;\n{op} %h2, %h0, %h1;\ncvt.u32.u16 %d0, %h2;");
    let check = |op: &str, f: &dyn Fn(u16, u16) -> u16| {
        for turn in 0..6 {
            let (a, b) = (ints(turn), ints(turn + 3));
            let d = narrow(&half(op), &[a, b]);
            (0..32).for_each(|l| assert_eq!(d[l], f(a[l] as u16, b[l] as u16) as u32, "{op} {:#x} {:#x}", a[l], b[l]));
        }
    };
    let s = |x: u16| x as i16;
    check("add.u16", &u16::wrapping_add);
    check("sub.s16", &u16::wrapping_sub);
    check("mul.lo.u16", &u16::wrapping_mul);
    check("mul.hi.s16", &|a, b| (s(a) as i32 * s(b) as i32 >> 16) as u16);
    check("min.s16", &|a, b| s(a).min(s(b)) as u16);
    check("max.u16", &u16::max);
    check("and.b16", &|a, b| a & b);
    let d = narrow("cvt.u16.u32 %h0, %a0;\ncvt.u16.u32 %h1, %a1;\nmul.wide.s16 %d0, %h0, %h1;", &[ints(0), ints(1)]);
    (0..32).for_each(|l| assert_eq!(d[l] as i32, ints(0)[l] as i16 as i32 * ints(1)[l] as i16 as i32));
    let d = narrow("cvt.u16.u32 %h0, %a0;\nshr.s16 %h1, %h0, 3;\ncvt.s32.s16 %d0, %h1;", &[ints(0)]);
    (0..32).for_each(|l| assert_eq!(d[l] as i32, (ints(0)[l] as i16 >> 3) as i32));
}

#[test]
fn shifts_beyond_the_width_are_clamped() {
    check2("shl.b32", |a, n| if n > 31 { 0 } else { a << n });
    check2("shr.u32", |a, n| if n > 31 { 0 } else { a >> n });
    check2("shr.s32", |a, n| (a as i32 >> n.min(31)) as u32);
}

#[test]
fn funnel_shifts() {
    let both = |a: u32, b: u32| (b as u64) << 32 | a as u64;
    check3("shf.l.wrap.b32 %d0, %a0, %a1, %a2", |a, b, n| (both(a, b) << (n & 31) >> 32) as u32);
    check3("shf.l.clamp.b32 %d0, %a0, %a1, %a2", |a, b, n| (both(a, b) << n.min(32) >> 32) as u32);
    check3("shf.r.wrap.b32 %d0, %a0, %a1, %a2", |a, b, n| (both(a, b) >> (n & 31)) as u32);
    check3("shf.r.clamp.b32 %d0, %a0, %a1, %a2", |a, b, n| (both(a, b) >> n.min(32)) as u32);
    let rows = Rows { narrow: vec![ints(2)], wide: vec![wides(0)] };
    let d =
        try_rows("shl.b64 %D0, %A0, %a0;\nshr.s64 %D1, %A0, %a0;", &rows, (0, 2), &Options::default()).unwrap().wide;
    for l in 0..32 {
        let (x, n) = (wides(0)[l], ints(2)[l]);
        assert_eq!(d[0][l], if n > 63 { 0 } else { x << n });
        assert_eq!(d[1][l] as i64, x as i64 >> n.min(63));
    }
}

#[test]
fn logic_of_three() {
    check3("lop3.b32 %d0, %a0, %a1, %a2, 0x96", |a, b, c| a ^ b ^ c);
    check3("lop3.b32 %d0, %a0, %a1, %a2, 0xe8", |a, b, c| a & b | a & c | b & c);
    check3("lop3.b32 %d0, %a0, %a1, %a2, 0xca", |a, b, c| a & b | !a & c);
    check3("lop3.b32 %d0, %a0, %a1, %a2, 0x2a", |a, b, c| !(a & b) & c);
}

#[test]
fn fields_of_bits() {
    check3("bfe.u32 %d0, %a0, %a1, %a2", |a, p, n| {
        let (p, n) = (p & 255, n & 255);
        (0..32).filter(|&i| i < n && p + i < 32).fold(0, |d, i| d | (a >> (p + i) & 1) << i)
    });
    check3("bfe.s32 %d0, %a0, %a1, %a2", |a, p, n| {
        let (p, n) = (p & 255, n & 255);
        let sign = if n == 0 { 0 } else { a >> (p + n - 1).min(31) & 1 };
        (0..32).fold(0, |d, i| d | (if i < n && p + i < 32 { a >> (p + i) & 1 } else { sign }) << i)
    });
    check3("bfi.b32 %d0, %a0, %a1, %a2, 5", |a, b, p| {
        let p = p & 255;
        (0..5).filter(|i| p + i < 32).fold(b, |d, i| d & !(1 << (p + i)) | (a >> i & 1) << (p + i))
    });
    check1("popc.b32", u32::count_ones);
    check1("clz.b32", u32::leading_zeros);
    check1("brev.b32", u32::reverse_bits);
    check1("bfind.u32", |a| if a == 0 { !0 } else { 31 - a.leading_zeros() });
    check1("bfind.shiftamt.u32", |a| if a == 0 { !0 } else { a.leading_zeros() });
    check1("bfind.s32", |a| {
        let x = if a as i32 >= 0 { a } else { !a };
        if x == 0 { !0 } else { 31 - x.leading_zeros() }
    });
    let d = try_rows(
        "popc.b64 %d0, %A0;\nclz.b64 %d1, %A0;",
        &Rows { narrow: vec![], wide: vec![wides(3)] },
        (2, 0),
        &Options::default(),
    );
    let d = d.unwrap().narrow;
    (0..32).for_each(|l| assert_eq!((d[0][l], d[1][l]), (wides(3)[l].count_ones(), wides(3)[l].leading_zeros())));
}

#[test]
fn bytes_permuted_and_multiplied() {
    check3("prmt.b32 %d0, %a0, %a1, %a2", |a, b, c| {
        let bytes: Vec<u8> = a.to_le_bytes().into_iter().chain(b.to_le_bytes()).collect();
        let pick = |i: u32| {
            let (s, v) = (c >> (4 * i) & 15, bytes[(c >> (4 * i) & 7) as usize]);
            if s < 8 { v } else { (v as i8 >> 7) as u8 }
        };
        u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
    });
    check3("prmt.b32 %d0, %a0, %a1, 0x5410", |a, b, _| b << 16 | a & 0xffff);
    let dot = |a: u32, b: u32, sa: bool, sb: bool| -> i32 {
        let v = |x: u8, s: bool| if s { x as i8 as i32 } else { x as i32 };
        a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(&x, y)| v(x, sa) * v(y, sb)).sum()
    };
    check3("dp4a.s32.s32 %d0, %a0, %a1, %a2", |a, b, c| c.wrapping_add(dot(a, b, true, true) as u32));
    check3("dp4a.u32.u32 %d0, %a0, %a1, %a2", |a, b, c| c.wrapping_add(dot(a, b, false, false) as u32));
    check3("dp4a.u32.s32 %d0, %a0, %a1, %a2", |a, b, c| c.wrapping_add(dot(a, b, false, true) as u32));
}

#[test]
fn registers_packed_and_unpacked() {
    let rows = Rows { narrow: vec![ints(0), ints(1)], wide: vec![wides(0)] };
    let body = "mov.b64 %D0, {%a0, %a1};\nmov.b64 {%d0, %d1}, %A0;\nmov.b32 {%h0, %h1}, %a0;\nmov.b32 %d2, {%h1, %h0};\n\
                mov.b64 {%h2, %h3, %h4, %h5}, %A0;\nmov.b64 %D1, {%h5, %h4, %h3, %h2};\nmov.b64 {_, %d3}, %A0;";
    let d = try_rows(body, &rows, (4, 2), &Options::default()).unwrap();
    for l in 0..32 {
        let (a, b, x) = (ints(0)[l], ints(1)[l], wides(0)[l]);
        assert_eq!(d.wide[0][l], (b as u64) << 32 | a as u64);
        assert_eq!((d.narrow[0][l], d.narrow[1][l], d.narrow[3][l]), (x as u32, (x >> 32) as u32, (x >> 32) as u32));
        assert_eq!(d.narrow[2][l], a.rotate_left(16));
        let h = |i: u32| x >> (16 * i) & 0xffff;
        assert_eq!(d.wide[1][l], h(0) << 48 | h(1) << 32 | h(2) << 16 | h(3));
    }
}

#[test]
fn comparisons_and_selections() {
    let (a, b) = (ints(0), ints(3));
    let check = |op: &str, f: &dyn Fn(u32, u32) -> bool| {
        let d = narrow(&format!("setp.{op} %p0, %a0, %a1;\nselp.b32 %d0, 1, 0, %p0;"), &[a, b]);
        (0..32).for_each(|l| assert_eq!(d[l] == 1, f(a[l], b[l]), "{op} {:#x} {:#x}", a[l], b[l]));
    };
    let s = |x: u32| x as i32;
    check("eq.s32", &|x, y| x == y);
    check("ne.b32", &|x, y| x != y);
    check("lt.s32", &|x, y| s(x) < s(y));
    check("lo.u32", &|x, y| x < y);
    check("le.u32", &|x, y| x <= y);
    check("gt.s32", &|x, y| s(x) > s(y));
    check("hs.u32", &|x, y| x >= y);
    let odd = "and.b32 %x0, %a0, 1;\nsetp.ne.u32 %p1, %x0, 0;\n";
    let both =
        |tail: &str| narrow(&format!("{odd}{tail}\nselp.b32 %d0, 1, 0, %p2;\n@%p3 add.u32 %d0, %d0, 2;"), &[a, b]);
    let d = both("setp.lt.and.u32 %p2|%p3, %a0, %a1, %p1;");
    for l in 0..32 {
        let (lt, odd) = (a[l] < b[l], a[l] & 1 == 1);
        assert_eq!(d[l], (lt && odd) as u32 + 2 * (!lt && odd) as u32);
    }
    let d = both("setp.lt.xor.u32 %p2|%p3, %a0, %a1, !%p1;");
    for l in 0..32 {
        let (lt, even) = (a[l] < b[l], a[l] & 1 == 0);
        assert_eq!(d[l], (lt ^ even) as u32 + 2 * (!lt ^ even) as u32);
    }
    let d = narrow(
        "set.lt.u32.s32 %x0, %a0, %a1;\nset.ge.f32.u32 %x1, %a0, %a1;\nslct.b32.s32 %d0, %x0, %x1, %a0;",
        &[a, b],
    );
    for l in 0..32 {
        let first = if s(a[l]) < s(b[l]) { !0 } else { 0 };
        let second = if a[l] >= b[l] { 1f32.to_bits() } else { 0 };
        assert_eq!(d[l], if s(a[l]) >= 0 { first } else { second });
    }
}

#[test]
fn predicates_are_logic_of_one_bit() {
    let lane: Row = std::array::from_fn(|l| l as u32);
    let body = "and.b32 %x0, %a0, 1;\nsetp.eq.u32 %p0, %x0, 1;\nsetp.gt.u32 %p1, %a0, 15;\nand.pred %p2, %p0, %p1;\n\
                or.pred %p3, %p0, !%p1;\nxor.pred %p4, %p0, %p1;\nnot.pred %p5, %p2;\nmov.pred %p6, 1;\nmov.u32 %d0, 0;\n\
                @%p2 or.b32 %d0, %d0, 1;\n@%p3 or.b32 %d0, %d0, 2;\n@%p4 or.b32 %d0, %d0, 4;\n@!%p5 or.b32 %d0, %d0, 8;\n\
                @%p6 or.b32 %d0, %d0, 16;";
    let d = narrow(body, &[lane]);
    for l in 0..32 {
        let (odd, high) = (l & 1 == 1, l > 15);
        let bits = [odd && high, odd || !high, odd ^ high, odd && high, true];
        assert_eq!(d[l], bits.iter().enumerate().map(|(i, &b)| (b as u32) << i).sum::<u32>());
    }
}
