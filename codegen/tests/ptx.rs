//! The text of one small kernel of each kind, as it is meant to be, and what the emulator counts of it.
#[allow(dead_code)]
mod common;
use common::gpu::{claim, text};
use common::{inputs, kernel};

/// Compares with the snapshot and runs it.
fn shown(name: &str, source: &str) {
    shown_within(name, source, 1e-6);
}

fn shown_within(name: &str, source: &str, tolerance: f64) {
    let k = kernel(source);
    let c = claim(&k);
    let block = c.code.block;
    let head = format!("// {}\n// {} threads, {} units a block\n", c.schedule, block.threads, block.units);
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "ptx" }, {
        insta::assert_snapshot!(name, head + &text(&c));
    });
    common::gpu::check_on(&k, &inputs(&k, 5), tolerance);
}

#[test]
fn map() {
    shown(
        "map",
        "kernel @gate {
  axis i 200
  in $x bf16 200
  in $g f32 200
  out $y bf16 200
  %0 bf16[i] = load $x[i]
  %1 f32[i] = cast f32 %0
  %2 f32[i] = load $g[i]
  %3 f32[i] = mul %1 %2
  %4 bf16[i] = cast bf16 %3
  %5 bf16[i] = store $y[i] %4
}",
    );
}

#[test]
fn row() {
    shown(
        "row",
        "kernel @mean {
  axis i 6
  axis j 300
  in $x f32 1800
  out $y f32 6
  %0 f32[i j] = load $x[300*i + j]
  %1 f32[i] = sum.j %0
  %2 f32[] = const 0.0033333334
  %3 f32[i] = mul %1 %2
  %4 f32[i] = store $y[i] %3
}",
    );
}

#[test]
fn column_sum() {
    shown(
        "column_sum",
        "kernel @columns {
  axis i 7
  axis j 70
  in $x f32 490
  out $y f32 70
  %0 f32[i j] = load $x[70*i + j]
  %1 f32[j] = sum.i %0
  %2 f32[j] = store $y[j] %1
}",
    );
}

#[test]
fn scan() {
    shown(
        "scan",
        "kernel @scan {
  axis t 5
  axis c 40
  in $a f32 200
  in $b f32 200
  out $h f32 200
  out $last f32 40
  %0 f32[t c] = load $a[40*t + c]
  %1 f32[t c] = load $b[40*t + c]
  %2 f32[] = const 0.0
  %3 f32[t c] = scan.t %0 %1 %2
  %4 f32[t c] = store $h[40*t + c] %3
  %5 f32[c] = last.t %3
  %6 f32[c] = store $last[c] %5
}",
    );
}

#[test]
fn sample() {
    shown(
        "sample",
        "kernel @sample {
  axis b 3
  axis v 20
  in $x f32 60
  in $t f32 3
  in $k i32 3
  in $p f32 3
  in $m f32 3
  in $u f32 3
  out $y i32 3
  %0 f32[b v] = load $x[20*b + v]
  %1 f32[b] = load $t[b]
  %2 i32[b] = load $k[b]
  %3 f32[b] = load $p[b]
  %4 f32[b] = load $m[b]
  %5 f32[b] = load $u[b]
  %6 i32[b] = sample.v %0 %1 %2 %3 %4 %5
  %7 i32[b] = store $y[b] %6
}",
    );
}

#[test]
fn gather() {
    shown(
        "gather",
        "kernel @rows {
  axis t 6
  axis d 48
  in $ids i32 6
  in $table f32 480
  out $y f32 288
  %0 i32[t] = load $ids[t]
  %1 i32[] = const 0
  %2 i32[t] = max %0 %1
  %3 f32[t d] = load $table[d + 48*%2]
  %4 f32[t d] = store $y[48*t + d] %3
}",
    );
}

