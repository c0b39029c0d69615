//! Real kernels run to the end and give what plain Rust gives, whatever the order of their warps.
mod common;
use common::Arg::{F32, U32, U64};
use common::{bf16, from_bf16, gemm, get_f32, kernels, numbers, put_f32, put_u16, run, run_with};
use lolm_ptx_emu::{Class, Memory, Options};

#[test]
fn saxpy_with_a_tail() {
    let (x, y) = (numbers(1000, 1), numbers(1000, 2));
    let mut m = Memory::new();
    let (dx, dy) = (put_f32(&mut m, &x), put_f32(&mut m, &y));
    let c = run(&mut m, &kernels::saxpy(), [8, 1, 1], [128, 1, 1], &[U64(dy), U64(dx), F32(0.5), U32(1000)]).unwrap();
    let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 0.5f32.mul_add(*x, *y)).collect();
    assert_eq!(get_f32(&m, dy, 1000), want);
    // 3 accesses of 4000 bytes each: all of it coalesced.
    assert_eq!(c.global.bytes, 12_000);
    assert_eq!(c.global.sectors, 3 * 125);
    assert_eq!(c.global.sectors, c.global.ideal_sectors);
    assert_eq!(c.class(Class::Float).lanes, 1000);
}

#[test]
fn block_sum_with_shuffles_and_shared_memory() {
    let x = numbers(1500, 3);
    for seed in 0..8 {
        let mut m = Memory::new();
        let (dx, out) = (put_f32(&mut m, &x), m.alloc(24));
        let o = Options { seed, ..Options::default() };
        let args = [U64(out), U64(dx), U32(1500)];
        run_with(&mut m, &kernels::block_sum(), [6, 1, 1], [256, 1, 1], &args, 0, &o).unwrap_or_else(|e| panic!("{e}"));
        for (got, part) in get_f32(&m, out, 6).iter().zip(x.chunks(256)) {
            let want: f64 = part.iter().map(|&v| v as f64).sum();
            assert!((*got as f64 - want).abs() < 1e-4, "{got} {want}");
        }
    }
}

#[test]
fn transpose_through_padded_shared_memory_has_no_bank_conflicts() {
    let x = numbers(64 * 64, 4);
    let mut m = Memory::new();
    let (dx, dy) = (put_f32(&mut m, &x), m.alloc(4 * 64 * 64));
    let args = [U64(dy), U64(dx), U32(64)];
    let c = run(&mut m, &kernels::transpose(), [2, 2, 1], [32, 8, 1], &args).unwrap_or_else(|e| panic!("{e}"));
    let y = get_f32(&m, dy, 64 * 64);
    assert!((0..64 * 64).all(|i| y[i] == x[i % 64 * 64 + i / 64]));
    assert_eq!((c.shared.bank_conflicts, c.shared.requests), (0, 256));
    // Without the padding each column lies in one bank.
    let bare = kernels::transpose().replace("132", "128");
    let bare =
        (1..4).fold(bare, |t, k| t.replace(&format!("[%r7+{}]", k * 8 * 132), &format!("[%r7+{}]", k * 8 * 128)));
    let c = run(&mut m, &bare, [2, 2, 1], [32, 8, 1], &args).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(c.shared.bank_conflicts, 128 * 31);
    assert_eq!(get_f32(&m, dy, 64 * 64), y);
}

#[test]
fn tiled_matmul() {
    let n = 48;
    let (a, b) = (numbers(n * n, 5), numbers(n * n, 6));
    for seed in 0..4 {
        let mut m = Memory::new();
        let (da, db, dc) = (put_f32(&mut m, &a), put_f32(&mut m, &b), m.alloc(4 * n * n));
        let args = [U64(dc), U64(da), U64(db), U32(n as u32)];
        let o = Options { seed, ..Options::default() };
        run_with(&mut m, &kernels::matmul(), [3, 3, 1], [16, 16, 1], &args, 0, &o).unwrap_or_else(|e| panic!("{e}"));
        let c = get_f32(&m, dc, n * n);
        for i in 0..n {
            for j in 0..n {
                let want = (0..n).fold(0f32, |s, k| a[i * n + k].mul_add(b[k * n + j], s));
                assert_eq!(c[i * n + j], want);
            }
        }
    }
}

/// c = a·b of bf16 values in f64, and the sum of |a·b|, which bounds what the order of summation may change.
fn product(a: &[u16], b: &[u16], (m, n, k): (usize, usize, usize)) -> Vec<(f64, f64)> {
    let at = |v: &[u16], i: usize| from_bf16(v[i]) as f64;
    let term = |i: usize, j: usize, l: usize| at(a, i * k + l) * at(b, l * n + j);
    let cell = |i: usize, j: usize| {
        ((0..k).map(|l| term(i, j, l)).sum::<f64>(), (0..k).map(|l| term(i, j, l).abs()).sum::<f64>())
    };
    (0..m * n).map(|x| cell(x / n, x % n)).collect()
}

#[test]
fn gemm_of_bf16_with_cp_async_ldmatrix_and_mma() {
    let (m, n, k) = (64, 96, 80);
    let a: Vec<u16> = numbers(m * k, 7).iter().map(|&x| bf16(x)).collect();
    let b: Vec<u16> = numbers(k * n, 8).iter().map(|&x| bf16(x)).collect();
    let want = product(&a, &b, (m, n, k));
    for seed in 0..6 {
        let mut d = Memory::new();
        let (da, db, dc) = (put_u16(&mut d, &a), put_u16(&mut d, &b), d.alloc(4 * m * n));
        let args = [U64(dc), U64(da), U64(db), U32(n as u32), U32(k as u32)];
        let o = Options { seed, ..Options::default() };
        let grid = [n as u32 / 32, m as u32 / 32, 1];
        let c = run_with(&mut d, &gemm::gemm(), grid, [64, 1, 1], &args, 0, &o).unwrap_or_else(|e| panic!("{e}"));
        for (got, (want, size)) in get_f32(&d, dc, m * n).iter().zip(&want) {
            assert!((*got as f64 - want).abs() <= size * 1e-6, "{got} {want}");
        }
        let mma = c.class(Class::Matrix).warps;
        assert_eq!(mma as usize, m * n * k / (16 * 8 * 16));
        // The rows of b are swizzled; those of a, 32 bytes each, meet twice in each bank.
        assert_eq!(c.lines.values().filter(|l| l.bank_conflicts > 0).count(), 1);
    }
}

#[test]
fn the_last_block_adds_the_parts_of_all() {
    let x = numbers(3000, 9);
    let want: f64 = x.iter().map(|&v| v as f64).sum();
    let mut results = vec![];
    for seed in 0..12 {
        let mut m = Memory::new();
        let (dx, out, part, count) = (put_f32(&mut m, &x), m.alloc(4), m.alloc(4 * 24), m.alloc_zeroed(4));
        let args = [U64(out), U64(part), U64(count), U64(dx), U32(3000)];
        let o = Options { seed, resident: 1 + seed as usize % 4, ..Options::default() };
        for _ in 0..2 {
            let done = run_with(&mut m, &gemm::last_block(), [24, 1, 1], [128, 1, 1], &args, 0, &o);
            done.unwrap_or_else(|e| panic!("{e}"));
        }
        results.push(get_f32(&m, out, 1)[0]);
    }
    assert!((results[0] as f64 - want).abs() < 1e-3);
    assert!(results.iter().all(|r| *r == results[0]), "the order of blocks changed the sum");
}
