//! ldmatrix and mma.sync.
//!
//! The products of an mma are exact. The order in which the hardware sums them, and how far it keeps their low bits, is not
//! documented; here they are summed in f64, which is exact unless the terms differ by more than 2^30, and rounded once to the
//! type of the accumulator. A test therefore compares with a bound that covers any order.
use super::Cx;
use super::half::{bf16_to_f32, f16_to_f32, from_f64};
use super::load_store::count_shared;
use super::race::Touch;
use super::spots::shared;
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{Addr, Mma, MmaKind, Slot};
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
    let spots = shared(w, a, rows, 16, cx.shared.bytes.len())?;
    count_shared(cx, w.pc, &spots);
    cx.shared.check_read(&spots)?;
    cx.race_shared(w, &Touch::bare(w.pc, &spots, false))?;
    for (m, &slot) in d[..num as usize].iter().enumerate() {
        let mut tile = [[0u16; 8]; 8];
        for (r, row) in tile.iter_mut().enumerate() {
            let o = spots.place(8 * m + r);
            for (x, b) in row.iter_mut().zip(cx.shared.bytes[o..o + 16].chunks_exact(2)) {
                *x = u16::from_le_bytes([b[0], b[1]]);
            }
        }
        let pair = |low: u16, high: u16| low as u32 | (high as u32) << 16;
        let row: Row = match trans {
            false => std::array::from_fn(|l| pair(tile[l / 4][2 * (l % 4)], tile[l / 4][2 * (l % 4) + 1])),
            true => std::array::from_fn(|l| pair(tile[2 * (l % 4)][l / 4], tile[2 * (l % 4) + 1][l / 4])),
        };
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
