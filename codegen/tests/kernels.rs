//! Kernels of every kind that lowering makes, against the interpreter.
#[allow(dead_code)]
mod common;
use common::{check, check_on, inputs, kernel};

#[test]
fn residual_and_layer_norm() {
    check(
        "kernel @add_norm {
  axis i 37
  axis j 100
  in $x bf16 3700
  in $res f32 3700
  in $w f32 100
  in $b f32 100
  out $s f32 3700
  out $y bf16 3700
  %0 bf16[i j] = load $x[100*i + j]
  %1 f32[i j] = cast f32 %0
  %2 f32[i j] = load $res[100*i + j]
  %3 f32[i j] = add %1 %2
  %4 f32[i j] = store $s[100*i + j] %3
  %5 f32[i] = sum.j %3
  %6 f32[] = const 0.01
  %7 f32[i] = mul %5 %6
  %8 f32[i j] = sub %3 %7
  %9 f32[i j] = mul %8 %8
  %10 f32[i] = sum.j %9
  %11 f32[] = const 1e-5
  %12 f32[i] = fma %10 %6 %11
  %13 f32[i] = rsqrt %12
  %14 f32[i j] = mul %8 %13
  %15 f32[j] = load $w[j]
  %16 f32[j] = load $b[j]
  %17 f32[i j] = fma %14 %15 %16
  %18 bf16[i j] = cast bf16 %17
  %19 bf16[i j] = store $y[100*i + j] %18
}",
        2e-6,
    );
}

/// The sum is stored in place, so the second and third pass must not read what the first has overwritten.
#[test]
fn layer_norm_in_place() {
    check(
        "kernel @norm_in_place {
  axis i 9
  axis j 70
  in $res f32 630
  inout $x f32 630
  %0 f32[i j] = load $x[70*i + j]
  %1 f32[i j] = load $res[70*i + j]
  %2 f32[i j] = add %0 %1
  %3 f32[i] = sum.j %2
  %4 f32[] = const 0.014285714
  %5 f32[i] = mul %3 %4
  %6 f32[i j] = sub %2 %5
  %7 f32[i] = dot.j %6 %6
  %8 f32[i] = rsqrt %7
  %9 f32[i j] = mul %6 %8
  %10 f32[i j] = store $x[70*i + j] %9
}",
        2e-6,
    );
}

#[test]
fn layer_norm_backward() {
    check(
        "kernel @add_norm_bwd {
  axis i 21
  axis j 72
  in $dy bf16 1512
  in $s f32 1512
  in $w f32 72
  in $dres f32 1512
  in $mean f32 21
  in $rstd f32 21
  out $ds f32 1512
  %0 f32[i j] = load $s[72*i + j]
  %1 f32[i] = load $mean[i]
  %2 f32[i] = load $rstd[i]
  %3 f32[i j] = sub %0 %1
  %4 f32[i j] = mul %3 %2
  %5 bf16[i j] = load $dy[72*i + j]
  %6 f32[i j] = cast f32 %5
  %7 f32[j] = load $w[j]
  %8 f32[i j] = mul %6 %7
  %9 f32[i] = sum.j %8
  %10 f32[i] = dot.j %8 %4
  %11 f32[] = const -0.013888889
  %12 f32[i] = mul %9 %11
  %13 f32[i] = mul %10 %11
  %14 f32[i j] = add %8 %12
  %15 f32[i j] = fma %4 %13 %14
  %16 f32[i j] = load $dres[72*i + j]
  %17 f32[i j] = fma %15 %2 %16
  %18 f32[i j] = store $ds[72*i + j] %17
}",
        3e-6,
    );
}

