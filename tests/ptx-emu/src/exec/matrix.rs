//! ldmatrix and mma.sync.
//!
//! The products of an mma are exact. The order in which the hardware sums them, and how far it keeps their low bits, is not
//! documented; here they are summed in f64, which is exact unless the terms differ by more than 2^30, and rounded once to the
//! type of the accumulator. A test therefore compares with a bound that covers any order.
use super::Cx;
use super::half::{bf16_to_f32, f16_to_f32, from_f64};
use super::load_store::{addresses, all_set, count_shared, offsets, shared_undefined};
use super::race::Touch;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{Addr, Mma, MmaKind, Slot, Space};
use crate::kernel::SHARED_BASE;
use crate::lanes::{FULL, Row};
use crate::ty::{Round, Ty};
use crate::warp::Warp;

/// All 32 lanes have to execute these together.
fn together(mask: u32) -> Done {
    match mask {
        FULL => Ok(()),
        _ => {
            let what = format!("only lanes {mask:#010x} execute what the whole warp has to");
            Err(Slip::new(FaultKind::AbsentLane, Some((!mask).trailing_zeros()), what, "move it where all lanes pass"))
        }
    }
}

#[inline(never)]
pub(super) fn load(cx: &mut Cx<'_, '_>, w: &mut Warp, num: u8, trans: bool, a: Addr, d: &[Slot; 4], mask: u32) -> Done {
    together(mask)?;
    // Lanes 8i to 8i+7 give the rows of matrix i; the addresses of the others are not looked at.
    let rows = if num == 4 { FULL } else { (1 << (8 * num)) - 1 };
    let addr = addresses(w, a, rows)?;
    let at = offsets(Space::Shared, &addr, rows, 16, SHARED_BASE as u64, cx.shared.bytes.len())?;
    count_shared(cx, w.pc, &addr, rows, 16);
    if all_set(&cx.shared.defined, &at, 16) & rows != rows {
        return Err(shared_undefined(cx.shared, &addr, &at, 16, rows));
    }
    cx.race_shared(w, &Touch::bare(w.pc, &at, 16, rows, false))?;
    for (m, &slot) in d[..num as usize].iter().enumerate() {
        let mut row: Row = [0; 32];
        let element = |r: usize, c: usize| {
            let o = at[8 * m + r] + 2 * c;
            u16::from_le_bytes([cx.shared.bytes[o], cx.shared.bytes[o + 1]]) as u32
        };
        for (lane, x) in row.iter_mut().enumerate() {
            let (g, t) = (lane / 4, 2 * (lane % 4));
            *x = match trans {
                false => element(g, t) | element(g, t + 1) << 16,
                true => element(t, g) | element(t + 1, g) << 16,
            };
        }
        w.put(slot, &row, FULL);
    }
    Ok(())
}

/// Where a register of a fragment lies: `g` and `t` are the lane's group of four and its place in it.
struct Shape {
    k: usize,
    /// Two elements a register, or one.
    packed: bool,
    a: usize,
    b: usize,
}

fn shape(kind: MmaKind) -> Shape {
    match kind {
        MmaKind::K16 => Shape { k: 16, packed: true, a: 4, b: 2 },
        MmaKind::K8 => Shape { k: 8, packed: true, a: 2, b: 1 },
        MmaKind::Tf32K8 => Shape { k: 8, packed: false, a: 4, b: 2 },
        MmaKind::Tf32K4 => Shape { k: 4, packed: false, a: 2, b: 1 },
    }
}

fn value(ty: Ty, bits: u32) -> f64 {
    match ty {
        Ty::F16 => f16_to_f32(bits & 0xffff) as f64,
        Ty::BF16 => bf16_to_f32(bits & 0xffff) as f64,
        // tf32 has ten bits of mantissa; the hardware does not look at the others.
        _ => f32::from_bits(bits & !0x1fff) as f64,
    }
}

#[inline(never)]
pub(super) fn mma(w: &mut Warp, m: &Mma, mask: u32) -> Done {
    together(mask)?;
    let s = shape(m.kind);
    let mut a = [[0f64; 16]; 16]; // [m=16, k]
    let mut b = [[0f64; 8]; 16]; // [k, n=8]
    let step = if s.packed { 2 } else { 1 };
    for r in 0..s.a {
        let row = w.row(m.a[r], FULL)?;
        for (lane, &x) in row.iter().enumerate() {
            let (i, k) = (lane / 4 + 8 * (r % 2), step * (lane % 4) + 4 * step * (r / 2));
            a[i][k] = value(m.ty, x);
            if s.packed {
                a[i][k + 1] = value(m.ty, x >> 16);
            }
        }
    }
    for r in 0..s.b {
        let row = w.row(m.b[r], FULL)?;
        for (lane, &x) in row.iter().enumerate() {
            let (k, n) = (step * (lane % 4) + 4 * step * r, lane / 4);
            b[k][n] = value(m.ty, x);
            if s.packed {
                b[k + 1][n] = value(m.ty, x >> 16);
            }
        }
    }
    let mut c = accumulator(w, m)?; // [m=16, n=8]
    for (sum, a) in c.iter_mut().zip(&a) {
        for (x, b) in a[..s.k].iter().zip(&b) {
            for n in 0..8 {
                sum[n] += x * b[n];
            }
        }
    }
    put_accumulator(w, m, &c);
    Ok(())
}

fn accumulator(w: &Warp, m: &Mma) -> Done<[[f64; 8]; 16]> {
    let mut c = [[0f64; 8]; 16];
    for r in 0..4 {
        let row = w.row(m.c[if m.half { r / 2 } else { r }], FULL)?;
        for (lane, &x) in row.iter().enumerate() {
            let (i, n) = (lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2);
            c[i][n] = match m.half {
                true => f16_to_f32(x >> (16 * (r % 2)) & 0xffff) as f64,
                false => f32::from_bits(x) as f64,
            };
        }
    }
    Ok(c)
}

fn put_accumulator(w: &mut Warp, m: &Mma, c: &[[f64; 8]; 16]) {
    let at = |lane: usize, r: usize| c[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2];
    if m.half {
        for r in 0..2 {
            let half = |x: f64| from_f64(Ty::F16, x, Round::Nearest);
            let row = std::array::from_fn(|lane| half(at(lane, 2 * r)) | half(at(lane, 2 * r + 1)) << 16);
            w.put(m.d[r], &row, FULL);
        }
        return;
    }
    for r in 0..4 {
        let row = std::array::from_fn(|lane| (at(lane, r) as f32).to_bits());
        w.put(m.d[r], &row, FULL);
    }
}