#[test]
fn scatter() {
    shown(
        "scatter",
        "kernel @add_rows {
  axis t 6
  axis d 48
  in $ids i32 6
  in $x f32 288
  inout $table f32 480
  %0 i32[t] = load $ids[t]
  %1 i32[] = const 0
  %2 i32[t] = max %0 %1
  %3 f32[t d] = load $x[48*t + d]
  %4 f32[t d] = accumulate $table[d + 48*%2] %3
}",
    );
}

#[test]
fn argmax() {
    shown(
        "argmax",
        "kernel @best {
  axis i 3
  axis j 50
  in $x f32 150
  out $at i32 3
  %0 f32[i j] = load $x[50*i + j]
  %1 i32[i] = argmax.j %0
  %2 i32[i] = store $at[i] %1
}",
    );
}

/// A kernel whose long folds are shared by a team gives what the interpreter gives, and says so.
fn team(source: &str, set: &[(usize, f64)], tolerance: f64) {
    let k = kernel(source);
    let schedule = claim(&k).schedule;
    assert!(schedule.contains(" team "), "{schedule}");
    let mut data = inputs(&k, 7);
    set.iter().for_each(|(o, x)| data[*o][0] = *x);
    common::gpu::check_on(&k, &data, tolerance);
}

#[test]
fn teams_sum_columns() {
    for (rows, columns) in [(512, 40), (1000, 33), (2050, 7), (5000, 64)] {
        let source = "kernel @columns {
  axis i ROWS
  axis j COLUMNS
  in $x f32 SIZE
  in $y f32 ROWS
  in $c f32 COLUMNS
  out $sum f32 COLUMNS
  out $dot f32 COLUMNS
  out $max f32 COLUMNS
  out $at i32 COLUMNS
  %0 f32[i j] = load $x[COLUMNS*i + j]
  %1 f32[i] = load $y[i]
  %2 f32[j] = load $c[j]
  %3 f32[j] = sum.i %0
  %4 f32[j] = dot.i %0 %1 %2
  %5 f32[j] = max.i %0
  %6 i32[j] = argmax.i %0
  %7 f32[j] = store $sum[j] %3
  %8 f32[j] = store $dot[j] %4
  %9 f32[j] = store $max[j] %5
  %10 i32[j] = store $at[j] %6
}";
        let size = (rows * columns).to_string();
        let source = source.replace("SIZE", &size).replace("ROWS", &rows.to_string());
        team(&source.replace("COLUMNS", &columns.to_string()), &[], 3e-5);
    }
}

/// Both passes over the row are shared, and so are the stores along it.
#[test]
fn teams_normalize_long_rows() {
    let source = "kernel @softmax {
  axis i 3
  axis v 16500
  in $x f32 49500
  out $y f32 49500
  out $lse f32 3
  out $at i32 3
  %0 f32[i v] = load $x[16500*i + v]
  %1 f32[i] = max.v %0
  %2 f32[i v] = sub %0 %1
  %3 f32[i v] = exp %2
  %4 f32[i] = sum.v %3
  %5 f32[i v] = div %3 %4
  %6 f32[i v] = store $y[16500*i + v] %5
  %7 f32[i] = log %4
  %8 f32[i] = add %7 %1
  %9 f32[i] = store $lse[i] %8
  %10 i32[i] = argmax.v %0
  %11 i32[i] = store $at[i] %10
}";
    team(source, &[], 3e-5);
}

/// The range of the shared axis ends and starts anywhere in the members' parts, or nowhere.
#[test]
fn teams_fold_ranges() {
    for (lo, hi) in [(0, 700), (-3, 5), (130, 131), (256, 512), (400, 300), (699, 9000)] {
        let source = "kernel @window {
  axis i 5
  axis s 700 in %0..%1
  axis j 40
  in $lo i32 1
  in $hi i32 1
  in $w f32 3500
  in $x f32 28000
  out $y f32 200
  out $n f32 5
  %0 i32[] = load $lo[0]
  %1 i32[] = load $hi[0]
  %2 f32[i s] = load $w[700*i + s]
  %3 f32[s j] = load $x[40*s + j]
  %4 f32[i j] = dot.s %2 %3
  %5 f32[i j] = store $y[40*i + j] %4
  %6 f32[i] = sum.s %2
  %7 f32[i] = store $n[i] %6
}";
        team(source, &[(0, lo as f64), (1, hi as f64)], 3e-5);
    }
}