/// Softmax over the first `n + i` keys of each row: the range ends inside vectors and tiles, and may be empty.
#[test]
fn softmax_of_rows_with_a_dynamic_end() {
    for (n, len) in [(0, 64), (3, 64), (-4, 50), (40, 37), (17, 19), (1, 6), (60, 3)] {
        let k = kernel(
            &"kernel @softmax {
  axis i 12
  axis j LEN in 0..%3
  in $n i32 1
  in $x f32 SIZE
  out $y f32 SIZE
  out $lse f32 12
  %0 i32[] = load $n[0]
  %1 i32[i] = index i
  %2 i32[i] = add %0 %1
  %3 i32[i] = max %2 %1
  %4 f32[i j] = load $x[LEN*i + j]
  %5 f32[i] = max.j %4
  %6 f32[i j] = sub %4 %5
  %7 f32[i j] = exp %6
  %8 f32[i] = sum.j %7
  %9 f32[i j] = div %7 %8
  %10 i32[j] = index j
  %11 bool[i j] = lt %10 %3
  %12 f32[] = const 0.0
  %13 f32[i j] = select %11 %9 %12
  %14 f32[i j] = store $y[LEN*i + j] %13
  %15 f32[i] = log %8
  %16 f32[i] = add %15 %5
  %17 f32[i] = store $lse[i] %16
}"
            .replace("SIZE", &(12 * len).to_string())
            .replace("LEN", &len.to_string()),
        );
        let mut data = inputs(&k, 3);
        data[0] = vec![n as f64];
        check_on(&k, &data, 2e-6);
    }
}

/// Weights in place of scores, up to where a row of a unit ends: what lies beyond stays as it was, in whole tiles, single
/// vectors and the lanes of one.
#[test]
fn stores_end_where_their_guard_says() {
    for (len, pitch) in [(64, 80), (70, 80), (3, 16), (37, 48)] {
        for n in [-2, 0, 1, 3, 16, 17, 36, 63, 64, 90] {
            let k = kernel(
                &"kernel @weights {
  axis i 5
  axis j LEN in 0..%0
  in $n i32 1
  inout $x f32 SIZE
  out $sum f32 5
  units i 1
  %0 i32[] = load $n[0]
  %1 i32[j] = index j
  %2 bool[j] = lt %1 %0
  %3 f32[i j] = load $x[PITCH*i + j]
  %4 f32[i] = max.j %3
  %5 f32[i j] = sub %3 %4
  %6 f32[i j] = exp %5
  %7 f32[i] = sum.j %6
  %8 f32[i] = store $sum[i] %7
  %9 f32[i j] = store $x[PITCH*i + j] %6 if %2
}"
                .replace("SIZE", &(5 * pitch).to_string())
                .replace("LEN", &len.to_string())
                .replace("PITCH", &pitch.to_string()),
            );
            let mut data = inputs(&k, 3);
            data[0] = vec![n as f64];
            check_on(&k, &data, 2e-6);
        }
    }
}

#[test]
fn window_sums_with_both_ends_dynamic() {
    for (lo, hi) in [(0, 64), (5, 9), (15, 17), (16, 32), (33, 90), (-5, 3), (20, 10)] {
        let k = kernel(
            "kernel @window {
  axis i 3
  axis j 77 in %0..%1
  in $at i32 2
  in $x f32 231
  out $sum f32 3
  out $max f32 3
  out $arg i32 3
  %0 i32[] = load $at[0]
  %1 i32[] = load $at[1]
  %2 f32[i j] = load $x[77*i + j]
  %3 f32[i] = sum.j %2
  %4 f32[i] = max.j %2
  %5 i32[i] = argmax.j %2
  %6 f32[i] = store $sum[i] %3
  %7 f32[i] = store $max[i] %4
  %8 i32[i] = store $arg[i] %5
}",
        );
        let mut data = inputs(&k, 5);
        data[0] = vec![lo as f64, hi as f64];
        check_on(&k, &data, 2e-6);
    }
}

