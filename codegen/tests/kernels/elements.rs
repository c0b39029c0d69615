//! Functions of elements, random numbers, folds of folds and the optimizer.
use crate::common::{check, check_on, inputs, kernel};

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
