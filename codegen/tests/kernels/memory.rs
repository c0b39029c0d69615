//! Where values come from and go to: sums of columns, gathers, scatters, guards, views.
use crate::common::{check, check_on, inputs, kernel};

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
        let code = crate::common::compile(&k);
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
