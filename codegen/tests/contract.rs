//! Products by tiles: every layout, odd sizes, prologues and epilogues, against the interpreter; the same bits whatever the
//! rows and the batch.
#[allow(dead_code)]
mod common;
use common::{gpu, inputs, kernel};
use lolm_codegen::Claim;
use lolm_ir::DType;
use lolm_ir::kernel::{Kernel, Mode, interp};

/// ‖found - expected‖ / ‖expected‖.
fn error(expected: &[f64], found: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let d = norm(&mut expected.iter().zip(found).map(|(e, f)| e - f));
    d / norm(&mut expected.iter().copied()).max(1e-30)
}

fn claim(k: &Kernel) -> Claim {
    let c = gpu::claim(k);
    assert_eq!(c.generator, "contract", "{k}");
    c
}

/// Runs and compares: f32 to 1e-6 of the whole tensor, bf16 to one rounding of each element.
fn check(source: &str) -> (Kernel, Claim) {
    let k = kernel(source);
    let c = claim(&k);
    let data = inputs(&k, 7);
    let mut expected = data.clone();
    interp::run(&k, &mut expected).unwrap_or_else(|e| panic!("{e}\n{k}"));
    let (found, _) = gpu::run(&k, &c, &data);
    for ((o, e), b) in k.operands.iter().zip(&expected).zip(&found) {
        let limit = match (o.mode, o.dtype) {
            (Mode::In, _) => 0.0,
            (_, DType::Bf16) => 1.0 / 256.0,
            _ => 1e-6,
        };
        let d = error(e, &common::decode(o.dtype, b));
        assert!(d <= limit, "${} differs by {d}\n{}\n{k}\n{}", o.name, c.schedule, c.code.text);
    }
    (k, c)
}

/// `c[m, n] = Σ a·b`, with either factor transposed.
fn plain(m: usize, n: usize, k: usize, (ta, tb): (bool, bool), bf16: bool) -> String {
    let (a, b) = (
        if ta { format!("i + {m}*l") } else { format!("{k}*i + l") },
        if tb { format!("{k}*j + l") } else { format!("j + {n}*l") },
    );
    let (sa, sb, sc) = (m * k, n * k, m * n);
    let body = match bf16 {
        false => format!(
            "  %0 f32[i l] = load $a[{a}]\n  %1 f32[j l] = load $b[{b}]\n  %2 f32[i j] = dot.l %0 %1\n  %3 f32[i j] = store $c[{n}*i + j] %2\n"
        ),
        true => format!(
            "  %0 bf16[i l] = load $a[{a}]\n  %1 bf16[j l] = load $b[{b}]\n  %2 f32[i l] = cast f32 %0\n  %3 f32[j l] = cast f32 %1\n  %4 f32[i j] = dot.l %2 %3\n  %5 f32[i j] = store $c[{n}*i + j] %4\n"
        ),
    };
    let d = if bf16 { "bf16" } else { "f32" };
    format!(
        "kernel @plain {{\n  axis i {m}\n  axis j {n}\n  axis l {k}\n  in $a {d} {sa}\n  in $b {d} {sb}\n  out $c f32 {sc}\n{body}}}"
    )
}

/// The same of numbers that are f32 in memory and rounded to bf16 before they are multiplied.
fn rounded(m: usize, n: usize, k: usize, t: (bool, bool)) -> String {
    let of_f32 = plain(m, n, k, t, false);
    let (head, _) = of_f32.split_once("  %2 ").unwrap();
    head.to_string()
        + &format!(
            "  %2 bf16[i l] = cast bf16 %0
  %3 bf16[j l] = cast bf16 %1
  %4 f32[i l] = cast f32 %2
  %5 f32[j l] = cast f32 %3
  %6 f32[i j] = dot.l %4 %5
  %7 f32[i j] = store $c[{n}*i + j] %6
}}"
        )
}

const LAYOUTS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn products_of_f32_in_every_layout() {
    for t in LAYOUTS {
        for (m, n, k) in
            [(64, 64, 64), (16, 32, 48), (7, 33, 100), (1, 100, 33), (100, 1, 33), (40, 70, 36), (130, 20, 40)]
        {
            check(&plain(m, n, k, t, false));
        }
    }
}

