//! Every kernel against the definition, bit for bit: shapes around the tile and block edges, strides, alpha, accumulation,
//! operands in bf16.
use super::*;

/// Numbers that make rounding visible.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as f32 / u32::MAX as f32 * 4.0 - 2.0
    };
    (0..n).map(|_| next()).collect()
}

/// The module's definition, written out.
fn define(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32], alpha: f32, accumulate: bool) {
    for i in 0..m {
        for j in 0..n {
            let to = &mut c[i * n + j];
            if !accumulate && k == 0 {
                *to = 0.0;
            }
            for from in (0..k).step_by(BLOCK) {
                let sum = (from..k.min(from + BLOCK)).fold(0.0f32, |s, t| a[i * k + t].mul_add(b[t * n + j], s));
                *to = if accumulate || from > 0 { sum.mul_add(alpha, *to) } else { alpha * sum };
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    Spread,
}

/// Lays a row-major matrix out otherwise, in a vector of exactly the needed length; returns strides.
fn lay<E: Copy>(x: &[E], rows: usize, cols: usize, how: Layout, gap: E) -> (Vec<E>, isize, isize) {
    let (row, col) = match how {
        Layout::Rows => (cols + 3, 1),
        Layout::Columns => (1, rows + 5),
        Layout::Spread => (cols * 2 + 1, 2),
    };
    let len = if x.is_empty() { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 };
    let mut out = vec![gap; len];
    for r in 0..rows {
        for c in 0..cols {
            out[r * row + c * col] = x[r * cols + c];
        }
    }
    (out, row as isize, col as isize)
}

/// An operand with the memory that it is a view of.
enum Stored {
    F32(Vec<f32>, isize, isize),
    Bf16(Vec<Bf16>, isize, isize),
}

impl Stored {
    fn new(x: &[f32], rows: usize, cols: usize, how: Layout, half: bool) -> Stored {
        if half {
            let x: Vec<Bf16> = x.iter().map(|x| Bf16((x.to_bits() >> 16) as u16)).collect();
            let (x, row, col) = lay(&x, rows, cols, how, Bf16(0x7fc0));
            return Stored::Bf16(x, row, col);
        }
        let (x, row, col) = lay(x, rows, cols, how, f32::NAN);
        Stored::F32(x, row, col)
    }

    fn operand(&mut self) -> Operand {
        match self {
            Stored::F32(x, row, col) => View { ptr: x.as_mut_ptr(), row: *row, col: *col }.into(),
            Stored::Bf16(x, row, col) => View { ptr: x.as_mut_ptr(), row: *row, col: *col }.into(),
        }
    }
}

/// Numbers that a bf16 holds, if they are to be stored as one.
fn stored_noise(n: usize, seed: u32, half: bool) -> Vec<f32> {
    let keep = if half { 0xffff_0000 } else { !0 };
    noise(n, seed).into_iter().map(|x| f32::from_bits(x.to_bits() & keep)).collect()
}

#[derive(Clone, Copy, Debug)]
struct Case {
    size: (usize, usize, usize),
    how: [Layout; 3],
    /// Which of A and B are stored as bf16.
    half: [bool; 2],
    alpha: f32,
    accumulate: bool,
}

fn check(isa: Isa, case: Case) {
    let Case { size: (m, n, k), how, half, alpha, accumulate } = case;
    let (a, b, c) = (stored_noise(m * k, 1, half[0]), stored_noise(k * n, 2, half[1]), noise(m * n, 3));
    let mut want = c.clone();
    define(m, n, k, &a, &b, &mut want, alpha, accumulate);
    let (mut a, mut b) = (Stored::new(&a, m, k, how[0], half[0]), Stored::new(&b, k, n, how[1], half[1]));
    let (mut c, c_row, c_col) = lay(&c, m, n, how[2], f32::NAN);
    let mut work = vec![f32::NAN; WORKSPACE + 16];
    let view = View { ptr: c.as_mut_ptr(), row: c_row, col: c_col };
    let p = Product { m, n, k, a: a.operand(), b: b.operand(), c: view, alpha, accumulate };
    let skip = work.as_ptr().align_offset(64);
    // SAFETY: vectors of the sizes that `lay` gave; the workspace is aligned and long enough.
    unsafe { multiply(isa, &p, work[skip..].as_mut_ptr()) };
    for i in 0..m {
        for j in 0..n {
            let got = c[i * c_row as usize + j * c_col as usize];
            let want = want[i * n + j];
            assert_eq!(got.to_bits(), want.to_bits(), "{isa:?} {case:?} ({i}, {j}): {got} is not {want}");
        }
    }
    let written = c.iter().filter(|x| !x.is_nan()).count();
    assert_eq!(written, m * n, "{isa:?} {case:?} wrote outside C");
}

const HALVES: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];
const LAYOUTS: [Layout; 3] = [Layout::Rows, Layout::Columns, Layout::Spread];

#[test]
fn every_kernel_keeps_the_order_of_summation() {
    let shapes = [
        (1, 1, 1),
        (1, 64, 256),
        (1, 65, 257),
        (1, 200, 768),
        (2, 16, 3),
        (3, 17, 31),
        (5, 130, 300),
        (6, 64, 64),
        (7, 33, 513),
        (12, 48, 40),
        (13, 100, 100),
        (16, 96, 260),
        (64, 64, 64),
        (65, 63, 20),
        (200, 70, 259),
        (30, 1, 300),
        (1, 600, 5),
        (3, 3, 0),
        (4, 0, 4),
        (0, 4, 4),
        (195, 530, 20),
    ];
    for isa in Isa::available() {
        for size in shapes {
            for half in HALVES {
                let how = [Layout::Rows, Layout::Rows, Layout::Rows];
                check(isa, Case { size, how, half, alpha: 1.0, accumulate: false });
                let how = [Layout::Rows, Layout::Columns, Layout::Rows];
                check(isa, Case { size, how, half, alpha: 0.37, accumulate: true });
            }
        }
    }
}

#[test]
fn every_combination_of_layouts() {
    for isa in Isa::available() {
        for a in LAYOUTS {
            for b in LAYOUTS {
                for c in LAYOUTS {
                    for size in [(1, 80, 270), (20, 70, 270), (9, 1, 40), (13, 16, 17)] {
                        for half in HALVES {
                            let how = [a, b, c];
                            check(isa, Case { size, how, half, alpha: 0.5, accumulate: size.2 % 2 == 0 });
                            check(isa, Case { size, how, half, alpha: 1.25, accumulate: true });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn further_zero_terms_change_nothing() {
    let (n, k) = (70, 300);
    let row = |len: usize| {
        let mut a = noise(k, 7);
        a.resize(len, 0.0);
        let b = noise(700 * n, 8);
        let mut c = vec![0.0; n];
        define(1, n, len, &a, &b, &mut c, 1.0, false);
        c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(row(300), row(700));
}

#[test]
fn special_values_follow_ieee() {
    for isa in Isa::available() {
        for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, 1e-42, 3e38] {
            let (mut a, mut b, mut c) = ([special, 2.0], [2.0, 1.0], [0.0]);
            let p = Product {
                m: 1,
                n: 1,
                k: 2,
                a: View { ptr: a.as_mut_ptr(), row: 2, col: 1 }.into(),
                b: View { ptr: b.as_mut_ptr(), row: 1, col: 1 }.into(),
                c: View { ptr: c.as_mut_ptr(), row: 1, col: 1 },
                alpha: 1.0,
                accumulate: false,
            };
            let mut work = vec![0.0f32; WORKSPACE + 16];
            let skip = work.as_ptr().align_offset(64);
            // SAFETY: two elements, two elements, one element; the workspace is aligned and long enough.
            unsafe { multiply(isa, &p, work[skip..].as_mut_ptr()) };
            let want = 2.0f32.mul_add(1.0, special.mul_add(2.0, 0.0));
            assert!(c[0] == want || (c[0].is_nan() && want.is_nan()), "{isa:?} {special}: {} is not {want}", c[0]);
        }
    }
}
