//! Rows of 32 lanes, and functions over them that the compiler turns into vector instructions.
// Counted loops over several arrays are what it recognises best.
#![allow(clippy::needless_range_loop)]

pub const LANES: usize = 32;
pub const FULL: u32 = !0;

pub type Row = [u32; LANES];
pub type Wide = [u64; LANES];

#[inline(always)]
pub fn map1<A: Copy, R: Copy + Default>(a: &[A; LANES], f: impl Fn(A) -> R) -> [R; LANES] {
    let mut d = [R::default(); LANES];
    for i in 0..LANES {
        d[i] = f(a[i]);
    }
    d
}

#[inline(always)]
pub fn map2<A: Copy, B: Copy, R: Copy + Default>(a: &[A; LANES], b: &[B; LANES], f: impl Fn(A, B) -> R) -> [R; LANES] {
    let mut d = [R::default(); LANES];
    for i in 0..LANES {
        d[i] = f(a[i], b[i]);
    }
    d
}

#[inline(always)]
pub fn map3<A: Copy, B: Copy, C: Copy, R: Copy + Default>(
    a: &[A; LANES],
    b: &[B; LANES],
    c: &[C; LANES],
    f: impl Fn(A, B, C) -> R,
) -> [R; LANES] {
    let mut d = [R::default(); LANES];
    for i in 0..LANES {
        d[i] = f(a[i], b[i], c[i]);
    }
    d
}

/// The bits of the lanes for which this holds.
#[inline(always)]
pub fn mask2<A: Copy>(a: &[A; LANES], b: &[A; LANES], f: impl Fn(A, A) -> bool) -> u32 {
    let mut m = 0;
    for i in 0..LANES {
        m |= (f(a[i], b[i]) as u32) << i;
    }
    m
}

#[inline(always)]
pub fn mask1<A: Copy>(a: &[A; LANES], f: impl Fn(A) -> bool) -> u32 {
    let mut m = 0;
    for i in 0..LANES {
        m |= (f(a[i]) as u32) << i;
    }
    m
}

/// Writes the lanes of a mask.
#[inline(always)]
pub fn blend<A: Copy>(row: &mut [A; LANES], v: &[A; LANES], mask: u32) {
    if mask == FULL {
        *row = *v;
        return;
    }
    for i in 0..LANES {
        if mask >> i & 1 != 0 {
            row[i] = v[i];
        }
    }
}

/// The lanes of a mask, from the lowest.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}
