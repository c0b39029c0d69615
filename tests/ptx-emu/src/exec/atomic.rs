//! atom and red: one lane after the other, in an order that the seed turns.
use super::load_store::{count_global, count_shared};
use super::race::Touch;
use super::spots::{addresses, check_global, global, within};
use super::{Cx, float};
use crate::fault::Done;
use crate::inst::{Atom, AtomFn, Space};
use crate::kernel::{SHARED_BASE, SHARED_WINDOW, WINDOW};
use crate::lanes::{Wide, lanes};
use crate::ty::Ty;
use crate::warp::Warp;

#[inline(never)]
pub(super) fn atom(cx: &mut Cx<'_, '_>, w: &mut Warp, a: &Atom, mask: u32) -> Done {
    let size = a.ty.bytes() as u32;
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
        let spots = within(Space::Shared, &here, shared, size, SHARED_BASE as u64, cx.shared.bytes.len())?;
        count_shared(cx, w.pc, &spots);
        cx.shared.check_read(&spots)?;
        cx.race_shared(w, &Touch { strong: true, ..Touch::bare(w.pc, &spots, true) })?;
        cx.flags(w, true, 0, &spots, a.order, [true, true]);
        let start = cx.machine.random.below(32);
        for l in turned(shared, start) {
            old[l] = update(&mut cx.shared.bytes[spots.place(l)..], a, b[l], c[l]);
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
    let Some((i, spots)) = global(cx.machine.memory, addr, mask, size as u32)? else {
        // The places lie in several allocations: lane by lane.
        return lanes(mask).try_for_each(|l| global_atom(cx, w, a, &[addr[l]; 32], 1 << l, (b, c), old));
    };
    count_global(cx, w.pc, &spots);
    cx.race_global(w, i, &Touch { strong: true, ..Touch::bare(w.pc, &spots, true) })?;
    check_global(cx, i, &spots)?;
    let start = cx.machine.random.below(32);
    let Some(x) = cx.machine.memory.allocation(i) else { return Ok(()) };
    for l in turned(mask, start) {
        old[l] = update(&mut x.bytes[spots.place(l)..], a, b[l], c[l]);
    }
    let base = x.base;
    cx.flags(w, false, base, &spots, a.order, [true, true]);
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
