//! Cranelift as an [`Emit`]: values, coordinates, loops. Arithmetic is in `arith`, memory in `access`.
use super::{access, arith};
use crate::emit::{Access, Bin, Emit, Shift, Un};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::*;
use cranelift_codegen::ir::{
    Block, BlockArg, ConstantData, Endianness, InstBuilder, MemFlagsData, SourceLoc, StackSlotData, StackSlotKind,
    Type, Value,
};
use cranelift_frontend::FunctionBuilder;
use lolm_ir::DType;
use lolm_ir::kernel::OperandId;

/// Lanes of a vector register: Cranelift has 128-bit vectors on this target.
pub const LANES: usize = 4;

/// A value: a constant until an instruction needs it, so that constants take the shape of their use.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum V {
    F32(f32),
    I32(i32),
    Bool(bool),
    /// f32, i32 or i8 (a bool, 0 or 1), or a vector of f32 or i32 (a bool is a mask of ones or zeros).
    Val(Value),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum C {
    Const(i64),
    Val(Value),
}

/// A loop that is open: header, exit, coordinate, bounds, and the step, negative when it counts down.
struct Open {
    header: Block,
    exit: Block,
    coord: Value,
    lo: Value,
    hi: Value,
    step: i64,
}

pub struct Clif<'a> {
    pub b: FunctionBuilder<'a>,
    /// One pointer for each operand.
    operands: Vec<Value>,
    begin: Value,
    end: Value,
    units: Option<(Block, Block, Value)>,
    loops: Vec<Open>,
    /// Memory that reads as zero, for loads whose guard is false, and memory that nobody reads, for such stores.
    pub zeros: Option<Value>,
    pub junk: Option<Value>,
}

/// Accesses stay inside their operands, which the kernel's rules promise.
pub fn trusted() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}
/// The order of bytes for a bit cast between vectors.
pub fn bytes() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

impl<'a> Clif<'a> {
    /// In the function's first block. With `guards`, memory is set aside for what guards keep from happening.
    pub fn new(mut b: FunctionBuilder<'a>, params: &[Value], operands: usize, guards: bool) -> Self {
        let pointer =
            |b: &mut FunctionBuilder, i| b.ins().load(I64, trusted().with_can_move(), params[0], 8 * i as i32);
        let operands = (0..operands).map(|i| pointer(&mut b, i)).collect();
        let mut c =
            Clif { b, operands, begin: params[1], end: params[2], units: None, loops: vec![], zeros: None, junk: None };
        if guards {
            let zeros = c.stack(16);
            let nothing = c.vector_const([0; 4], I32X4);
            c.b.ins().store(trusted(), nothing, zeros, 0);
            (c.zeros, c.junk) = (Some(zeros), Some(c.stack(16)));
            let junk = c.stack(16);
            c.b.ins().store(trusted(), nothing, junk, 0);
            c.junk = Some(junk);
        }
        c
    }

    fn stack(&mut self, bytes: u32) -> Value {
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4));
        self.b.ins().stack_addr(I64, slot, 0)
    }

    pub fn ty(&self, v: Value) -> Type {
        self.b.func.dfg.value_type(v)
    }
    pub fn is_vector(&self, v: V) -> bool {
        match v {
            V::Val(x) => self.ty(x).is_vector(),
            V::F32(_) | V::I32(_) | V::Bool(_) => false,
        }
    }
    pub fn vector_const(&mut self, words: [u32; LANES], ty: Type) -> Value {
        let data: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let handle = self.b.func.dfg.constants.insert(ConstantData::from(data));
        self.b.ins().vconst(ty, handle)
    }

    /// The value in a register, a scalar one if it is not a vector already.
    pub fn reg(&mut self, v: V) -> Value {
        match v {
            V::Val(x) => x,
            V::F32(x) => self.b.ins().f32const(x),
            V::I32(x) => self.b.ins().iconst(I32, x as i64),
            V::Bool(x) => self.b.ins().iconst(I8, x as i64),
        }
    }
    /// The value in every lane of a vector.
    pub fn vec(&mut self, v: V) -> Value {
        match v {
            V::F32(x) => self.vector_const([x.to_bits(); LANES], F32X4),
            V::I32(x) => self.vector_const([x as u32; LANES], I32X4),
            V::Bool(x) => self.vector_const([if x { u32::MAX } else { 0 }; LANES], I32X4),
            V::Val(x) if self.ty(x).is_vector() => x,
            V::Val(x) if self.ty(x) == F32 => self.b.ins().splat(F32X4, x),
            V::Val(x) if self.ty(x) == I32 => self.b.ins().splat(I32X4, x),
            V::Val(x) => {
                let mask = self.b.ins().bmask(I32, x);
                self.b.ins().splat(I32X4, mask)
            }
        }
    }
    /// Operands of one instruction: all vectors if one of them is.
    pub fn same<const N: usize>(&mut self, v: [V; N]) -> [Value; N] {
        let vector = v.iter().any(|v| self.is_vector(*v));
        v.map(|v| if vector { self.vec(v) } else { self.reg(v) })
    }

    pub fn coordinate(&mut self, c: C) -> Value {
        match c {
            C::Const(x) => self.b.ins().iconst(I64, x),
            C::Val(x) => x,
        }
    }

    fn either(&mut self, a: C, b: C, known: fn(i64, i64) -> i64, cc: IntCC) -> C {
        if let (C::Const(a), C::Const(b)) = (a, b) {
            return C::Const(known(a, b));
        }
        let (a, b) = (self.coordinate(a), self.coordinate(b));
        let first = self.b.ins().icmp(cc, a, b);
        C::Val(self.b.ins().select(first, a, b))
    }
}

