//! Rows: norms, softmax, and what ends where a value says.
use crate::common::{check, check_on, inputs, kernel};

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
