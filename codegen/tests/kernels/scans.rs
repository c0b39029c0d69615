//! Scans and their gradients.
use crate::common::{check, check_on, inputs, kernel};

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
