//! Integers: arithmetic, shifts, fields of bits and moves, 32 lanes at a time.
use crate::fault::{Done, FaultKind, Slip};
use crate::inst::{BitsFn, IntFn, PrmtMode, Slot, TriFn};
use crate::lanes::{Row, Wide, map1, map2, map3, mask1};
use crate::op::Op;
use crate::ty::Ty;
use crate::warp::Warp;

/// An integer type as it lies in a row: narrower ones are kept with zeros above.
trait Int: Copy + Ord + Default {
    type Raw: Copy + Default;
    fn of(raw: Self::Raw) -> Self;
    fn raw(self) -> Self::Raw;
    fn plus(self, o: Self) -> Self;
    fn minus(self, o: Self) -> Self;
    fn times(self, o: Self) -> Self;
    fn high(self, o: Self) -> Self;
    fn quotient(self, o: Self) -> Self;
    fn remainder(self, o: Self) -> Self;
    fn and(self, o: Self) -> Self;
    fn or(self, o: Self) -> Self;
    fn xor(self, o: Self) -> Self;
    fn not(self) -> Self;
    fn left(self, n: u32) -> Self;
    fn right(self, n: u32) -> Self;
    fn saturating_plus(self, o: Self) -> Self;
    fn saturating_minus(self, o: Self) -> Self;
    fn one() -> Self;
}

macro_rules! int {
    ($t:ty, $unsigned:ty, $double:ty, $raw:ty) => {
        impl Int for $t {
            type Raw = $raw;
            #[inline(always)]
            fn of(raw: $raw) -> Self {
                raw as $t
            }
            #[inline(always)]
            fn raw(self) -> $raw {
                self as $unsigned as $raw
            }
            #[inline(always)]
            fn plus(self, o: Self) -> Self {
                self.wrapping_add(o)
            }
            #[inline(always)]
            fn minus(self, o: Self) -> Self {
                self.wrapping_sub(o)
            }
            #[inline(always)]
            fn times(self, o: Self) -> Self {
                self.wrapping_mul(o)
            }
            #[inline(always)]
            fn high(self, o: Self) -> Self {
                ((self as $double).wrapping_mul(o as $double) >> <$t>::BITS) as $t
            }
            #[inline(always)]
            fn quotient(self, o: Self) -> Self {
                if o == 0 { 0 } else { self.wrapping_div(o) }
            }
            #[inline(always)]
            fn remainder(self, o: Self) -> Self {
                if o == 0 { 0 } else { self.wrapping_rem(o) }
            }
            #[inline(always)]
            fn and(self, o: Self) -> Self {
                self & o
            }
            #[inline(always)]
            fn or(self, o: Self) -> Self {
                self | o
            }
            #[inline(always)]
            fn xor(self, o: Self) -> Self {
                self ^ o
            }
            #[inline(always)]
            fn not(self) -> Self {
                !self
            }
            #[inline(always)]
            fn left(self, n: u32) -> Self {
                if n >= <$t>::BITS { 0 } else { self << n }
            }
            #[inline(always)]
            fn right(self, n: u32) -> Self {
                self >> n.min(<$t>::BITS - 1) >> (n >= <$t>::BITS) as u32
            }
            #[inline(always)]
            fn saturating_plus(self, o: Self) -> Self {
                self.saturating_add(o)
            }
            #[inline(always)]
            fn saturating_minus(self, o: Self) -> Self {
                self.saturating_sub(o)
            }
            #[inline(always)]
            fn one() -> Self {
                1
            }
        }
    };
}

int!(u16, u16, u32, u32);
int!(i16, u16, i32, u32);
int!(u32, u32, u64, u32);
int!(i32, u32, i64, u32);
int!(u64, u64, u128, u64);
int!(i64, u64, i128, u64);

#[inline(always)]
fn lift<T: Int>(f: impl Fn(T, T) -> T) -> impl Fn(T::Raw, T::Raw) -> T::Raw {
    move |a, b| f(T::of(a), T::of(b)).raw()
}