#[test]
fn products_of_bf16_in_every_layout() {
    for t in LAYOUTS {
        for (m, n, k) in
            [(64, 64, 64), (16, 32, 48), (7, 33, 100), (1, 100, 33), (100, 1, 40), (40, 72, 36), (136, 144, 40)]
        {
            check(&plain(m, n, k, t, true));
        }
    }
}

#[test]
fn factors_that_are_rounded_on_the_way() {
    for t in LAYOUTS {
        for (m, n, k) in [(64, 64, 64), (16, 32, 48), (8, 33, 100), (1, 100, 36), (136, 144, 40), (3, 40, 512)] {
            check(&rounded(m, n, k, t));
        }
    }
}

/// A long depth is cut in parts; with few rows they are done at once.
#[test]
fn parts_of_a_long_depth() {
    for bf16 in [false, true] {
        for (m, n, k) in [(2, 40, 512), (20, 24, 1000), (48, 48, 520), (3, 64, 2000)] {
            check(&plain(m, n, k, (false, true), bf16));
            check(&plain(n, m, k, (false, false), bf16));
        }
    }
}

/// Grouped queries: a batch on both sides, two axes of rows, one of them on one side only.
#[test]
fn grouped_queries() {
    for t in [1, 5, 40] {
        let source = "kernel @scores {
  axis b 2
  axis h 3
  axis r 2
  axis t LEN
  axis s 37
  axis i 32
  in $q f32 QUERIES
  in $k f32 7104
  out $w f32 SCORES
  %0 f32[b h r t i] = load $q[ROW*b + 64*h + 32*r + 192*t + i]
  %1 f32[b h s i] = load $k[3552*b + 32*h + 96*s + i]
  %2 f32[b h r t s] = dot.i %0 %1
  %3 f32[] = const 0.25
  %4 f32[b h r t s] = mul %2 %3
  %5 f32[b h r t s] = store $w[SCORE*b + HEAD*h + GROUP*r + 37*t + s] %4
}"
        .replace("QUERIES", &(2 * 192 * t).to_string())
        .replace("SCORES", &(12 * t * 37).to_string())
        .replace("ROW", &(192 * t).to_string())
        .replace("SCORE", &(6 * t * 37).to_string())
        .replace("HEAD", &(2 * t * 37).to_string())
        .replace("GROUP", &(t * 37).to_string())
        .replace("LEN", &t.to_string());
        check(&source);
        let bf16 = source
            .replace("in $q f32", "in $q bf16")
            .replace("in $k f32", "in $k bf16")
            .replace("%0 f32[b h r t i] = load", "%0 bf16[b h r t i] = load")
            .replace("%1 f32[b h s i] = load", "%1 bf16[b h s i] = load")
            .replace("  %2 f32[b h r t s] = dot.i %0 %1\n", "")
            .replace("%3", "%5")
            .replace("  %5 f32[] = const", "  %2 f32[b h r t i] = cast f32 %0\n  %3 f32[b h s i] = cast f32 %1\n  %4 f32[b h r t s] = dot.i %2 %3\n  %5 f32[] = const")
            .replace("  %4 f32[b h r t s] = mul %2 %5\n  %5 f32[b h r t s] = store", "  %6 f32[b h r t s] = mul %4 %5\n  %7 f32[b h r t s] = store")
            .replace("+ s] %4", "+ s] %6");
        check(&bf16);
    }
}

