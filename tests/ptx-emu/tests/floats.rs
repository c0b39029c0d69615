//! Float instructions against plain Rust, on an edge table: zeros, infinities, NaN, subnormals, large and small.
// Lanes are counted, and formulas are written as in the manual.
#![allow(clippy::precedence, clippy::needless_range_loop)]
mod common;
use common::rows::{Row, Rows, floats, narrow, same_floats, try_rows, wide};
use half::{bf16, f16};
use lolm_ptx_emu::{Module, Options};

fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

#[track_caller]
fn check2(op: &str, g: impl Fn(f32, f32) -> f32) {
    for turn in 0..8 {
        let (a, b) = (floats(turn), floats(turn + 5));
        let d = narrow(&format!("{op} %d0, %a0, %a1;"), &[a, b]);
        same_floats(&d, |l| g(f(a[l]), f(b[l])), &format!("{op} turn {turn}"));
    }
}

#[track_caller]
fn check1(op: &str, g: impl Fn(f32) -> f32) {
    for turn in 0..3 {
        let a = floats(turn);
        same_floats(&narrow(&format!("{op} %d0, %a0;"), &[a]), |l| g(f(a[l])), op);
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

#[test]
fn sums_products_and_quotients() {
    check2("add.rn.f32", |a, b| a + b);
    check2("sub.f32", |a, b| a - b);
    check2("mul.rn.f32", |a, b| a * b);
    check2("div.rn.f32", |a, b| a / b);
    check2("add.ftz.f32", |a, b| flush(flush(a) + flush(b)));
    check2("mul.rn.ftz.f32", |a, b| flush(flush(a) * flush(b)));
    check2("add.sat.f32", |a, b| if a + b > 0.0 { (a + b).min(1.0) } else { 0.0 });
    check1("neg.f32", |a| -a);
    check1("abs.f32", |a| a.abs());
    check1("sqrt.rn.f32", f32::sqrt);
    check1("rcp.rn.f32", |a| 1.0 / a);
    check2("copysign.f32", |a, b| b.copysign(a));
}

#[test]
fn least_and_greatest() {
    let min = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => f32::from_bits(a.to_bits() | b.to_bits()),
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    };
    check2("min.f32", min);
    check2("max.f32", |a, b| -min(-a, -b));
    let nan = |a: f32, b: f32| a.is_nan() || b.is_nan();
    check2("min.NaN.f32", |a, b| if nan(a, b) { f32::NAN } else { min(a, b) });
    check2("max.NaN.f32", |a, b| if nan(a, b) { f32::NAN } else { -min(-a, -b) });
}

#[test]
fn fma_rounds_once() {
    for turn in 0..8 {
        let (a, b, c) = (floats(turn), floats(turn + 5), floats(turn + 2));
        let d = narrow("fma.rn.f32 %d0, %a0, %a1, %a2;", &[a, b, c]);
        same_floats(&d, |l| f(a[l]).mul_add(f(b[l]), f(c[l])), "fma");
        let d = narrow("mad.rn.ftz.f32 %d0, %a0, %a1, %a2;", &[a, b, c]);
        same_floats(&d, |l| flush(flush(f(a[l])).mul_add(flush(f(b[l])), flush(f(c[l])))), "mad.ftz");
    }
    // Cases where rounding twice goes wrong: products that end half-way, and a sum far below that decides.
    let x: Row = std::array::from_fn(|l| 0x3f80_0001 + 0x0001_2345 * l as u32);
    let tiny: Row =
        std::array::from_fn(|l| ((if l % 2 == 0 { 1.0f32 } else { -1.0 }) * 2f32.powi(-60 - l as i32)).to_bits());
    let d = narrow("fma.rn.f32 %d0, %a0, %a1, %a2;", &[x, x, tiny]);
    same_floats(&d, |l| f(x[l]).mul_add(f(x[l]), f(tiny[l])), "fma");
}

#[test]
fn directed_rounding_brackets_the_exact_value() {
    for turn in 0..8 {
        let (a, b) = (floats(turn), floats(turn + 5));
        for op in ["add", "mul", "div"] {
            let run = |mode: &str| narrow(&format!("{op}.{mode}.f32 %d0, %a0, %a1;"), &[a, b]);
            let (near, zero, down, up) = (run("rn"), run("rz"), run("rm"), run("rp"));
            for l in 0..32 {
                let (n, z, d, u) = (f(near[l]), f(zero[l]), f(down[l]), f(up[l]));
                if n.is_nan() {
                    assert!(z.is_nan() && d.is_nan() && u.is_nan());
                    continue;
                }
                assert!(
                    d <= n && n <= u && (d == u || d.next_up() == u || d == 0.0 && u > 0.0),
                    "{op} {d:e} {n:e} {u:e}"
                );
                let exact = match op {
                    "add" => f(a[l]) as f64 + f(b[l]) as f64,
                    "mul" => f(a[l]) as f64 * f(b[l]) as f64,
                    _ => f(a[l]) as f64 / f(b[l]) as f64,
                };
                assert!(d as f64 <= exact && exact <= u as f64, "{op} {d:e} {exact:e} {u:e}");
                // Only the product is always exact in f64.
                assert!(d == u || d as f64 != exact || op != "mul", "{op}: an exact value was moved");
                assert_eq!(z.to_bits() << 1, if exact > 0.0 { d } else { u }.to_bits() << 1, "{op} {exact:e}");
            }
        }
    }
    let near = |mode: &str| f(narrow(&format!("sqrt.{mode}.f32 %d0, %a0;"), &[[2f32.to_bits(); 32]])[0]);
    assert!((near("rm") as f64) < 2f64.sqrt() && (near("rp") as f64) > 2f64.sqrt());
}

#[test]
fn doubles() {
    let v = |turn| floats(turn).map(|x| (f(x) as f64 * 1.000_000_000_3).to_bits());
    let d = f64::from_bits;
    let check = |op: &str, g: &dyn Fn(f64, f64) -> f64| {
        let (a, b) = (v(0), v(3));
        let got = wide(&format!("{op} %D0, %A0, %A1;"), &[a, b]);
        for l in 0..32 {
            let (x, y) = (d(got[l]), g(d(a[l]), d(b[l])));
            assert!(x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(), "{op} {x:e} {y:e}");
        }
    };
    check("add.rn.f64", &|a, b| a + b);
    check("sub.f64", &|a, b| a - b);
    check("mul.f64", &|a, b| a * b);
    check("div.rn.f64", &|a, b| a / b);
    let (a, b) = (v(1), v(2));
    let got = wide("fma.rn.f64 %D0, %A0, %A1, %A0;", &[a, b]);
    assert!((0..32).all(|l| d(got[l]).to_bits() == d(a[l]).mul_add(d(b[l]), d(a[l])).to_bits() || d(got[l]).is_nan()));
}

/// The relative error of an approximate function over a range, in units of 2^-23.
fn error(op: &str, exact: impl Fn(f64) -> f64, low: f64, high: f64, o: &Options) -> f64 {
    let mut worst = 0f64;
    for part in 0..16 {
        let x: Row = std::array::from_fn(|l| ((low + (high - low) * (32 * part + l) as f64 / 511.0) as f32).to_bits());
        let rows = Rows { narrow: vec![x], wide: vec![] };
        let d = try_rows(&format!("{op} %d0, %a0;"), &rows, (1, 0), o).unwrap().narrow[0];
        for l in 0..32 {
            let want = exact(f(x[l]) as f64);
            worst = worst.max((f(d[l]) as f64 - want).abs() / want.abs().max(1e-30) * 2f64.powi(23));
        }
    }
    worst
}

#[test]
fn approximate_functions_stay_inside_their_documented_errors() {
    let moved = Options { perturb: true, seed: 5, ..Options::default() };
    type Case = (&'static str, fn(f64) -> f64, f64, f64, f64);
    let cases: [Case; 8] = [
        ("ex2.approx.ftz.f32", f64::exp2, -100.0, 100.0, 3.0),
        ("lg2.approx.f32", f64::log2, 2.5, 1000.0, 3.0),
        ("rcp.approx.ftz.f32", |x| 1.0 / x, 0.1, 50.0, 2.0),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), 0.1, 50.0, 3.0),
        ("sqrt.approx.f32", f64::sqrt, 0.1, 50.0, 3.0),
        ("sin.approx.f32", f64::sin, 0.5, 2.5, 2.5),
        ("cos.approx.f32", f64::cos, -0.9, 0.9, 2.5),
        ("tanh.approx.f32", f64::tanh, 0.1, 4.0, 4096.0),
    ];
    for (op, exact, low, high, most) in cases {
        let plain = error(op, exact, low, high, &Options::default());
        assert!(plain <= 0.51, "{op}: {plain}");
        let shifted = error(op, exact, low, high, &moved);
        assert!(shifted > plain && shifted <= most, "{op}: {shifted}");
    }
    let (a, b) = (floats(0), floats(3));
    let d = narrow("div.full.f32 %x0, %a0, %a1;\ndiv.approx.f32 %d0, %a0, %a1;", &[a, b]);
    same_floats(&d, |l| f(a[l]) / f(b[l]), "div.approx");
}