/// A function of two rows. Lanes that do not take part are computed as well, so every case is total.
fn binary<T: Int>(f: IntFn, a: &[T::Raw; 32], b: &[T::Raw; 32]) -> [T::Raw; 32] {
    match f {
        IntFn::Add => map2(a, b, lift(T::plus)),
        IntFn::Sub => map2(a, b, lift(T::minus)),
        IntFn::AddSat => map2(a, b, lift(T::saturating_plus)),
        IntFn::SubSat => map2(a, b, lift(T::saturating_minus)),
        IntFn::MulLo => map2(a, b, lift(T::times)),
        IntFn::MulHi => map2(a, b, lift(T::high)),
        IntFn::Div => map2(a, b, lift(T::quotient)),
        IntFn::Rem => map2(a, b, lift(T::remainder)),
        IntFn::Min => map2(a, b, lift(T::min)),
        IntFn::Max => map2(a, b, lift(T::max)),
        IntFn::And => map2(a, b, lift(T::and)),
        IntFn::Or => map2(a, b, lift(T::or)),
        IntFn::Xor => map2(a, b, lift(T::xor)),
        IntFn::Neg => map1(a, |x| T::default().minus(T::of(x)).raw()),
        IntFn::Abs => map1(a, |x| T::of(x).max(T::default().minus(T::of(x))).raw()),
        IntFn::Not => map1(a, |x| T::of(x).not().raw()),
        IntFn::Cnot => map1(a, |x| if T::of(x) == T::default() { T::one().raw() } else { T::default().raw() }),
    }
}

fn shift<T: Int>(left: bool, a: &[T::Raw; 32], b: &Row) -> [T::Raw; 32] {
    match left {
        true => map2(a, b, |x, n| T::of(x).left(n).raw()),
        false => map2(a, b, |x, n| T::of(x).right(n).raw()),
    }
}

fn ternary<T: Int>(f: TriFn, a: &[T::Raw; 32], b: &[T::Raw; 32], c: &[T::Raw; 32]) -> [T::Raw; 32] {
    match f {
        TriFn::MadLo => map3(a, b, c, |x, y, z| T::of(x).times(T::of(y)).plus(T::of(z)).raw()),
        TriFn::MadHi => map3(a, b, c, |x, y, z| T::of(x).high(T::of(y)).plus(T::of(z)).raw()),
        _ => map3(a, b, c, |x, y, z| {
            let (x, y) = (T::of(x), T::of(y));
            x.max(y).minus(x.min(y)).plus(T::of(z)).raw()
        }),
    }
}

/// The values of an all-integer row function at a width: what a match over the types would say again and again.
macro_rules! by_type {
    ($ty:expr, |$t:ident| $call:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 | Ty::U8 | Ty::B8 => {
                type $t = u16;
                $call
            }
            Ty::S16 | Ty::S8 => {
                type $t = i16;
                $call
            }
            Ty::S32 => {
                type $t = i32;
                $call
            }
            _ => {
                type $t = u32;
                $call
            }
        }
    };
}