/// Embeddings of billions of parameters: addresses take 64 bits, and so do the figures of the schedule.
#[test]
fn tensors_beyond_32_bits_have_kernels() {
    let k = kernel(
        "kernel @double {
  axis i 2147483600
  in $x f32 2147483600
  out $y f32 2147483600
  %0 f32[i] = load $x[i]
  %1 f32[i] = add %0 %0
  %2 f32[i] = store $y[i] %1
}",
    );
    assert!(text(&claim(&k)).contains("mul.wide.s32") || text(&claim(&k)).contains("mul.lo.s64"));
}

/// A product of f32 by chains of fma, with a bias.
#[test]
fn product_of_f32() {
    shown(
        "product_of_f32",
        "kernel @linear {
  axis i 8
  axis j 60
  axis l 40
  in $x f32 320
  in $w f32 2400
  in $bias f32 60
  out $y f32 480
  %0 f32[i l] = load $x[40*i + l]
  %1 f32[j l] = load $w[60*l + j]
  %2 f32[i j] = dot.l %0 %1
  %3 f32[j] = load $bias[j]
  %4 f32[i j] = add %2 %3
  %5 f32[i j] = store $y[60*i + j] %4
}",
    );
}

/// A product of bf16 by matrix instructions; one factor is bf16 in memory, the other is rounded on the way.
#[test]
fn product_of_bf16() {
    shown(
        "product_of_bf16",
        "kernel @linear {
  axis i 16
  axis j 32
  axis l 64
  in $x f32 1024
  in $w bf16 2048
  out $y f32 512
  %0 f32[i l] = load $x[64*i + l]
  %1 bf16[i l] = cast bf16 %0
  %2 f32[i l] = cast f32 %1
  %3 bf16[j l] = load $w[64*j + l]
  %4 f32[j l] = cast f32 %3
  %5 f32[i j] = dot.l %2 %4
  %6 f32[i j] = store $y[32*i + j] %5
}",
    );
}

/// A causal attention of bf16 by matrix instructions; one tile of keys is enough.
#[test]
fn attention_of_bf16() {
    shown_within(
        "attention_of_bf16",
        "kernel @attention {
  axis t 8
  axis s 64
  axis d 16
  axis j 16
  in $q bf16 128
  in $k bf16 1024
  in $qpos i32 8
  in $v bf16 1024
  out $o f32 128
  out $lse f32 8
  %0 bf16[t d] = load $q[16*t + d]
  %1 f32[t d] = cast f32 %0
  %2 bf16[s d] = load $k[16*s + d]
  %3 f32[s d] = cast f32 %2
  %4 f32[t s] = dot.d %1 %3
  %5 f32[] = const 0.25
  %6 f32[t s] = mul %4 %5
  %7 i32[t] = load $qpos[t]
  %8 i32[s] = index s
  %9 bool[t s] = le %8 %7
  %10 f32[] = const -inf
  %11 f32[t s] = select %9 %6 %10
  %12 f32[t] = max.s %11
  %13 f32[t] = abs %12
  %14 f32[] = const inf
  %15 bool[t] = eq %13 %14
  %16 f32[] = const 0
  %17 f32[t] = select %15 %16 %12
  %18 f32[t s] = sub %11 %17
  %19 f32[t s] = exp %18
  %20 f32[t] = sum.s %19
  %21 f32[t] = log %20
  %22 f32[t] = add %17 %21
  %23 f32[] = const 1
  %24 f32[t] = max %20 %23
  %25 f32[t s] = div %19 %24
  %26 bf16[s j] = load $v[16*s + j]
  %27 f32[s j] = cast f32 %26
  %28 f32[t j] = dot.s %25 %27
  %29 f32[t j] = store $o[16*t + j] %28
  %30 f32[t] = store $lse[t] %22
}",
        // The weights are rounded to bf16.
        4e-3,
    );
}

