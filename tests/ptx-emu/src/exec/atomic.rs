//! atom and red: one lane after the other, in an order that the seed turns.
use super::load_store::{addresses, all_set, count_global, count_shared, global, offsets, outside, shared_undefined};
use super::race::Touch;
use super::{Cx, float};
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{Atom, AtomFn, Space};
use crate::kernel::{SHARED_BASE, SHARED_WINDOW, WINDOW};
use crate::lanes::{Wide, lanes};
use crate::ty::Ty;
use crate::warp::Warp;

#[inline(never)]
pub(super) fn atom(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Atom, mask: u32) -> Done {
    let size = a.ty.bytes() as u64;
    let addr = addresses(w, a.addr, mask)?;
    let (b, c) = operands(w, a, mask)?;
    let in_shared = |x: u64| x.wrapping_sub(SHARED_WINDOW) < WINDOW;
    let shared = match a.space {
        Space::Shared => mask,
        Space::Generic => lanes(mask).filter(|&l| in_shared(addr[l])).fold(0, |m, l| m | 1 << l),
        _ => 0,
    };
    let window = if a.space == Space::Generic { SHARED_WINDOW } else { 0 };
    let mut old: Wide = [0; 32];
    if shared != 0 {
        let mut here = [addr[shared.trailing_zeros() as usize] - window; 32];
        lanes(shared).for_each(|l| here[l] = addr[l] - window);
        let at = offsets(Space::Shared, &here, shared, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
        count_shared(cx, w.pc, &here, shared, size);
        if all_set(&cx.shared.defined, &at, size as usize) & shared != shared {
            return Err(shared_undefined(cx.shared, &here, &at, size as usize, shared));
        }
        let touch = Touch { strong: true, ..Touch::bare(w.pc, &at, size as usize, shared, true) };
        cx.race_shared(w, &touch)?;
        cx.flags(w, true, &here, shared, a.order, [true, true]);
        let start = cx.machine.random.below(32);
        for l in turned(shared, start) {
            old[l] = update(&mut cx.shared.bytes[at[l]..], a, b[l], c[l]);
        }
    }
    let rest = mask & !shared;
    if rest != 0 {
        let mut here = [addr[rest.trailing_zeros() as usize]; 32];
        lanes(rest).for_each(|l| here[l] = addr[l]);
        global_atom(cx, w, a, &here, rest, (&b, &c), &mut old)?;
    }
    if let Some(d) = a.d {
        match size {
            8 => w.put_wide(d, &old, mask),
            _ => w.put(d, &old.map(|x| x as u32), mask),
        }
    }
    Ok(())
}

fn global_atom(
    cx: &mut Cx<'_, '_>,
    w: &mut Warp,
    a: &Atom,
    addr: &Wide,
    mask: u32,
    (b, c): (&Wide, &Wide),
    old: &mut Wide,
) -> Done {
    let size = a.ty.bytes();
    // The check of alignment and bounds; where the places lie in several allocations, each lane looks for its own.
    global(cx, addr, mask, size as u64)?;
    count_global(cx, w.pc, addr, mask, size as u64);
    cx.flags(w, false, addr, mask, a.order, [true, true]);
    let start = cx.machine.random.below(32);
    for l in turned(mask, start) {
        let Some((i, at)) = cx.machine.memory.find(addr[l], size as u64) else {
            return Err(outside(Space::Global, addr[l], l as u32, size as u64, String::new()));
        };
        let here = [at; 32];
        cx.race_global(w, i, &Touch { strong: true, ..Touch::bare(w.pc, &here, size, 1 << l, true) })?;
        let tracks = cx.machine.memory.tracks();
        let Some(x) = cx.machine.memory.allocation(i) else { continue };
        if tracks && all_set(&x.defined, &[at; 32], size) == 0 {
            let what = format!("{size} bytes at Global address {:#x} are updated and were never written", addr[l]);
            let advice = "set it to its first value before";
            return Err(Slip::new(FaultKind::UninitialisedMemory, Some(l as u32), what, advice));
        }
        old[l] = update(&mut x.bytes[at..], a, b[l], c[l]);
    }
    Ok(())
}

/// The lanes of a mask, starting somewhere.
fn turned(mask: u32, start: usize) -> impl Iterator<Item = usize> {
    lanes(mask.rotate_right(start as u32)).map(move |l| (l + start) % 32)
}

fn operands(w: &Warp, a: &Atom, mask: u32) -> Done<(Wide, Wide)> {
    Ok(match a.ty.bytes() {
        8 => (*w.wide(a.b, mask)?, *w.wide(a.c, mask)?),
        _ => (w.row(a.b, mask)?.map(|x| x as u64), w.row(a.c, mask)?.map(|x| x as u64)),
    })
}

/// Replaces what stands there and returns it.
fn update(place: &mut [u8], a: &Atom, b: u64, c: u64) -> u64 {
    let n = a.ty.bytes();
    let mut bytes = [0; 8];
    bytes[..n].copy_from_slice(&place[..n]);
    let old = u64::from_le_bytes(bytes);
    let new = result(a.f, a.ty, old, b, c);
    place[..n].copy_from_slice(&new.to_le_bytes()[..n]);
    old
}

fn result(f: AtomFn, ty: Ty, old: u64, b: u64, c: u64) -> u64 {
    let signed = |x: u64| if ty.bytes() == 4 { x as u32 as i32 as i64 } else { x as i64 };
    let less = if ty.signed() { signed(b) < signed(old) } else { b < old };
    match f {
        AtomFn::Add if ty.float() => float::atomic_add(ty, old, b),
        AtomFn::Add => old.wrapping_add(b),
        AtomFn::Min => {
            if less {
                b
            } else {
                old
            }
        }
        AtomFn::Max => {
            if less {
                old
            } else {
                b
            }
        }
        AtomFn::Exch => b,
        AtomFn::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomFn::And => old & b,
        AtomFn::Or => old | b,
        AtomFn::Xor => old ^ b,
        AtomFn::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomFn::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}