pub(super) fn run(w: &mut Warp, op: &Op, mask: u32) -> Done {
    match *op {
        Op::Mov32 { d, a } => {
            let v = *w.row(a, mask)?;
            w.put(d, &v, mask);
        }
        Op::Mov64 { d, a } => {
            let v = *w.wide(a, mask)?;
            w.put_wide(d, &v, mask);
        }
        Op::Pack { wide, bits, n, d, parts } => pack(w, wide, bits as u32, n as usize, d, &parts, mask)?,
        Op::Unpack { wide, bits, n, a, parts } => unpack(w, wide, bits as u32, n as usize, a, &parts, mask)?,
        Op::Int { f, ty, d, a, b } => int(w, f, ty, d, a, b, mask)?,
        Op::Shift { left, ty, d, a, b } => match ty {
            Ty::S64 | Ty::U64 | Ty::B64 => {
                let (x, n) = (w.wide(a, mask)?, w.row(b, mask)?);
                let v = if ty == Ty::S64 { shift::<i64>(left, x, n) } else { shift::<u64>(left, x, n) };
                w.put_wide(d, &v, mask);
            }
            _ => {
                let (x, n) = (w.row(a, mask)?, w.row(b, mask)?);
                let v = by_type!(ty, |T| shift::<T>(left, x, n));
                w.put(d, &v, mask);
            }
        },
        Op::MulWide { ty, d, a, b, c } => mul_wide(w, ty, d, [a, b], c, mask)?,
        Op::Bits { f, wide, d, a } => {
            let v = match wide {
                true => map1(w.wide(a, mask)?, |x| bits(f, x, 64)),
                false => map1(w.row(a, mask)?, |x| bits(f, x as u64, 32)),
            };
            w.put(d, &v, mask);
        }
        Op::Brev { wide: false, d, a } => {
            let v = map1(w.row(a, mask)?, u32::reverse_bits);
            w.put(d, &v, mask);
        }
        Op::Brev { wide: true, d, a } => {
            let v = map1(w.wide(a, mask)?, u64::reverse_bits);
            w.put_wide(d, &v, mask);
        }
        Op::Tri { f, ty, d, a, b, c } => tri(w, f, ty, d, [a, b, c], mask)?,
        Op::Bfi { wide, d, a, b, c, len } => {
            let (c, len) = (w.row(c, mask)?, w.row(len, mask)?);
            let field = map2(c, len, |c, n| (c & 0xff, n & 0xff));
            if wide {
                let v = insert(w.wide(a, mask)?, w.wide(b, mask)?, &field, 64);
                w.put_wide(d, &v, mask);
            } else {
                let (a, b) = (w.row(a, mask)?, w.row(b, mask)?);
                let v = insert(&map1(a, |x| x as u64), &map1(b, |x| x as u64), &field, 32);
                w.put(d, &map1(&v, |x| x as u32), mask);
            }
        }
        Op::ToSpace { space, d, a } => {
            let (start, size) = super::load_store::window(space);
            let x = w.wide(a, mask)?;
            let outside = mask1(x, |x| x.wrapping_sub(start) >= size) & mask;
            if outside != 0 {
                let lane = outside.trailing_zeros();
                let what = format!("the generic address {:#x} does not lie in the space {space:?}", x[lane as usize]);
                return Err(Slip::new(
                    FaultKind::OutOfBounds,
                    Some(lane),
                    what,
                    "convert only addresses of that space",
                ));
            }
            let v = map1(x, |x| x - start * (start != 0) as u64);
            w.put_wide(d, &v, mask);
        }
        _ => {
            let what = format!("a bug: {op:?} has no place in the emulator");
            return Err(Slip::new(FaultKind::Trap, None, what, "every instruction is run in src/exec"));
        }
    }
    Ok(())
}

#[inline(always)]
fn int(w: &mut Warp, f: IntFn, ty: Ty, d: Slot, a: Slot, b: Slot, mask: u32) -> Done {
    let divides = matches!(f, IntFn::Div | IntFn::Rem);
    if ty.bytes() == 8 {
        let (x, y) = (w.wide(a, mask)?, w.wide(b, mask)?);
        if divides {
            nonzero(mask1(y, |y| y == 0) & mask)?;
        }
        let v = if ty == Ty::S64 { binary::<i64>(f, x, y) } else { binary::<u64>(f, x, y) };
        w.put_wide(d, &v, mask);
    } else {
        let (x, y) = (w.row(a, mask)?, w.row(b, mask)?);
        if divides {
            nonzero(mask1(y, |y| y == 0) & mask)?;
        }
        let v = by_type!(ty, |T| binary::<T>(f, x, y));
        w.put(d, &v, mask);
    }
    Ok(())
}

fn nonzero(zero: u32) -> Done {
    match zero {
        0 => Ok(()),
        _ => {
            let what = "an integer is divided by zero".to_string();
            Err(Slip::new(FaultKind::DivisionByZero, Some(zero.trailing_zeros()), what, "the hardware gives any value"))
        }
    }
}