/// The gradients of keys and values of a causal attention of bf16: rows pass by.
#[test]
fn attention_grad_of_bf16() {
    shown_within(
        "attention_grad_of_bf16",
        "kernel @attention_grad {
  axis t 32
  axis s 16
  axis d 16
  axis j 16
  in $q bf16 512
  in $k bf16 256
  in $qpos i32 32
  in $lse f32 32
  in $do bf16 512
  in $v bf16 256
  in $delta f32 32
  out $dk f32 256
  out $dv f32 256
  %0 bf16[t d] = load $q[16*t + d]
  %1 f32[t d] = cast f32 %0
  %2 bf16[s d] = load $k[16*s + d]
  %3 f32[s d] = cast f32 %2
  %4 f32[t s] = dot.d %1 %3
  %5 f32[] = const 0.25
  %6 f32[t s] = mul %4 %5
  %7 i32[t] = load $qpos[t]
  %8 i32[s] = index s
  %9 bool[t s] = le %8 %7
  %10 f32[] = const -inf
  %11 f32[t s] = select %9 %6 %10
  %12 f32[t] = load $lse[t]
  %13 f32[t s] = sub %11 %12
  %14 f32[t s] = exp %13
  %15 f32[] = const 0
  %16 f32[t s] = select %9 %14 %15
  %17 bf16[t j] = load $do[16*t + j]
  %18 f32[t j] = cast f32 %17
  %19 bf16[s j] = load $v[16*s + j]
  %20 f32[s j] = cast f32 %19
  %21 f32[t s] = dot.j %18 %20
  %22 f32[t] = load $delta[t]
  %23 f32[t s] = sub %21 %22
  %24 f32[t s] = mul %16 %23
  %25 f32[t s] = mul %24 %5
  %26 bf16[t s] = cast bf16 %25
  %27 f32[t s] = cast f32 %26
  %28 f32[s d] = dot.t %27 %1
  %29 f32[s d] = store $dk[16*s + d] %28
  %30 bf16[t s] = cast bf16 %16
  %31 f32[t s] = cast f32 %30
  %32 f32[s j] = dot.t %31 %18
  %33 f32[s j] = store $dv[16*s + j] %32
}",
        // Few weights and slopes lie so near the middle of two bf16 that they are rounded to the other one.
        1e-3,
    );
}

/// A scan with its gate: two chunks of eight steps; a lane has four states of two channels.
#[test]
fn selective_scan() {
    shown(
        "selective_scan",
        "kernel @selective_scan {
  axis t 16
  axis e 32
  axis n 8
  in $dt f32 512
  in $a f32 256
  in $b f32 128
  in $c f32 128
  in $u f32 512
  in $z f32 512
  out $y f32 512
  %0 f32[t e] = load $dt[32*t + e]
  %1 f32[e n] = load $a[e + 32*n]
  %2 f32[t e n] = mul %0 %1
  %3 f32[t e n] = exp %2
  %4 f32[t n] = load $b[8*t + n]
  %5 f32[t n] = load $c[8*t + n]
  %6 f32[t e] = load $u[32*t + e]
  %7 f32[t e] = mul %0 %6
  %8 f32[t e n] = mul %7 %4
  %9 f32[] = const 0
  %10 f32[t e n] = scan.t %3 %8 %9
  %11 f32[t e] = dot.n %10 %5
  %12 f32[t e] = load $z[32*t + e]
  %13 f32[t e] = mul %11 %12
  %14 f32[t e] = store $y[32*t + e] %13
}",
    );
}