fn scan(b: usize, t: usize, e: usize, n: usize) -> String {
    "kernel @selective_scan {
  axis b BB
  axis t TT
  axis e EE
  axis n NN
  in $u bf16 BTE
  in $dt f32 BTE
  in $z f32 BTE
  in $A f32 EN
  in $B f32 BTN
  in $C f32 BTN
  in $D f32 EE
  inout $h f32 BEN
  out $y f32 BTE
  %0 f32[b t e] = load $dt[TE*b + EE*t + e]
  %1 f32[b t e] = softplus %0
  %2 f32[e n] = load $A[NN*e + n]
  %3 f32[b t e n] = mul %1 %2
  %4 f32[b t e n] = exp %3
  %5 bf16[b t e] = load $u[TE*b + EE*t + e]
  %6 f32[b t e] = cast f32 %5
  %7 f32[b t e] = mul %1 %6
  %8 f32[b t n] = load $B[TN*b + NN*t + n]
  %9 f32[b t e n] = mul %7 %8
  %10 f32[b e n] = load $h[FN*b + NN*e + n]
  %11 f32[b t e n] = scan.t %4 %9 %10
  %12 f32[b t n] = load $C[TN*b + NN*t + n]
  %13 f32[b t e] = dot.n %11 %12
  %14 f32[e] = load $D[e]
  %15 f32[b t e] = fma %14 %6 %13
  %16 f32[b t e] = load $z[TE*b + EE*t + e]
  %17 f32[b t e] = silu %16
  %18 f32[b t e] = mul %15 %17
  %19 f32[b t e] = store $y[TE*b + EE*t + e] %18
  %20 f32[b e n] = last.t %11
  %21 f32[b e n] = store $h[FN*b + NN*e + n] %20
}"
    .replace("BTE", &(b * t * e).to_string())
    .replace("BTN", &(b * t * n).to_string())
    .replace("BEN", &(b * e * n).to_string())
    .replace("FN", &(e * n).to_string())
    .replace("TE", &(t * e).to_string())
    .replace("EN", &(e * n).to_string())
    .replace("TN", &(t * n).to_string())
    .replace("BB", &b.to_string())
    .replace("TT", &t.to_string())
    .replace("EE", &e.to_string())
    .replace("NN", &n.to_string())
}

#[test]
fn selective_scans() {
    for (b, t, e, n) in
        [(2, 33, 40, 8), (1, 1, 64, 16), (3, 5, 7, 3), (1, 20, 3, 2), (1, 9, 5, 64), (2, 4, 20, 30), (1, 3, 9, 70)]
    {
        let k = kernel(&scan(b, t, e, n));
        let mut data = inputs(&k, 6);
        data[2 + 1].iter_mut().for_each(|a| *a = -a.abs());
        check_on(&k, &data, 3e-6);
    }
}

/// The state before each step of a reverse scan, dots over the states and sums over time.
#[test]
fn scan_backward() {
    check(
        "kernel @scan_bwd {
  axis b 2
  axis t 17
  axis c 12
  axis n 4
  in $dy f32 408
  in $u bf16 408
  in $dt f32 408
  in $A f32 48
  in $B f32 136
  in $C f32 136
  in $hs f32 1632
  out $du f32 408
  out $ddt f32 408
  inout $g f32 96
  out $dA f32 96
  %0 f32[b t c] = load $dt[204*b + 12*t + c]
  %1 f32[c n] = load $A[4*c + n]
  %2 f32[b t c n] = mul %0 %1
  %3 f32[b t c n] = exp %2
  %4 f32[b t c] = load $dy[204*b + 12*t + c]
  %5 f32[b t n] = load $C[68*b + 4*t + n]
  %6 f32[b t c n] = mul %4 %5
  %7 f32[b c n] = load $g[48*b + 4*c + n]
  %8 f32[b t c n] = mul %3 %6
  %9 f32[b t c n] = rscan.t %3 %8 %7
  %10 f32[b t c n] = prev.t %9
  %11 f32[b t c n] = add %10 %6
  %12 f32[b t n] = load $B[68*b + 4*t + n]
  %13 f32[b t c] = dot.n %11 %12
  %14 f32[b t c] = mul %13 %0
  %15 f32[b t c] = store $du[204*b + 12*t + c] %14
  %16 bf16[b t c] = load $u[204*b + 12*t + c]
  %17 f32[b t c] = cast f32 %16
  %18 f32[b t c] = mul %13 %17
  %19 f32[b t c n] = load $hs[816*b + 48*t + 4*c + n]
  %20 f32[b t c n] = mul %11 %19
  %21 f32[b t c n] = mul %20 %3
  %22 f32[b t c] = dot.n %21 %1
  %23 f32[b t c] = add %18 %22
  %24 f32[b t c] = store $ddt[204*b + 12*t + c] %23
  %25 f32[b c n] = last.t %9
  %26 f32[b c n] = store $g[48*b + 4*c + n] %25
  %27 f32[b c n] = dot.t %21 %0
  %28 f32[b c n] = store $dA[48*b + 4*c + n] %27
}",
        5e-6,
    );
}