fn mul_wide(w: &mut Warp, ty: Ty, d: Slot, [a, b]: [Slot; 2], c: Option<Slot>, mask: u32) -> Done {
    let (x, y) = (w.row(a, mask)?, w.row(b, mask)?);
    match ty {
        Ty::U32 | Ty::S32 => {
            let product: Wide = match ty {
                Ty::U32 => map2(x, y, |x, y| x as u64 * y as u64),
                _ => map2(x, y, |x, y| (x as i32 as i64 * y as i32 as i64) as u64),
            };
            let v = match c {
                Some(c) => map2(&product, w.wide(c, mask)?, u64::wrapping_add),
                None => product,
            };
            w.put_wide(d, &v, mask);
        }
        _ => {
            let product: Row = match ty {
                Ty::U16 => map2(x, y, |x, y| (x & 0xffff) * (y & 0xffff)),
                _ => map2(x, y, |x, y| (x as i16 as i32 * y as i16 as i32) as u32),
            };
            let v = match c {
                Some(c) => map2(&product, w.row(c, mask)?, u32::wrapping_add),
                None => product,
            };
            w.put(d, &v, mask);
        }
    }
    Ok(())
}

fn pack(w: &mut Warp, wide: bool, bits: u32, n: usize, d: Slot, parts: &[Slot; 4], mask: u32) -> Done {
    let low = (1u64 << bits) - 1;
    let mut v: Wide = [0; 32];
    for (i, &p) in parts[..n].iter().enumerate() {
        v = map2(&v, w.row(p, mask)?, |v, x| v | (x as u64 & low) << (i as u32 * bits));
    }
    if wide {
        w.put_wide(d, &v, mask)
    } else {
        w.put(d, &map1(&v, |v| v as u32), mask)
    }
    Ok(())
}

fn unpack(w: &mut Warp, wide: bool, bits: u32, n: usize, a: Slot, parts: &[Slot; 4], mask: u32) -> Done {
    let low = (1u64 << bits) - 1;
    let v: Wide = if wide { *w.wide(a, mask)? } else { map1(w.row(a, mask)?, |x| x as u64) };
    for (i, &p) in parts[..n].iter().enumerate() {
        w.put(p, &map1(&v, |v| (v >> (i as u32 * bits) & low) as u32), mask);
    }
    Ok(())
}

fn bits(f: BitsFn, x: u64, width: u32) -> u32 {
    let signed = matches!(f, BitsFn::BfindSigned | BitsFn::BfindSignedShift);
    let shift = matches!(f, BitsFn::BfindShift | BitsFn::BfindSignedShift);
    match f {
        BitsFn::Popc => x.count_ones(),
        BitsFn::Clz => x.leading_zeros() - (64 - width),
        _ => {
            let negative = signed && x >> (width - 1) & 1 == 1;
            let x = if negative { !x & (!0 >> (64 - width)) } else { x };
            match x {
                0 => !0,
                _ if shift => x.leading_zeros() - (64 - width),
                _ => 63 - x.leading_zeros(),
            }
        }
    }
}

fn insert(a: &Wide, b: &Wide, field: &[(u32, u32); 32], width: u32) -> Wide {
    let mut d = [0; 32];
    for i in 0..32 {
        let (at, n) = field[i];
        let ones = if n >= 64 { !0 } else { (1u64 << n) - 1 };
        let mask = if at >= width { 0 } else { ones << at };
        d[i] = b[i] & !mask | (a[i] << (at & 63)) & mask;
    }
    d
}

fn extract(x: u64, at: u32, n: u32, signed: bool, width: u32) -> u64 {
    let (at, n) = (at & 0xff, n & 0xff);
    let top = (at + n).saturating_sub(1).min(width - 1);
    let sign = if signed && n > 0 { x >> top & 1 } else { 0 };
    let mut field = if at >= width { 0 } else { x >> at };
    let kept = n.min(width.saturating_sub(at));
    let ones = if kept >= 64 { !0 } else { (1u64 << kept) - 1 };
    field &= ones;
    if sign == 1 { field | !ones } else { field }
}