/// Bias, an activation, a residual in place, and a second store in bf16 with rows and columns exchanged.
#[test]
fn epilogues() {
    for m in [3, 50] {
        for (dtype, cast) in [("f32", ""), ("bf16", "cast")] {
            let values = match cast {
                "" => {
                    "  %0 f32[i l] = load $a[L*i + l]\n  %1 f32[j l] = load $b[30*l + j]\n  %2 f32[] = const 0.5\n  %3 f32[] = const 1.5\n"
                }
                _ => {
                    "  %0 bf16[i l] = load $a[L*i + l]\n  %1 bf16[j l] = load $b[30*l + j]\n  %2 f32[i l] = cast f32 %0\n  %3 f32[j l] = cast f32 %1\n"
                }
            };
            let dot = if cast.is_empty() { "%0 %1" } else { "%2 %3" };
            let source = "kernel @epilogue {
  axis i M
  axis j 30
  axis l L
  in $a DTYPE AS
  in $b DTYPE BS
  in $bias f32 30
  in $gain bf16 M
  inout $x f32 CS
  out $y bf16 CS
VALUES  %4 f32[i j] = dot.l DOT
  %5 f32[j] = load $bias[j]
  %6 f32[i j] = add %4 %5
  %7 f32[i j] = sigmoid %6
  %8 f32[i j] = mul %6 %7
  %9 f32[i j] = load $x[30*i + j]
  %10 f32[i j] = add %8 %9
  %11 f32[i j] = store $x[30*i + j] %10
  %12 bf16[i] = load $gain[i]
  %13 f32[i] = cast f32 %12
  %14 f32[i j] = mul %4 %13
  %15 bf16[i j] = cast bf16 %14
  %16 bf16[i j] = store $y[M*j + i] %15
}"
            .replace("VALUES", values)
            .replace("DOT", dot)
            .replace("DTYPE", dtype)
            .replace("AS", &(m * 64).to_string())
            .replace("BS", "1920")
            .replace("CS", &(m * 30).to_string())
            .replace('M', &m.to_string())
            .replace("L*", "64*")
            .replace("axis l L", "axis l 64");
            check(&source);
        }
    }
}

/// A choice, an activation and a rounding before the product; one factor is rounded while it is staged, the other is bf16
/// in memory and copied.
#[test]
fn prologues() {
    for (m, n) in [(5, 24), (70, 40)] {
        check(
            &"kernel @prologue {
  axis i M
  axis j N
  axis l 48
  in $x f32 XS
  in $keep bool M
  in $w bf16 WS
  out $y f32 YS
  %0 f32[i l] = load $x[48*i + l]
  %1 f32[i l] = tanh %0
  %2 bool[i] = load $keep[i]
  %3 f32[] = const 0.5
  %4 f32[i l] = select %2 %1 %3
  %5 bf16[i l] = cast bf16 %4
  %6 f32[i l] = cast f32 %5
  %7 bf16[j l] = load $w[48*j + l]
  %8 f32[j l] = cast f32 %7
  %9 f32[i j] = dot.l %6 %8
  %10 f32[i j] = store $y[N*i + j] %9
}"
            .replace("XS", &(m * 48).to_string())
            .replace("WS", &(n * 48).to_string())
            .replace("YS", &(m * n).to_string())
            .replace('M', &m.to_string())
            .replace('N', &n.to_string()),
        );
    }
}

/// A guard in a load, a shift of the rows, an embedding that is looked up, and a depth of two axes.
#[test]
fn guards_and_offsets() {
    check(
        "kernel @shifted {
  axis i 21
  axis j 19
  axis h 5
  axis l 9
  in $ids i32 21
  in $x f32 405
  in $w f32 855
  out $y f32 399
  %0 i32[i] = index i
  %1 i32[] = const 2
  %2 bool[i] = le %1 %0
  %3 i32[i] = load $ids[i]
  %4 i32[] = const 0
  %5 i32[i] = max %3 %4
  %6 f32[h i l] = load $x[9*h + l + 45*%5] if %2
  %7 f32[h j l] = load $w[45*j + 9*h + l]
  %8 f32[h i j] = dot.l %6 %7
  %9 f32[i j] = sum.h %8
  %10 f32[i j] = store $y[19*i + j] %9
}",
    );
}

/// Rows whose length is no multiple of what is copied at once, but which lie so far apart: contracted along and across.
#[test]
fn ragged_rows_are_copied() {
    for (len, dtype) in [(133usize, "bf16"), (70, "f32"), (57, "bf16"), (131, "f32")] {
        let pitch = len.div_ceil(8) * 8;
        let wide = |v: u32, n: &str| match dtype {
            "bf16" => (format!("  %{} f32[{n}] = cast f32 %{v}\n", v + 2), v + 2),
            _ => (String::new(), v),
        };
        for (x, y, sums, out) in [("40*v + d", "v", "v", "40*i + d"), ("40*i + d", "i", "i", "40*v + d")] {
            let (sx, sy) = (pitch * 50, 40 * if y == "v" { len } else { 50 });
            let ((cx, vx), (cy, vy)) = (wide(0, "i v"), wide(1, &format!("{y} d")));
            let (last, so) = (vx.max(vy) + 1, 40 * if sums == "v" { 50 } else { len });
            let kept = if sums == "v" { "i d" } else { "v d" };
            let source = format!(
                "kernel @ragged {{\n  axis i 50\n  axis v {len}\n  axis d 40\n  in $x {dtype} {sx}\n  in $y {dtype} {sy}\n  out $z f32 {so}\n  %0 {dtype}[i v] = load $x[{pitch}*i + v]\n  %1 {dtype}[{y} d] = load $y[{x}]\n{cx}{cy}  %{last} f32[{kept}] = dot.{sums} %{vx} %{vy}\n  %{} f32[{kept}] = store $z[{out}] %{last}\n}}",
                last + 1
            );
            let (_, c) = check(&source);
            assert!(c.schedule.contains("copied and copied"), "{}", c.schedule);
        }
    }
}

