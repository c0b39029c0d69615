//! Functions of one element at the edges and over all exponents, in vectors and alone, against f64.
#[allow(dead_code)]
mod common;
use common::{Numbers, compile, decode, kernel, run};
use lolm_ir::DType;
use lolm_ir::kernel::interp;

/// ±0, denormals, the ends of the normal range, ±100, where exp over- and underflows, infinities, NaN.
const EDGES: [f32; 33] = [
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    1e-40,
    -1e-40,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-30,
    -1e-30,
    0.499_999_97,
    0.5,
    0.625,
    -0.625,
    1.0,
    -1.0,
    0.999_999_94,
    1.000_000_1,
    std::f32::consts::SQRT_2,
    87.0,
    -87.0,
    88.722,
    88.73,
    -104.0,
    100.0,
    -100.0,
    1e10,
    -1e10,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// The edges, and numbers of both signs over the exponents -30..7.
fn arguments() -> Vec<f64> {
    let mut n = Numbers(11);
    let spread =
        (0..4000).map(|i| ((n.unit() + 1.5) * 2f64.powi(i % 37 - 30)) as f32 * if i & 1 == 0 { 1.0 } else { -1.0 });
    EDGES.into_iter().chain(spread).map(|x| x as f64).collect()
}

/// y = f(x) and the same shifted by one element, so that each argument meets another lane or the tail.
fn apply(f: &str, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let source = "kernel @f {
  axis i LEN
  in $x f32 LEN
  out $y f32 LEN
  %0 f32[i] = load $x[i]
  %1 f32[i] = F %0
  %2 f32[i] = store $y[i] %1
}";
    let k = kernel(&source.replace("LEN", &x.len().to_string()).replace(" F ", &format!(" {f} ")));
    let mut expected = vec![x.to_vec(), vec![0.0; x.len()]];
    interp::run(&k, &mut expected).unwrap();
    let code = compile(&k);
    let found = decode(DType::F32, &run(&k, &code, &[x.to_vec(), vec![0.0; x.len()]])[1]);
    let mut shifted = x.to_vec();
    shifted.rotate_left(1);
    let mut again = decode(DType::F32, &run(&k, &code, &[shifted, vec![0.0; x.len()]])[1]);
    again.rotate_right(1);
    let bits = |v: &[f64]| v.iter().map(|x| (*x as f32).to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found), bits(&again), "{f} depends on the lane");
    (expected.remove(1), found)
}

#[test]
fn functions_are_accurate_everywhere() {
    let x = arguments();
    // Relative errors, except below the normal range, where a result may be 0.
    let rows: [(&str, f64, f64); 13] = [
        ("exp", 1.2e-7, 2e-38),
        ("log", 1.5e-7, 0.0),
        ("sqrt", 6e-8, 0.0),
        ("rsqrt", 1.3e-7, 0.0),
        ("erf", 2e-7, 2e-38),
        ("tanh", 2.5e-7, 2e-38),
        ("sigmoid", 2e-7, 2e-38),
        ("silu", 2.5e-7, 4e-36),
        ("gelu", 8e-6, 2e-38),
        ("gelu_tanh", 2e-5, 2e-36),
        ("softplus", 2e-7, 2e-38),
        ("neg", 0.0, 0.0),
        ("abs", 0.0, 0.0),
    ];
    for (f, relative, absolute) in rows {
        let (expected, found) = apply(f, &x);
        let mut worst = (0.0, 0.0);
        for ((x, e), y) in x.iter().zip(&expected).zip(&found) {
            // The reference is NaN where ours has the limit.
            let limit = matches!(f, "gelu" | "silu") && *x == f64::NEG_INFINITY;
            // The argument of the exponential inside is rounded, which counts where the result has underflowed almost.
            let e32 = *e as f32;
            let ok = limit
                || (e.is_nan() && y.is_nan())
                || e32 == *y as f32
                || (e - y).abs() <= (relative * e.abs()).max(absolute);
            let error = (e - y).abs() / e.abs();
            if error.is_finite() && error > worst.0 && e.abs() > absolute * 10.0 {
                worst = (error, *x);
            }
            assert!(ok, "{f}({x:e}) = {y:e}, expected {e:e}, error {error:e}");
        }
        println!("{f}: worst relative error {:.2e} at {:e}", worst.0, worst.1);
    }
}