fn tri(w: &mut Warp, f: TriFn, ty: Ty, d: Slot, [a, b, c]: [Slot; 3], mask: u32) -> Done {
    let wide = ty.bytes() == 8;
    match f {
        TriFn::BfeUnsigned | TriFn::BfeSigned => {
            let signed = f == TriFn::BfeSigned;
            let (at, n) = (w.row(b, mask)?, w.row(c, mask)?);
            if wide {
                let v = map3(w.wide(a, mask)?, at, n, |x, at, n| extract(x, at, n, signed, 64));
                w.put_wide(d, &v, mask);
            } else {
                let v = map3(w.row(a, mask)?, at, n, |x, at, n| extract(x as u64, at, n, signed, 32) as u32);
                w.put(d, &v, mask);
            }
        }
        TriFn::Slct { float } => {
            let by = w.row(c, mask)?;
            let first = |c: u32| if float { f32::from_bits(c) >= 0.0 } else { c as i32 >= 0 };
            if wide {
                let v = map3(w.wide(a, mask)?, w.wide(b, mask)?, by, |x, y, c| if first(c) { x } else { y });
                w.put_wide(d, &v, mask);
            } else {
                let v = map3(w.row(a, mask)?, w.row(b, mask)?, by, |x, y, c| if first(c) { x } else { y });
                w.put(d, &v, mask);
            }
        }
        TriFn::MadLo | TriFn::MadHi | TriFn::Sad if wide => {
            let (x, y, z) = (w.wide(a, mask)?, w.wide(b, mask)?, w.wide(c, mask)?);
            let v = if ty == Ty::S64 { ternary::<i64>(f, x, y, z) } else { ternary::<u64>(f, x, y, z) };
            w.put_wide(d, &v, mask);
        }
        _ => {
            let (x, y, z) = (w.row(a, mask)?, w.row(b, mask)?, w.row(c, mask)?);
            let v = match f {
                TriFn::Lop3(table) => map3(x, y, z, |x, y, z| lop3(table, x, y, z)),
                TriFn::Prmt(mode) => map3(x, y, z, |x, y, z| prmt(mode, x, y, z)),
                TriFn::ShfLeft { wrap } => map3(x, y, z, |x, y, z| shf(true, wrap, x, y, z)),
                TriFn::ShfRight { wrap } => map3(x, y, z, |x, y, z| shf(false, wrap, x, y, z)),
                TriFn::Dp4a { a_signed, b_signed } => map3(x, y, z, |x, y, z| dp4a(a_signed, b_signed, x, y, z)),
                _ => by_type!(ty, |T| ternary::<T>(f, x, y, z)),
            };
            w.put(d, &v, mask);
        }
    }
    Ok(())
}

fn lop3(table: u8, x: u32, y: u32, z: u32) -> u32 {
    let mut d = 0;
    for k in 0..8 {
        if table >> k & 1 != 0 {
            let term = |v: u32, bit: u32| if k >> bit & 1 != 0 { v } else { !v };
            d |= term(x, 2) & term(y, 1) & term(z, 0);
        }
    }
    d
}

fn shf(left: bool, wrap: bool, low: u32, high: u32, n: u32) -> u32 {
    let n = if wrap { n & 31 } else { n.min(32) };
    let both = (high as u64) << 32 | low as u64;
    if left { ((both << n) >> 32) as u32 } else { (both >> n) as u32 }
}

fn prmt(mode: PrmtMode, a: u32, b: u32, c: u32) -> u32 {
    let bytes = (b as u64) << 32 | a as u64;
    let n = c & 3;
    let pick = |i: u32| match mode {
        PrmtMode::Index => c >> (4 * i) & 15,
        PrmtMode::F4e => n + i,
        PrmtMode::B4e => (n + 8 - i) & 7,
        PrmtMode::Rc8 => n,
        PrmtMode::Ecl => i.max(n),
        PrmtMode::Ecr => i.min(n),
        PrmtMode::Rc16 => (n & 1) * 2 + (i & 1),
    };
    (0..4).fold(0, |d, i| {
        let s = pick(i);
        let byte = (bytes >> (8 * (s & 7))) as u32 & 0xff;
        // The fourth bit of a selector spreads the sign of the byte.
        let byte = if s & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
        d | byte << (8 * i)
    })
}

fn dp4a(a_signed: bool, b_signed: bool, a: u32, b: u32, c: u32) -> u32 {
    let part = |v: u32, i: u32, signed: bool| {
        let byte = (v >> (8 * i)) as u8;
        if signed { byte as i8 as i32 } else { byte as i32 }
    };
    (0..4).fold(c, |d, i| d.wrapping_add((part(a, i, a_signed) * part(b, i, b_signed)) as u32))
}