/// One side has no axis of its own: a vector times a matrix, with a bias and an activation.
#[test]
fn vectors() {
    for (x, w, dot) in [("l", "j l", "%0 %1"), ("l", "j l", "%1 %0")] {
        check(
            &"kernel @vector {
  axis j 50
  axis l 48
  in $x f32 48
  in $w f32 2400
  in $bias f32 50
  out $y f32 50
  %0 f32[X] = load $x[l]
  %1 f32[W] = load $w[48*j + l]
  %2 f32[j] = dot.l DOT
  %3 f32[j] = load $bias[j]
  %4 f32[j] = add %2 %3
  %5 f32[j] = tanh %4
  %6 f32[j] = store $y[j] %5
}"
            .replace('X', x)
            .replace('W', w)
            .replace("DOT", dot),
        );
    }
}

/// Rows that each look a matrix up are products of one row, added in the order of all others.
#[test]
fn routed_rows_are_products() {
    let k = kernel(
        "kernel @routed {
  axis i 9
  axis j 20
  axis l 40
  in $expert i32 9
  in $x f32 360
  in $w f32 8000
  out $y f32 180
  %0 i32[i] = load $expert[i]
  %1 i32[] = const 0
  %2 i32[i] = max %0 %1
  %3 f32[i l] = load $x[40*i + l]
  %4 f32[i j l] = load $w[40*j + l + 800*%2]
  %5 f32[i j] = dot.l %3 %4
  %6 f32[i j] = store $y[20*i + j] %5
}",
    );
    assert_eq!(gpu::claim(&k).generator, "contract");
    gpu::check_on(&k, &inputs(&k, 3), 1e-6);
}

/// So many products of the same shape, one after the other in memory.
fn batched(plain: &str, [a, b, c]: [usize; 3], batch: usize) -> Kernel {
    let batched = plain
        .replace("  axis i", &format!("  axis b {batch}\n  axis i"))
        .replace("[i l]", "[b i l]")
        .replace("[j l]", "[b j l]")
        .replace("[i j]", "[b i j]")
        .replace("$a[", &format!("$a[{a}*b + "))
        .replace("$b[", &format!("$b[{b}*b + "))
        .replace("$c[", &format!("$c[{c}*b + "));
    let scaled = |s: String, (name, len): (&str, usize)| {
        let from = s.lines().find(|l| l.contains(&format!("${name} ")) && !l.contains('=')).unwrap().to_string();
        let to = from.replace(&len.to_string(), &(len * batch).to_string());
        s.replace(&from, &to)
    };
    kernel(&[("a", a), ("b", b), ("c", c)].into_iter().fold(batched, scaled))
}

/// The bits of products of the same numbers, and how they are made. Numbers of a row are the same whatever the rows.
fn bits(plain: &str, [m, n, k]: [usize; 3], bf16: bool, batch: usize) -> (Vec<u8>, Claim) {
    let k_ = batched(plain, [m * k, n * k, m * n], batch);
    let (mut a, mut b) = (common::Numbers(1), common::Numbers(2));
    let round = |x: f64| if bf16 { lolm_ir::interp::round_bf16(x) } else { x };
    let one_a: Vec<f64> = (0..m * k).map(|_| round(a.unit())).collect();
    let one_b: Vec<f64> = (0..n * k).map(|_| round(b.unit())).collect();
    let data = vec![one_a.repeat(batch), one_b.repeat(batch), vec![0.0; m * n * batch]];
    let c = claim(&k_);
    let (mut found, _) = gpu::run(&k_, &c, &data);
    (found.swap_remove(2), c)
}

