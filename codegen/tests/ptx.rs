//! The text of one small kernel of each kind, as it is meant to be, and what the emulator counts of it.
#[allow(dead_code)]
mod common;
use common::gpu::{claim, text};
use common::{inputs, kernel};

/// Compares with the snapshot and runs it.
fn shown(name: &str, source: &str) {
    let k = kernel(source);
    let c = claim(&k);
    let block = c.code.block;
    let head = format!("// {}\n// {} threads, {} units a block\n", c.schedule.display(&k), block.threads, block.units);
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "ptx" }, {
        insta::assert_snapshot!(name, head + &text(&c));
    });
    common::gpu::check_on(&k, &inputs(&k, 5), 1e-6);
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