#[test]
fn scan_over_a_dynamic_range() {
    for n in [0, 1, 5, 16, 30] {
        let k = kernel(
            "kernel @scan {
  axis t 16 in 0..%0
  axis e 10
  in $n i32 1
  in $x f32 160
  inout $h f32 10
  out $y bf16 160
  out $last f32 10
  %0 i32[] = load $n[0]
  %1 f32[t e] = load $x[10*t + e]
  %2 f32[] = const 0.5
  %3 f32[e] = load $h[e]
  %4 f32[t e] = scan.t %2 %1 %3
  %5 f32[t e] = prev.t %4
  %6 f32[t e] = sub %4 %5
  %7 bf16[t e] = cast bf16 %6
  %8 bf16[t e] = store $y[10*t + e] %7
  %9 f32[e] = last.t %4
  %10 f32[e] = store $h[e] %9
  %11 f32[e] = dot.t %4 %1
  %12 f32[e] = store $last[e] %11
}",
        );
        let mut data = inputs(&k, 7);
        data[0] = vec![n as f64];
        check_on(&k, &data, 1e-6);
    }
}

#[test]
fn column_sums() {
    check(
        "kernel @column_sums {
  axis p 5
  axis i 16
  axis j 75
  in $dy bf16 6000
  in $xhat f32 6000
  out $dw f32 375
  out $db f32 375
  %0 bf16[p i j] = load $dy[1200*p + 75*i + j]
  %1 f32[p i j] = cast f32 %0
  %2 f32[p i j] = load $xhat[1200*p + 75*i + j]
  %3 f32[p j] = dot.i %1 %2
  %4 f32[p j] = store $dw[75*p + j] %3
  %5 f32[p j] = sum.i %1
  %6 f32[p j] = store $db[75*p + j] %5
}",
        2e-6,
    );
}

#[test]
fn gather_with_a_guard() {
    check(
        "kernel @embed {
  axis i 10
  axis j 23
  in $tok i32 10
  in $emb bf16 161
  out $x f32 230
  %0 i32[i] = load $tok[i]
  %1 i32[] = const 0
  %2 i32[] = const 7
  %3 bool[i] = le %1 %0
  %4 bool[i] = lt %0 %2
  %5 bool[i] = and %3 %4
  %6 bf16[i j] = load $emb[j + 23*%0] if %5
  %7 f32[i j] = cast f32 %6
  %8 f32[i j] = store $x[23*i + j] %7
}",
        0.0,
    );
}

/// Lanes that read from places of their own.
#[test]
fn gather_by_lane() {
    check(
        "kernel @take {
  axis i 41
  in $at i32 41
  in $x f32 7
  out $y f32 41
  %0 i32[i] = load $at[i]
  %1 i32[] = const 0
  %2 i32[] = const 7
  %3 bool[i] = le %1 %0
  %4 bool[i] = lt %0 %2
  %5 bool[i] = and %3 %4
  %6 f32[i] = load $x[%0] if %5
  %7 f32[i] = store $y[i] %6
}",
        0.0,
    );
}

#[test]
fn scatter_adds_in_order() {
    check(
        "kernel @scatter {
  axis b 3
  axis t 11
  axis j 22
  in $tok i32 33
  in $dx f32 726
  inout $demb f32 154
  %0 i32[b t] = load $tok[11*b + t]
  %1 i32[] = const 0
  %2 i32[] = const 7
  %3 bool[b t] = le %1 %0
  %4 bool[b t] = lt %0 %2
  %5 bool[b t] = and %3 %4
  %6 f32[b t j] = load $dx[242*b + 22*t + j]
  %7 f32[b t j] = accumulate $demb[j + 22*%0] %6 if %5
}",
        2e-6,
    );
}

#[test]
fn adamw_of_an_odd_length() {
    check(
        "kernel @adamw {
  axis i 10007
  in $g f32 10007
  in $lr f32 1
  inout $p f32 10007
  inout $m f32 10007
  inout $v f32 10007
  %0 f32[i] = load $g[i]
  %1 f32[i] = load $m[i]
  %2 f32[] = const 0.9
  %3 f32[i] = mul %1 %2
  %4 f32[] = const 0.1
  %5 f32[i] = fma %0 %4 %3
  %6 f32[i] = load $v[i]
  %7 f32[i] = abs %6
  %8 f32[] = const 0.95
  %9 f32[i] = mul %7 %8
  %10 f32[i] = mul %0 %0
  %11 f32[] = const 0.05
  %12 f32[i] = fma %10 %11 %9
  %13 f32[i] = sqrt %12
  %14 f32[] = const 1e-8
  %15 f32[i] = add %13 %14
  %16 f32[i] = div %5 %15
  %17 f32[i] = load $p[i]
  %18 f32[] = load $lr[0]
  %19 f32[i] = mul %16 %18
  %20 f32[i] = sub %17 %19
  %21 f32[i] = store $p[i] %20
  %22 f32[i] = store $m[i] %5
  %23 f32[i] = store $v[i] %12
}",
        3e-6,
    );
}

