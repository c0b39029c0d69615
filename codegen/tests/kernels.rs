//! Kernels of every kind that lowering makes, against the interpreter.
mod common;
use common::check;

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