#[test]
fn edges_of_the_exponential() {
    check1("ex2.approx.f32", |x| (x as f64).exp2() as f32);
    check1("ex2.approx.ftz.f32", |x| flush((flush(x) as f64).exp2() as f32));
    let x: Row = std::array::from_fn(|l| (l as f32 * 10.0 - 160.0).to_bits());
    same_floats(&narrow("ex2.approx.f32 %d0, %a0;", &[x]), |l| (f(x[l]) as f64).exp2() as f32, "ex2");
    check1("lg2.approx.f32", |x| (x as f64).log2() as f32);
    check1("tanh.approx.f32", |x| (x as f64).tanh() as f32);
    check1("rsqrt.approx.f32", |x| (1.0 / (x as f64).sqrt()) as f32);
}

#[test]
fn comparisons_of_floats() {
    let (a, b) = (floats(0), floats(2));
    let mut b = b;
    (0..8).for_each(|l| b[l] = a[l]);
    let check = |op: &str, ordered: bool, g: &dyn Fn(f32, f32) -> bool| {
        let d = narrow(&format!("setp.{op}.f32 %p0, %a0, %a1;\nselp.b32 %d0, 1, 0, %p0;"), &[a, b]);
        for l in 0..32 {
            let nan = f(a[l]).is_nan() || f(b[l]).is_nan();
            let want = if nan { !ordered } else { g(f(a[l]), f(b[l])) };
            assert_eq!(d[l] == 1, want, "{op} {} {}", f(a[l]), f(b[l]));
        }
    };
    check("eq", true, &|x, y| x == y);
    check("ne", true, &|x, y| x != y);
    check("lt", true, &|x, y| x < y);
    check("le", true, &|x, y| x <= y);
    check("gt", true, &|x, y| x > y);
    check("ge", true, &|x, y| x >= y);
    check("equ", false, &|x, y| x == y);
    check("neu", false, &|x, y| x != y);
    check("ltu", false, &|x, y| x < y);
    check("leu", false, &|x, y| x <= y);
    check("gtu", false, &|x, y| x > y);
    check("geu", false, &|x, y| x >= y);
    check("num", true, &|_, _| true);
    check("nan", false, &|_, _| false);
    type Test = (&'static str, fn(f32) -> bool);
    let tests: [Test; 6] = [
        ("finite", f32::is_finite),
        ("infinite", f32::is_infinite),
        ("number", |x| !x.is_nan()),
        ("notanumber", f32::is_nan),
        ("normal", f32::is_normal),
        ("subnormal", f32::is_subnormal),
    ];
    for (name, g) in tests {
        let d = narrow(&format!("testp.{name}.f32 %p0, %a0;\nselp.b32 %d0, 1, 0, %p0;"), &[a]);
        (0..32).for_each(|l| assert_eq!(d[l] == 1, g(f(a[l])), "{name}"));
    }
}

#[test]
fn halves_in_pairs() {
    let (a, b, c) = (floats(0), floats(3), floats(6));
    let pair16 = |x: &Row| -> Row {
        std::array::from_fn(|l| {
            f16::from_f32(f(x[l])).to_bits() as u32 | (f16::from_f32(f(x[31 - l])).to_bits() as u32) << 16
        })
    };
    let pairb = |x: &Row| -> Row {
        std::array::from_fn(|l| {
            bf16::from_f32(f(x[l])).to_bits() as u32 | (bf16::from_f32(f(x[31 - l])).to_bits() as u32) << 16
        })
    };
    let each = |d: &Row, ty: &str, ins: [&Row; 3], g: &dyn Fn([f64; 3]) -> f64, what: &str| {
        for l in 0..32 {
            for h in [0, 16] {
                let get = |x: &Row| {
                    let bits = (x[l] >> h) as u16;
                    if ty == "f16" { f16::from_bits(bits).to_f64() } else { bf16::from_bits(bits).to_f64() }
                };
                let want = g(ins.map(get));
                let want = if ty == "f16" { f16::from_f64(want).to_f64() } else { bf16::from_f64(want).to_f64() };
                assert!(get(d) == want || get(d).is_nan() && want.is_nan(), "{what} {} for {want}", get(d));
            }
        }
    };
    for (ty, [x, y, z]) in [("f16", [&a, &b, &c].map(pair16)), ("bf16", [&a, &b, &c].map(pairb))] {
        let run = |op: &str| narrow(&format!("{op}.{ty}x2 %d0, %a0, %a1;"), &[x, y]);
        each(&run("add.rn"), ty, [&x, &y, &z], &|[x, y, _]| x + y, "add");
        each(&run("sub.rn"), ty, [&x, &y, &z], &|[x, y, _]| x - y, "sub");
        each(&run("mul.rn"), ty, [&x, &y, &z], &|[x, y, _]| x * y, "mul");
        each(&run("max"), ty, [&x, &y, &z], &|[x, y, _]| x.max(y), "max");
        let d = narrow(&format!("fma.rn.{ty}x2 %d0, %a0, %a1, %a2;"), &[x, y, z]);
        each(&d, ty, [&x, &y, &z], &|[x, y, z]| x.mul_add(y, z), "fma");
        let d = narrow(&format!("fma.rn.relu.{ty}x2 %d0, %a0, %a1, %a2;"), &[x, y, z]);
        each(&d, ty, [&x, &y, &z], &|[x, y, z]| if x.mul_add(y, z) < 0.0 { 0.0 } else { x.mul_add(y, z) }, "relu");
    }
}

#[test]
fn conversions_between_floats() {
    for turn in 0..4 {
        let a = floats(turn);
        let d = narrow("cvt.rn.bf16.f32 %h0, %a0;\ncvt.u32.u16 %d0, %h0;", &[a]);
        let e = narrow("cvt.rn.f16.f32 %h0, %a0;\ncvt.u32.u16 %d0, %h0;", &[a]);
        let pair = narrow("cvt.rn.bf16x2.f32 %d0, %a0, %a1;", &[a, floats(turn + 1)]);
        let pair16 = narrow("cvt.rn.f16x2.f32 %d0, %a0, %a1;", &[a, floats(turn + 1)]);
        let tf = narrow("cvt.rna.tf32.f32 %d0, %a0;", &[a]);
        let zero = narrow("cvt.rz.bf16.f32 %h0, %a0;\ncvt.u32.u16 %d0, %h0;", &[a]);
        for l in 0..32 {
            let x = f(a[l]);
            if x.is_nan() {
                assert_eq!((d[l], e[l]), (0x7fff, 0x7fff));
                continue;
            }
            assert_eq!(d[l], bf16::from_f32(x).to_bits() as u32, "{x:e}");
            assert_eq!(e[l], f16::from_f32(x).to_bits() as u32, "{x:e}");
            assert_eq!(pair[l] >> 16, d[l]);
            assert_eq!(pair16[l] >> 16, e[l]);
            assert_eq!(zero[l], a[l] >> 16);
            assert_eq!(tf[l], if x.is_infinite() { a[l] } else { (a[l] + 0x1000) & !0x1fff });
        }
        let back = narrow("cvt.rn.f16.f32 %h0, %a0;\ncvt.f32.f16 %d0, %h0;", &[a]);
        same_floats(&back, |l| f16::from_f32(f(a[l])).to_f32(), "f16");
        let back = narrow("cvt.rn.bf16.f32 %h0, %a0;\ncvt.f32.bf16 %d0, %h0;", &[a]);
        same_floats(&back, |l| bf16::from_f32(f(a[l])).to_f32(), "bf16");
        let d = try_rows(
            "cvt.f64.f32 %D0, %a0;\nadd.f64 %D1, %D0, %D0;\ncvt.rn.f32.f64 %d0, %D1;",
            &Rows { narrow: vec![a], wide: vec![] },
            (1, 1),
            &Options::default(),
        )
        .unwrap();
        same_floats(&d.narrow[0], |l| f(a[l]) + f(a[l]), "f64");
    }
    // All of f16: there and back.
    for part in 0..64 {
        let x: Row = std::array::from_fn(|l| (part * 1024 + l * 32) as u32);
        let d = narrow("cvt.u16.u32 %h0, %a0;\ncvt.f32.f16 %d0, %h0;", &[x]);
        same_floats(&d, |l| f16::from_bits(x[l] as u16).to_f32(), "f16 to f32");
    }
}

#[test]
fn conversions_between_floats_and_integers() {
    let a = floats(1);
    let to = |op: &str| narrow(&format!("{op} %d0, %a0;"), &[a]);
    let (zs, zu) = (to("cvt.rzi.s32.f32"), to("cvt.rzi.u32.f32"));
    let (ns, ds, us) = (to("cvt.rni.s32.f32"), to("cvt.rmi.s32.f32"), to("cvt.rpi.s32.f32"));
    let (nf, zf) = (to("cvt.rni.f32.f32"), to("cvt.rzi.f32.f32"));
    for l in 0..32 {
        let x = f(a[l]);
        assert_eq!((zs[l] as i32, zu[l]), (x as i32, x as u32), "{x}");
        assert_eq!(
            (ns[l] as i32, ds[l] as i32, us[l] as i32),
            (x.round_ties_even() as i32, x.floor() as i32, x.ceil() as i32)
        );
    }
    same_floats(&nf, |l| f(a[l]).round_ties_even(), "rni");
    same_floats(&zf, |l| f(a[l]).trunc(), "rzi");
    let i = common::rows::ints(2);
    let from = |op: &str| narrow(&format!("{op} %d0, %a0;"), &[i]);
    same_floats(&from("cvt.rn.f32.s32"), |l| i[l] as i32 as f32, "s32");
    same_floats(&from("cvt.rn.f32.u32"), |l| i[l] as f32, "u32");
    let (down, up) = (from("cvt.rm.f32.u32"), from("cvt.rp.f32.u32"));
    assert!((0..32).all(|l| f(down[l]) as f64 <= i[l] as f64 && f(up[l]) as f64 >= i[l] as f64));
    let d = narrow("cvt.sat.u8.s32 %h0, %a0;\ncvt.u32.u16 %d0, %h0;", &[i]);
    assert!((0..32).all(|l| d[l] == (i[l] as i32).clamp(0, 255) as u32));
    let d = narrow("cvt.s8.s32 %h0, %a0;\ncvt.s32.s16 %d0, %h0;", &[i]);
    assert!((0..32).all(|l| d[l] as i32 == i[l] as i8 as i32));
    let rows = Rows { narrow: vec![i], wide: vec![] };
    let d = try_rows(
        "cvt.s64.s32 %D0, %a0;\ncvt.u64.u32 %D1, %a0;\ncvt.rn.f64.s64 %D2, %D0;\ncvt.u32.u64 %d0, %D0;",
        &rows,
        (1, 3),
        &Options::default(),
    )
    .unwrap();
    for (l, &i) in i.iter().enumerate() {
        assert_eq!((d.wide[0][l] as i64, d.wide[1][l], d.narrow[0][l]), (i as i32 as i64, i as u64, i));
        assert_eq!(f64::from_bits(d.wide[2][l]), i as i32 as f64);
    }
}

#[test]
fn what_is_not_exact_names_its_rounding() {
    let parse = |line: &str| {
        let text = format!(
            ".version 7.0\n.target sm_80\n.address_size 64\n.entry k()\n{{\n.reg .pred %p<2>;\n.reg .b32 %r<4>;\n.reg .b16 %h<4>;\n{line}\n}}"
        );
        Module::parse(&text).map(|_| ()).map_err(|e| e.to_string())
    };
    parse("fma.rn.f32 %r0, %r1, %r2, %r3;").unwrap();
    for line in [
        "fma.f32 %r0, %r1, %r2, %r3;",
        "cvt.f32.s32 %r0, %r1;",
        "cvt.bf16.f32 %h0, %r1;",
        "cvt.rn.f32.bf16 %r0, %h1;",
        "ex2.f32 %r0, %r1;",
        "sqrt.f32 %r0, %r1;",
        "mul.s32 %r0, %r1, %r2;",
        "add.f32 %r0, %r1, 3;",
        "add.f32 %r0, %r1, %h2;",
        "add.bogus.f32 %r0, %r1, %r2;",
        "frobnicate.b32 %r0, %r1;",
        "add.b32 %r0, %r1, %r2;",
        "and.u32 %r0, %r1, %r2;",
        "setp.lt.b32 %p0, %r1, %r2;",
        "mad.lo.u32 %r0, %tid.x, %r1, %r2;",
        "div.f32 %r0, %r1, %r2;",
        "add.rn.bf16x2 %r0, %r1, %r2;",
        "atom.global.add.b32 %r0, [%r1], %r2;",
        "add.rz.f16x2 %r0, %r1, %r2;",
    ] {
        let e = parse(line).unwrap_err();
        assert!(e.starts_with("PTX line 9: "), "{e}");
    }
}