/// The arguments of a jump.
fn arguments(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|v| BlockArg::Value(*v)).collect()
}

impl Emit for Clif<'_> {
    type V = V;
    type C = C;

    fn lanes(&self) -> usize {
        LANES
    }
    fn note(&mut self, line: u32) {
        self.b.set_srcloc(SourceLoc::new(line));
    }

    fn f32(&mut self, x: f32) -> V {
        V::F32(x)
    }
    fn i32(&mut self, x: i32) -> V {
        V::I32(x)
    }
    fn bool(&mut self, x: bool) -> V {
        V::Bool(x)
    }
    fn iota(&mut self) -> V {
        V::Val(self.vector_const([0, 1, 2, 3], I32X4))
    }
    fn vary(&mut self, v: V) -> V {
        V::Val(self.vec(v))
    }
    fn extract(&mut self, v: V, lane: usize) -> V {
        match v {
            V::Val(x) if self.ty(x).is_vector() => V::Val(self.b.ins().extractlane(x, lane as u8)),
            v => v,
        }
    }

    fn unary(&mut self, op: Un, dtype: DType, a: V) -> V {
        arith::unary(self, op, dtype, a)
    }
    fn binary(&mut self, op: Bin, dtype: DType, a: V, b: V) -> V {
        arith::binary(self, op, dtype, a, b)
    }
    fn shift(&mut self, op: Shift, a: V, by: u8) -> V {
        let a = self.reg(a);
        V::Val(match op {
            Shift::Left => self.b.ins().ishl_imm_u(a, by as i64),
            Shift::Right => self.b.ins().ushr_imm_u(a, by as i64),
            Shift::Arithmetic => self.b.ins().sshr_imm_u(a, by as i64),
        })
    }
    fn fma(&mut self, a: V, b: V, c: V) -> V {
        let [a, b, c] = self.same([a, b, c]);
        V::Val(self.b.ins().fma(a, b, c))
    }
    fn select(&mut self, cond: V, a: V, b: V) -> V {
        arith::select(self, cond, a, b)
    }
    fn cast(&mut self, from: DType, to: DType, a: V) -> V {
        arith::cast(self, from, to, a)
    }

    fn coord(&mut self, x: i64) -> C {
        C::Const(x)
    }
    fn known(&self, c: C) -> Option<i64> {
        match c {
            C::Const(x) => Some(x),
            C::Val(_) => None,
        }
    }
    fn coord_add(&mut self, a: C, b: C) -> C {
        match (a, b) {
            (C::Const(a), C::Const(b)) => C::Const(a + b),
            (x, C::Const(0)) | (C::Const(0), x) => x,
            (C::Val(x), C::Const(c)) | (C::Const(c), C::Val(x)) => C::Val(self.b.ins().iadd_imm_s(x, c)),
            (C::Val(a), C::Val(b)) => C::Val(self.b.ins().iadd(a, b)),
        }
    }
    fn coord_mul(&mut self, a: C, by: i64) -> C {
        match (a, by) {
            (C::Const(a), by) => C::Const(a * by),
            (_, 0) => C::Const(0),
            (a, 1) => a,
            (C::Val(a), -1) => C::Val(self.b.ins().ineg(a)),
            // Addressing modes take shifts, not products.
            (C::Val(a), by) if by > 0 && by & (by - 1) == 0 => {
                C::Val(self.b.ins().ishl_imm_u(a, by.trailing_zeros() as i64))
            }
            (C::Val(a), by) => C::Val(self.b.ins().imul_imm_s(a, by)),
        }
    }
    fn coord_min(&mut self, a: C, b: C) -> C {
        self.either(a, b, i64::min, IntCC::SignedLessThan)
    }
    fn coord_max(&mut self, a: C, b: C) -> C {
        self.either(a, b, i64::max, IntCC::SignedGreaterThan)
    }
    fn coord_divmod(&mut self, a: C, by: i64) -> (C, C) {
        match a {
            C::Const(a) => (C::Const(a.div_euclid(by)), C::Const(a.rem_euclid(by))),
            a if by == 1 => (a, C::Const(0)),
            C::Val(a) if by & (by - 1) == 0 => {
                let q = self.b.ins().ushr_imm_u(a, by.trailing_zeros() as i64);
                (C::Val(q), C::Val(self.b.ins().band_imm_s(a, by - 1)))
            }
            C::Val(a) => {
                let by = self.b.ins().iconst(I64, by);
                let q = self.b.ins().udiv(a, by);
                let back = self.b.ins().imul(q, by);
                (C::Val(q), C::Val(self.b.ins().isub(a, back)))
            }
        }
    }
    fn index(&mut self, c: C) -> V {
        match c {
            C::Const(x) => V::I32(x as i32),
            C::Val(x) => V::Val(self.b.ins().ireduce(I32, x)),
        }
    }
    fn widen(&mut self, v: V) -> C {
        match v {
            V::I32(x) => C::Const(x as i64),
            v => {
                let v = self.reg(v);
                C::Val(self.b.ins().sextend(I64, v))
            }
        }
    }

    fn operand(&mut self, o: OperandId) -> C {
        C::Val(self.operands[o.0 as usize])
    }
    fn slot(&mut self, bytes: u32) -> C {
        C::Val(self.stack(bytes))
    }
    fn load(&mut self, access: &Access<Self>) -> V {
        access::load(self, access)
    }
    fn store(&mut self, access: &Access<Self>, v: V) {
        access::store(self, access, v);
    }
    fn accumulate(&mut self, access: &Access<Self>, v: V) {
        access::accumulate(self, access, v);
    }

    fn begin(&mut self, lo: C, hi: C, step: i64, down: bool, always: bool, carry: &[V]) -> (C, Vec<V>) {
        let (lo, hi) = (self.coordinate(lo), self.coordinate(hi));
        let (header, exit) = (self.b.create_block(), self.b.create_block());
        let carry: Vec<Value> = carry.iter().map(|v| self.reg(*v)).collect();
        self.b.append_block_param(header, I64);
        for v in &carry {
            let ty = self.ty(*v);
            self.b.append_block_param(header, ty);
            self.b.append_block_param(exit, ty);
        }
        let first = if down { self.b.ins().iadd_imm_s(hi, -step) } else { lo };
        let into = arguments(&[&[first][..], &carry].concat());
        if always {
            self.b.ins().jump(header, &into);
        } else {
            let any = self.b.ins().icmp(IntCC::SignedLessThan, lo, hi);
            self.b.ins().brif(any, header, &into, exit, &into[1..]);
        }
        self.b.switch_to_block(header);
        let params = self.b.block_params(header).to_vec();
        let step = if down { -step } else { step };
        self.loops.push(Open { header, exit, coord: params[0], lo, hi, step });
        (C::Val(params[0]), params[1..].iter().map(|v| V::Val(*v)).collect())
    }

    fn end(&mut self, next: &[V]) -> Vec<V> {
        let next: Vec<Value> = next.iter().map(|v| self.reg(*v)).collect();
        let Some(Open { header, exit, coord, lo, hi, step }) = self.loops.pop() else { return vec![] };
        let coord = self.b.ins().iadd_imm_s(coord, step);
        let (cc, limit) = if step > 0 { (IntCC::SignedLessThan, hi) } else { (IntCC::SignedGreaterThanOrEqual, lo) };
        let again = self.b.ins().icmp(cc, coord, limit);
        let into = arguments(&[&[coord][..], &next].concat());
        self.b.ins().brif(again, header, &into, exit, &into[1..]);
        self.b.switch_to_block(exit);
        self.b.block_params(exit).iter().map(|v| V::Val(*v)).collect()
    }

    fn begin_units(&mut self) -> (C, C) {
        let (header, body, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.append_block_param(header, I64);
        self.b.ins().jump(header, &[BlockArg::Value(self.begin)]);
        self.b.switch_to_block(header);
        let unit = self.b.block_params(header)[0];
        let more = self.b.ins().icmp(IntCC::SignedLessThan, unit, self.end);
        self.b.ins().brif(more, body, &[], exit, &[]);
        self.b.switch_to_block(body);
        self.units = Some((header, exit, unit));
        (C::Val(unit), C::Val(self.end))
    }

    fn end_units(&mut self, done: C) {
        let Some((header, exit, unit)) = self.units.take() else { return };
        let next = self.coord_add(C::Val(unit), done);
        let unit = self.coordinate(next);
        self.b.ins().jump(header, &[BlockArg::Value(unit)]);
        self.b.switch_to_block(exit);
        self.b.ins().return_(&[]);
    }
}