fn rows(m: usize, n: usize, k: usize, t: bool, bf16: bool, batch: usize) -> Vec<Vec<u8>> {
    let (bits, _) = bits(&plain(m, n, k, (false, t), bf16), [m, n, k], bf16, batch);
    bits.chunks(n * 4).map(|r| r.to_vec()).collect()
}

/// The largest tile, which is taken where all processors have one, goes through shared memory in rounds; whichever way the
/// result lies, it has the bits of small tiles.
#[test]
fn the_widest_tile_has_the_bits_of_small_ones() {
    let cases = [([128, 256, 96], false), ([120, 248, 64], true), ([128, 256, 64], true), ([120, 256, 40], false)];
    for (t, ([m, n, k], along_rows)) in LAYOUTS.into_iter().zip(cases) {
        let source = match along_rows {
            false => plain(m, n, k, t, true),
            true => plain(m, n, k, t, true).replace(&format!("$c[{n}*i + j]"), &format!("$c[i + {m}*j]")),
        };
        let (one, small) = bits(&source, [m, n, k], true, 1);
        let (all, wide) = bits(&source, [m, n, k], true, 132);
        assert!(!small.schedule.contains("128x256") && wide.schedule.contains("128x256"), "{}", wide.schedule);
        assert!(all.chunks(one.len()).all(|product| product == one), "{t:?} {m}x{n}x{k} {}", wide.schedule);
    }
}

#[test]
fn bits_do_not_depend_on_rows_or_batch() {
    for bf16 in [false, true] {
        for (n, k, t) in [(24, 1000, true), (40, 544, false), (24, 96, true)] {
            let most = rows(70, n, k, t, bf16, 1);
            for (m, batch) in [(1, 1), (3, 1), (16, 1), (40, 1), (3, 2), (40, 3)] {
                let some = rows(m, n, k, t, bf16, batch);
                for (i, row) in some.iter().enumerate() {
                    assert_eq!(*row, most[i % m], "row {i} of {batch}x{m}, {n} columns, depth {k}, bf16 {bf16}");
                }
            }
        }
    }
}

/// Fragments are loaded without conflicts of banks, and global memory is read and written in whole sectors.
#[test]
fn memory_is_used_well() {
    for t in LAYOUTS {
        for (m, n, k) in [(128, 128, 128), (16, 64, 1024)] {
            let k = kernel(&plain(m, n, k, t, true));
            let c = claim(&k);
            let text = gpu::text(&c);
            let (_, counts) = gpu::run(&k, &c, &inputs(&k, 3));
            let lines: Vec<&str> = text.lines().collect();
            let fragments = counts.lines.iter().filter(|(l, _)| lines[**l as usize - 1].contains("ldmatrix"));
            let (n, conflicts) = fragments.fold((0, 0), |(n, c), (_, x)| (n + x.requests, c + x.bank_conflicts));
            assert!(n > 0 && conflicts == 0, "{conflicts} conflicts in {n} loads of fragments\n{text}");
            let g = counts.global;
            assert!(g.sectors * 10 <= g.ideal_sectors * 11, "{} sectors for {}\n{text}", g.sectors, g.ideal_sectors);
        }
    }
}

/// Any shape, layout and batch.
#[test]
fn random_shapes() {
    let mut n = common::Numbers(11);
    for _ in 0..24 {
        let mut below = |x: u64| n.below(x) as usize;
        let (m, cols, k) = (1 + below(80), 1 + below(80), 32 + below(200));
        let (ta, tb, bf16) = (below(2) == 0, below(2) == 0, below(2) == 0);
        check(&plain(m, cols, k, (ta, tb), bf16));
    }
}

/// NVIDIA's assembler keeps all values in registers, and makes the instructions that are meant.
#[test]
fn products_assemble_in_registers() {
    let Some(ptxas) = gpu::Assembly::of(24, "products") else { return };
    for kind in ["f32", "bf16", "rounded"] {
        for t in LAYOUTS {
            for (m, n, k) in [(4096, 4096, 4096), (8, 4096, 1024)] {
                let source = match kind {
                    "rounded" => rounded(m, n, k, t),
                    kind => plain(m, n, k, t, kind == "bf16"),
                };
                let c = claim(&kernel(&source));
                assert_eq!(c.code.text.contains("mma.sync"), kind != "f32");
                let used = ptxas.usage(&c, "sm_80");
                eprintln!("{}: {used:?}", c.schedule);
            }
        }
    }
}