/// Equal to the words of Random123, which the interpreter's generator is tested against; so not one bit may differ.
#[test]
fn random_numbers() {
    check(
        "kernel @random {
  axis i 3
  axis j 37
  in $seed i32 1
  in $step i32 1
  out $u f32 111
  %0 i32[] = load $seed[0]
  %1 i32[] = load $step[0]
  %2 i32[i] = index i
  %3 i32[j] = index j
  %4 i32[] = const 37
  %5 i32[i] = mul %2 %4
  %6 i32[i j] = add %5 %3
  %7 f32[i j] = random 3000000000 %0 %1 %6
  %8 f32[i j] = store $u[37*i + j] %7
}",
        0.0,
    );
}

#[test]
fn causal_convolution() {
    check(
        "kernel @conv {
  axis b 2
  axis t 13
  axis c 9
  axis j 4
  in $x f32 234
  in $w f32 36
  in $bias f32 9
  out $y f32 234
  %0 i32[t] = index t
  %1 i32[j] = index j
  %2 i32[t j] = add %0 %1
  %3 i32[] = const 3
  %4 bool[t j] = le %3 %2
  %5 f32[b t c j] = load $x[117*b + 9*t + c + 9*j + -27] if %4
  %6 f32[c j] = load $w[4*c + j]
  %7 f32[b t c] = dot.j %5 %6
  %8 f32[c] = load $bias[c]
  %9 f32[b t c] = add %7 %8
  %10 f32[b t c] = silu %9
  %11 f32[b t c] = store $y[117*b + 9*t + c] %10
}",
        2e-6,
    );
}

#[test]
fn argmax_takes_the_first_of_equals() {
    let k = kernel(
        "kernel @argmax {
  axis i 6
  axis j 53
  in $x f32 318
  out $y i32 6
  out $m f32 6
  %0 f32[i j] = load $x[53*i + j]
  %1 i32[i] = argmax.j %0
  %2 i32[i] = store $y[i] %1
  %3 f32[i] = max.j %0
  %4 f32[i] = store $m[i] %3
}",
    );
    let mut data = inputs(&k, 2);
    for (i, places) in [&[5, 20][..], &[20, 4], &[52, 51], &[0, 16, 32], &[], &[17]].iter().enumerate() {
        data[0][53 * i..53 * (i + 1)]
            .iter_mut()
            .for_each(|x| *x = if places.is_empty() { f64::NEG_INFINITY } else { *x });
        places.iter().for_each(|j| data[0][53 * i + j] = 3.0);
    }
    check_on(&k, &data, 0.0);
}

#[test]
fn three_levels_of_folds() {
    check(
        "kernel @nest {
  axis i 5
  axis j 6
  axis k 7
  axis l 33
  in $x f32 6930
  in $y f32 33
  out $a f32 5
  out $b f32 30
  %0 f32[i j k l] = load $x[1386*i + 231*j + 33*k + l]
  %1 f32[l] = load $y[l]
  %2 f32[i j k] = dot.l %0 %1
  %3 f32[i j] = max.k %2
  %4 f32[i j] = store $b[6*i + j] %3
  %5 f32[i j k] = sub %2 %3
  %6 f32[i j k] = exp %5
  %7 f32[i j] = sum.k %6
  %8 f32[i j] = log %7
  %9 f32[i] = sum.j %8
  %10 f32[i] = store $a[i] %9
}",
        3e-6,
    );
}

/// Row and column sums of one matrix in one kernel, each normalised by the other.
#[test]
fn both_directions() {
    check(
        "kernel @both {
  axis i 9
  axis j 21
  in $x f32 189
  out $y f32 189
  %0 f32[i j] = load $x[21*i + j]
  %1 f32[i j] = exp %0
  %2 f32[i] = sum.j %1
  %3 f32[j] = sum.i %1
  %4 f32[i j] = div %1 %2
  %5 f32[i j] = div %4 %3
  %6 f32[i j] = store $y[21*i + j] %5
}",
        2e-6,
    );
}

