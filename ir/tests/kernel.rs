//! The kernel language: its text, its rules, and what its operations mean.
use lolm_ir::DType;
use lolm_ir::kernel::{KAxis, KOp, Kernel, Mode, View, interp, text};

const SCAN: &str = "kernel @scan {
  axis t 4 in 0..%0
  axis e 3
  in $n i32 1
  in $x f32 12
  inout $h f32 3
  out $y bf16 12
  out $last f32 3
  units e 2
  %0 i32[] = load $n[0]
  %1 f32[t e] = load $x[3*t + e]
  %2 f32[] = const 0.5
  %3 f32[e] = load $h[e]
  %4 f32[t e] = scan.t %2 %1 %3
  %5 f32[t e] = prev.t %4
  %6 f32[t e] = sub %4 %5
  %7 bf16[t e] = cast bf16 %6
  %8 bf16[t e] = store $y[3*t + e] %7
  %9 f32[e] = last.t %4
  %10 f32[e] = store $h[e] %9
  %11 f32[e] = dot.t %4 %1
  %12 f32[e] = store $last[e] %11
}
";

fn kernel(text: &str) -> Kernel {
    text::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn text_reads_back_as_the_same_kernel() {
    let k = kernel(SCAN);
    k.verify().unwrap();
    assert_eq!(k.to_string(), SCAN);
    assert_eq!(kernel(&k.to_string()), k);
}

#[test]
fn constants_keep_their_bits() {
    let all = [0, 1, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7fc0_1234, 0x3f80_0001, 0x0070_0000];
    for bits in all {
        let mut k = Kernel::default();
        k.push(KOp::Const(lolm_ir::Scalar::F32(bits)), &[], DType::F32);
        assert_eq!(kernel(&k.to_string()), k, "{bits:#x}");
    }
}

#[test]
fn names_are_no_part_of_the_canonical_text() {
    let k = kernel(SCAN);
    let mut other = k.clone();
    other.name = "other".into();
    other.axes[0].name = "time".into();
    other.operands[1].name = "decoder.0.x".into();
    assert_eq!(k.canonical(), other.canonical());
    other.operands[1].len += 1;
    assert_ne!(k.canonical(), other.canonical());
}

#[test]
fn steps_outside_the_range_keep_the_state() {
    let k = kernel(SCAN);
    let x: Vec<f64> = (0..12).map(|i| i as f64).collect();
    let mut operands = [vec![2.0], x, vec![8.0, 4.0, 2.0], vec![0.0; 12], vec![0.0; 3]];
    interp::run(&k, &mut operands).unwrap();
    // h: 8 -> 4 + 0 -> 2 + 3; 4 -> 2 + 1 -> 1.5 + 4; 2 -> 1 + 2 -> 1.5 + 5
    assert_eq!(operands[2], [5.0, 5.5, 6.5]);
    assert_eq!(operands[3], [-4.0, -1.0, 1.0, 1.0, 2.5, 3.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(operands[4], [4.0 * 0.0 + 5.0 * 3.0, 3.0 * 1.0 + 5.5 * 4.0, 3.0 * 2.0 + 6.5 * 5.0]);
}

#[test]
fn a_guarded_access_does_not_touch_memory() {
    let k = kernel(
        "kernel @gather {
  axis i 4
  axis j 2
  in $at i32 4
  in $table f32 6
  inout $sum f32 2
  out $y f32 8
  %0 i32[i] = load $at[i]
  %1 i32[] = const 3
  %2 bool[i] = lt %0 %1
  %3 f32[i j] = load $table[j + 2*%0] if %2
  %4 f32[i j] = store $y[2*i + j] %3
  %5 f32[i j] = accumulate $sum[j] %3 if %2
}",
    );
    k.verify().unwrap();
    let table: Vec<f64> = (0..6).map(|i| i as f64).collect();
    let mut operands = [vec![2.0, 9.0, 0.0, 2.0], table, vec![10.0, 20.0], vec![-1.0; 8]];
    interp::run(&k, &mut operands).unwrap();
    assert_eq!(operands[3], [4.0, 5.0, 0.0, 0.0, 0.0, 1.0, 4.0, 5.0]);
    assert_eq!(operands[2], [18.0, 31.0]);
}

/// Each row spoils the kernel in one way; the message must name the rule.
#[test]
fn broken_kernels_are_refused() {
    let rows = [
        ("  units e 2", "  in $x f32 3\n  units e 2", "two of operand `x`"),
        ("axis e 3", "axis e 0", "is empty"),
        ("in $n i32 1", "in $n f32 1", "is i32, expected f32"),
        ("%10 f32[e] = store $h[e] %9", "%10 f32[e] = store $h[e + 1] %9", "reaches 1..=3 of the 3 elements"),
        ("store $y[3*t + e] %7", "store $y[2*t + e] %7", "more than once along `t`"),
        ("%12 f32[e] = store $last[e] %11", "%12 f32[e] = store $x[e] %11", "operand $x is `in`"),
        ("%7 bf16[t e] = cast bf16 %6", "%7 bf16[t e] = cast f32 %6", "is bf16, expected f32"),
        ("prev.t %4", "prev.t %1", "not a scan along the axis"),
        ("units e 2", "units t 2", "the scan %4 runs along one"),
        ("units e 2", "units e 2, e 1", "stands twice"),
        ("units e 2", "units e 0", "is empty"),
        ("load $h[e]", "load $h[e + %0]", "read elsewhere than it is written"),
        ("axis t 4 in 0..%0", "axis t 4 in 0..%2", "bound %2 is f32"),
        ("scan.t %2 %1 %3", "scan.t %2 %1 %1", "its initial state varies"),
        ("store $last[e] %11", "accumulate $last[e] %11", "operand $last is `out`"),
        ("sub %4 %5", "and %4 %5", "expected [Bool, Bool]"),
    ];
    for (from, to, fault) in rows {
        let broken = SCAN.replacen(from, to, 1);
        assert_ne!(broken, SCAN);
        let message = text::parse(&broken).map_err(|e| e.to_string()).and_then(|k| match k.verify() {
            Ok(()) => Ok(()),
            Err(e) => Err(e.to_string()),
        });
        let message = message.expect_err(&format!("{to} passes"));
        assert!(message.contains(fault), "{to}: {message}");
    }
}

#[test]
fn references_to_nothing_are_refused() {
    let mut k = Kernel::default();
    k.add_axis("i", 4);
    let o = k.add_operand("y", DType::I32, 4, Mode::Out);
    let x = k.push(KOp::Index(KAxis(0)), &[], DType::I32);
    assert!(k.verify().unwrap_err().to_string().contains("nothing is stored"));
    let at_i = View { terms: vec![(KAxis(0), 1)], ..View::default() };
    k.push(KOp::Store(o, at_i), &[x], DType::I32);
    k.verify().unwrap();
    let mut later = k.clone();
    later.values.swap(0, 1);
    assert!(later.verify().unwrap_err().to_string().contains("does not stand before it"));
    let mut axis = k.clone();
    axis.values[0].op = KOp::Index(KAxis(7));
    assert!(axis.verify().unwrap_err().to_string().contains("axis 7 does not exist"));
}

#[test]
fn faults_of_the_text_are_named() {
    for (text, expected) in [
        ("kernel @x {\n  axis i four", "line 2: expected a number, found `four`"),
        ("  %0 f32[] = konst 1", "expected an operation, found `konst`"),
        ("  %1 f32[] = const 1.0", "expected `%0`, found `%1`"),
        ("  %0 f32[] = neg %0", "expected a value of an earlier line"),
        ("  %0 f32[] = load $x[0]", "expected an operand, found `x`"),
        ("  axis i 4\n  %0 i32[] = index i", "expected the axes that follow"),
        ("  axis i 4 5", "expected the end of the line"),
    ] {
        let message = text::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