#[test]
fn limits_are_exact() {
    let inf = f64::INFINITY;
    for (f, x, y) in [
        ("exp", inf, inf),
        ("exp", -inf, 0.0),
        ("exp", 100.0, inf),
        ("exp", -150.0, 0.0),
        ("exp", 0.0, 1.0),
        ("log", 0.0, -inf),
        ("log", inf, inf),
        ("log", 1.0, 0.0),
        ("erf", inf, 1.0),
        ("erf", -inf, -1.0),
        ("tanh", inf, 1.0),
        ("tanh", -100.0, -1.0),
        ("sigmoid", inf, 1.0),
        ("sigmoid", -inf, 0.0),
        ("silu", inf, inf),
        ("gelu", inf, inf),
        ("gelu", -100.0, 0.0),
        ("gelu_tanh", inf, inf),
        ("gelu_tanh", -100.0, 0.0),
        ("gelu_tanh", 100.0, 100.0),
        ("softplus", inf, inf),
        ("softplus", -inf, 0.0),
        ("softplus", 100.0, 100.0),
    ] {
        let (_, found) = apply(f, &[x; 5]);
        assert_eq!(found, [y; 5], "{f}({x})");
    }
    for f in ["exp", "log", "sqrt", "rsqrt", "erf", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "softplus"] {
        let (_, found) = apply(f, &[f64::NAN; 5]);
        assert!(found.iter().all(|y| y.is_nan()), "{f}(NaN)");
    }
    assert!(apply("log", &[-1.0; 5]).1.iter().all(|y| y.is_nan()));
}

#[test]
fn maxima_do_not_hide_nan() {
    let source = "kernel @max {
  axis i 5
  axis j 23
  in $x f32 115
  in $y f32 115
  out $max f32 115
  out $min f32 115
  out $row f32 5
  %0 f32[i j] = load $x[23*i + j]
  %1 f32[i j] = load $y[23*i + j]
  %2 f32[i j] = max %0 %1
  %3 f32[i j] = min %0 %1
  %4 f32[i j] = store $max[23*i + j] %2
  %5 f32[i j] = store $min[23*i + j] %3
  %6 f32[i] = max.j %0
  %7 f32[i] = store $row[i] %6
}";
    let k = kernel(source);
    let mut data = common::inputs(&k, 1);
    for i in [3, 30, 68, 114] {
        data[0][i] = f64::NAN;
        data[1][i - 1] = f64::NAN;
    }
    common::check_on(&k, &data, 0.0);
}

#[test]
fn bf16_rounds_to_even_and_keeps_nan() {
    let source = "kernel @round {
  axis i 35
  in $x f32 35
  out $y bf16 35
  out $z f32 35
  %0 f32[i] = load $x[i]
  %1 bf16[i] = cast bf16 %0
  %2 bf16[i] = store $y[i] %1
  %3 f32[i] = cast f32 %1
  %4 f32[i] = mul %3 %3
  %5 f32[i] = store $z[i] %4
}";
    let k = kernel(source);
    let bits: [u32; 8] =
        [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x7f7f_ffff, 0x7f80_0001, 0xff80_0000, 0x0000_8000, 0x8001_8000];
    let x: Vec<f64> = (0..35).map(|i| f32::from_bits(bits[i % 8]) as f64).collect();
    let code = compile(&k);
    let found = run(&k, &code, &[x.clone(), vec![0.0; 35], vec![0.0; 35]]);
    for (x, y) in x.iter().zip(decode(DType::Bf16, &found[1])) {
        let e = lolm_ir::interp::round_bf16(*x);
        assert!(e == y || e.is_nan() && y.is_nan(), "{x:e} becomes {y:e}, expected {e:e}");
    }
    common::check_on(&k, &[x, vec![0.0; 35], vec![0.0; 35]], 1e-7);
}