#[test]
fn bools_and_integers() {
    check(
        "kernel @mixed {
  axis i 7
  axis j 45
  in $a i32 315
  in $m bool 315
  in $x f32 45
  out $n bool 315
  out $q i32 315
  out $s i32 7
  out $c f32 7
  %0 i32[i j] = load $a[45*i + j]
  %1 bool[i j] = load $m[45*i + j]
  %2 f32[j] = load $x[j]
  %3 f32[] = const 0.0
  %4 bool[j] = lt %2 %3
  %5 bool[i j] = and %1 %4
  %6 bool[i j] = not %5
  %7 bool[i j] = store $n[45*i + j] %6
  %8 i32[] = const 3
  %9 i32[] = const -2
  %10 i32[i j] = sub %0 %8
  %11 i32[i j] = div %10 %8
  %12 i32[i j] = rem %10 %8
  %13 i32[i j] = mul %11 %12
  %14 i32[i j] = div %13 %9
  %15 i32[i j] = rem %10 %0
  %16 i32[i j] = select %5 %14 %15
  %17 i32[i j] = store $q[45*i + j] %16
  %18 i32[i j] = max %16 %9
  %19 i32[i] = sum.j %18
  %20 i32[i] = store $s[i] %19
  %21 f32[i j] = cast f32 %1
  %22 f32[i] = sum.j %21
  %23 f32[i] = store $c[i] %22
}",
        0.0,
    );
}

#[test]
fn concat_by_guards() {
    check(
        "kernel @concat {
  axis i 5
  axis j 50
  in $a f32 100
  in $b bf16 150
  out $y f32 250
  %0 i32[j] = index j
  %1 i32[] = const 20
  %2 bool[j] = lt %0 %1
  %3 bool[j] = not %2
  %4 f32[i j] = load $a[20*i + j] if %2
  %5 bf16[i j] = load $b[30*i + j + -20] if %3
  %6 f32[i j] = cast f32 %5
  %7 f32[i j] = select %2 %4 %6
  %8 f32[i j] = store $y[50*i + j] %7
}",
        0.0,
    );
}

#[test]
fn guarded_stores_leave_the_rest_alone() {
    check(
        "kernel @update {
  axis i 6
  axis j 19
  in $at i32 6
  in $x f32 114
  out $y f32 190
  %0 i32[i] = load $at[i]
  %1 i32[] = const 5
  %2 bool[i] = lt %0 %1
  %3 i32[j] = index j
  %4 bool[j] = lt %3 %1
  %5 i32[i] = index i
  %6 f32[i j] = load $x[19*i + j]
  %7 f32[i j] = store $y[19*i + j] %6 if %4
  %8 f32[i] = load $x[i]
  %9 f32[i] = store $y[114 + %5] %8 if %2
}",
        0.0,
    );
}

/// Rope: pairs along an axis of length 2.
#[test]
fn rotated_pairs() {
    check(
        "kernel @rope {
  axis t 7
  axis h 3
  axis p 2
  axis i 12
  in $x f32 504
  in $cos f32 84
  in $sin f32 84
  out $y f32 504
  %0 f32[t h i] = load $x[72*t + 24*h + 2*i]
  %1 f32[t h i] = load $x[72*t + 24*h + 2*i + 1]
  %2 f32[t i] = load $cos[12*t + i]
  %3 f32[t i] = load $sin[12*t + i]
  %4 i32[p] = index p
  %5 i32[] = const 0
  %6 bool[p] = eq %4 %5
  %7 f32[t h i] = mul %0 %2
  %8 f32[t h i] = mul %1 %3
  %9 f32[t h i] = sub %7 %8
  %10 f32[t h i] = mul %0 %3
  %11 f32[t h i] = fma %1 %2 %10
  %12 f32[t h p i] = select %6 %9 %11
  %13 f32[t h p i] = store $y[72*t + 24*h + 12*p + i] %12
}",
        1e-6,
    );
}

#[test]
fn given_units_are_obeyed() {
    for units in ["i 1", "i 4", "j 16", "i 3, j 7", "j 1", "j 64, i 2"] {
        let k = kernel(
            &"kernel @units {
  axis i 10
  axis j 50
  axis k 6
  in $x f32 3000
  out $y f32 500
  units UNITS
  %0 f32[i j k] = load $x[300*i + 6*j + k]
  %1 f32[i j] = sum.k %0
  %2 f32[i j] = gelu %1
  %3 f32[i j] = store $y[50*i + j] %2
}"
            .replace("UNITS", units),
        );
        let code = common::compile(&k);
        assert_eq!(code.schedule.units, k.units);
        check_on(&k, &inputs(&k, 4), 2e-6);
    }
}

#[test]
fn a_transposed_store() {
    check(
        "kernel @transpose {
  axis i 33
  axis j 18
  in $x f32 594
  out $y bf16 594
  %0 f32[i j] = load $x[18*i + j]
  %1 f32[] = const 2.0
  %2 f32[i j] = mul %0 %1
  %3 bf16[i j] = cast bf16 %2
  %4 bf16[i j] = store $y[33*j + i] %3
}",
        0.0,
    );
}

#[test]
fn one_number_of_all() {
    check(
        "kernel @norm {
  axis i 1003
  in $x f32 1003
  in $start f32 1
  out $y f32 1
  %0 f32[i] = load $x[i]
  %1 f32[] = load $start[0]
  %2 f32[] = dot.i %0 %0 %1
  %3 f32[] = sqrt %2
  %4 f32[] = store $y[0] %3
}",
        2e-6,
    );
}

/// States per channel that are summed over channels at every step: they lie in an array.
#[test]
fn scan_gradient() {
    let k = kernel(
        "kernel @scan_grad_32 {
  axis b 2
  axis group 2
  axis t 32
  axis n 8
  axis tile 32
  in $dt f32 4096
  in $a f32 512
  in $b f32 512
  in $c f32 512
  in $u f32 8192
  in $states f32 32768
  in $dy f32 4096
  out $d_dt f32 4096
  out $du f32 4096
  out $da_part f32 1024
  out $db_part f32 1024
  out $dc_part f32 1024
  units b 1, group 1
  %0 f32[b group t tile] = load $dt[2048*b + 32*group + 64*t + tile]
  %1 f32[group n tile] = load $a[32*group + 64*n + tile]
  %2 f32[b t n] = load $b[256*b + 8*t + n]
  %3 f32[b t n] = load $c[256*b + 8*t + n]
  %4 f32[b group t tile] = load $u[4096*b + 32*group + 128*t + tile]
  %5 f32[b group t n tile] = mul %0 %1
  %6 f32[b group t n tile] = exp %5
  %7 f32[b group t n tile] = load $states[16384*b + 8192*group + 256*t + 32*n + tile]
  %8 f32[b group t tile] = load $dy[2048*b + 32*group + 64*t + tile]
  %9 f32[b group t n tile] = mul %8 %3
  %10 f32[b group t n tile] = mul %6 %9
  %11 f32[] = const 0.0
  %12 f32[b group t n tile] = rscan.t %6 %10 %11
  %13 f32[b group t n tile] = prev.t %12
  %14 f32[b group t n tile] = add %13 %9
  %15 f32[b group t tile] = mul %0 %4
  %16 f32[b group t n tile] = mul %15 %2
  %17 f32[b group t n tile] = fma %6 %7 %16
  %18 f32[b group t n tile] = mul %14 %7
  %19 f32[b group t n tile] = mul %18 %6
  %20 f32[b group t tile] = dot.n %19 %1
  %21 f32[b group t tile] = dot.n %14 %2
  %22 f32[b group t tile] = fma %21 %4 %20
  %23 f32[b group t tile] = mul %21 %0
  %24 f32[b group t tile] = store $d_dt[2048*b + 32*group + 64*t + tile] %22
  %25 f32[b group t tile] = store $du[2048*b + 32*group + 64*t + tile] %23
  %26 f32[b group n tile] = dot.t %19 %0
  %27 f32[b group n tile] = store $da_part[512*b + 256*group + n + 8*tile] %26
  %28 f32[b group t n] = dot.tile %14 %15
  %29 f32[b group t n] = dot.tile %17 %8
  %30 f32[b group t n] = store $db_part[512*b + 256*group + 8*t + n] %28
  %31 f32[b group t n] = store $dc_part[512*b + 256*group + 8*t + n] %29
}",
    );
    let mut data = inputs(&k, 8);
    data[1].iter_mut().for_each(|a| *a = -a.abs());
    data[0].iter_mut().for_each(|dt| *dt = dt.abs());
    check_on(&k, &data, 5e-6);
}
