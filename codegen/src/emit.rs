//! What a back end provides: a couple of dozen instructions over values, coordinates, memory and loops.
//!
//! A value is f32 (bf16 lives in registers as f32), i32 or bool. It is *uniform*, or *varying* over [`Emit::lanes`] lanes:
//! the elements of a vector register where one instruction serves many elements, threads where many threads run one
//! instruction. Operands of one operation may mix both; the result varies if one of them does.
use lolm_ir::DType;
use lolm_ir::kernel::OperandId;

/// Functions of one value that a machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Un {
    /// f32 or i32.
    Neg,
    /// f32 or i32.
    Abs,
    /// bool.
    Not,
    /// f32.
    Sqrt,
    /// The bits of an f32 as an i32.
    Bits,
    /// The f32 with the bits of an i32.
    Float,
}

/// Functions of two values that a machine has; of f32 or i32 unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bin {
    Add,
    Sub,
    Mul,
    /// f32; of i32 towards -∞, 0 where the divisor is 0.
    Div,
    /// i32, with the sign of the divisor; 0 where the divisor is 0.
    Rem,
    /// NaN if an operand is NaN.
    Max,
    /// NaN if an operand is NaN.
    Min,
    /// `a > b ? a : b`: one instruction, and b where either is NaN.
    Above,
    /// `a < b ? a : b`: one instruction, and b where either is NaN.
    Below,
    Lt,
    Le,
    /// Also of bool.
    Eq,
    /// bool, or bits of i32.
    And,
    /// bool, or bits of i32.
    Or,
    /// bits of i32.
    Xor,
    /// The high 32 bits of the product of two u32.
    MulHigh,
}

/// Shifts of an i32 by a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shift {
    Left,
    /// Zeros come in.
    Right,
    /// The sign comes in.
    Arithmetic,
}

/// How the elements of one access lie over the lanes.
#[derive(Clone, PartialEq, Debug)]
pub enum Lane<V> {
    /// One element for all lanes.
    Uniform,
    /// Neighbours in memory.
    Contiguous,
    /// This many elements apart.
    Strided(i64),
    /// `stride · lane + Σ value · stride` elements from the first.
    Each { stride: i64, offsets: Vec<(V, i64)> },
}

/// One access: the byte address of the first lane's element, how the others lie, and whether it happens.
pub struct Access<E: Emit + ?Sized> {
    pub dtype: DType,
    pub address: E::C,
    /// Bytes added to the address.
    pub offset: i64,
    pub lane: Lane<E::V>,
    pub guard: Option<E::V>,
}

/// A back end. Where a method has no comment, [`Un`], [`Bin`] or [`Shift`] says what it does.
pub trait Emit {
    /// A value in registers.
    type V: Copy;
    /// A coordinate or an address: 64 bits, always uniform.
    type C: Copy;

    /// Lanes of a varying value.
    fn lanes(&self) -> usize;
    /// Lanes are threads that can be masked: what is left of a lane loop is one step in which some lanes rest. Otherwise
    /// it is done in single elements.
    fn masks_tail(&self) -> bool {
        false
    }
    /// Units of every call, where all calls have equally many and none goes beyond the end of the last unit axis.
    fn whole_share(&self) -> Option<i64> {
        None
    }
    /// The number of this call among those that do one unit together.
    fn member(&mut self) -> Self::C {
        self.coord(0)
    }
    /// True for the first of them, where there are several.
    fn first_member(&mut self) -> Option<Self::V> {
        None
    }
    /// The values of every member, in their order; all members must get here.
    fn exchange(&mut self, values: &[Self::V]) -> Vec<Vec<Self::V>> {
        vec![values.to_vec()]
    }
    /// A comment on the instructions that follow: the kernel's line that they serve.
    fn note(&mut self, line: u32);

    fn f32(&mut self, x: f32) -> Self::V;
    fn i32(&mut self, x: i32) -> Self::V;
    fn bool(&mut self, x: bool) -> Self::V;
    /// The number of each lane, i32.
    fn iota(&mut self) -> Self::V;
    /// The same value on every lane; a varying one stays what it is.
    fn vary(&mut self, v: Self::V) -> Self::V;
    /// One lane of a varying value; a uniform one stays what it is.
    fn extract(&mut self, v: Self::V, lane: usize) -> Self::V;
    /// Lanes can exchange values: `swap` gives one.
    fn lanes_exchange(&self) -> bool {
        false
    }
    /// On each lane the value of that whose number differs in the bits of `distance`, where the lanes can exchange values.
    fn swap(&mut self, _v: Self::V, _distance: usize) -> Option<Self::V> {
        None
    }

    fn unary(&mut self, op: Un, dtype: DType, a: Self::V) -> Self::V;
    fn binary(&mut self, op: Bin, dtype: DType, a: Self::V, b: Self::V) -> Self::V;
    fn shift(&mut self, op: Shift, a: Self::V, by: u8) -> Self::V;
    fn fma(&mut self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn select(&mut self, cond: Self::V, a: Self::V, b: Self::V) -> Self::V;
    fn cast(&mut self, from: DType, to: DType, a: Self::V) -> Self::V;

    fn coord(&mut self, x: i64) -> Self::C;
    /// The constant that a coordinate is, if it is one.
    fn known(&self, c: Self::C) -> Option<i64>;
    /// What a coordinate is at least and at most, if that is known.
    fn range(&self, c: Self::C) -> Option<(i64, i64)> {
        self.known(c).map(|x| (x, x))
    }
    fn coord_add(&mut self, a: Self::C, b: Self::C) -> Self::C;
    fn coord_mul(&mut self, a: Self::C, by: i64) -> Self::C;
    fn coord_min(&mut self, a: Self::C, b: Self::C) -> Self::C;
    fn coord_max(&mut self, a: Self::C, b: Self::C) -> Self::C;
    /// Quotient and remainder of a coordinate that is not negative.
    fn coord_divmod(&mut self, a: Self::C, by: i64) -> (Self::C, Self::C);
    /// A coordinate as an i32 value.
    fn index(&mut self, c: Self::C) -> Self::V;
    /// A uniform i32 value as a coordinate.
    fn widen(&mut self, v: Self::V) -> Self::C;

    /// Where an operand starts.
    fn operand(&mut self, o: OperandId) -> Self::C;
    /// Private memory of the kernel, this many bytes.
    fn slot(&mut self, bytes: u32) -> Self::C;
    fn load(&mut self, access: &Access<Self>) -> Self::V;
    fn store(&mut self, access: &Access<Self>, v: Self::V);
    /// Adds to memory, lane after lane.
    fn accumulate(&mut self, access: &Access<Self>, v: Self::V);

    /// Opens a loop over lo, lo + step, … below hi, or over the same from the last down. Gives the coordinate and the
    /// carried values inside. With `always` the caller knows that there is an iteration.
    fn begin(
        &mut self,
        lo: Self::C,
        hi: Self::C,
        step: i64,
        down: bool,
        always: bool,
        carry: &[Self::V],
    ) -> (Self::C, Vec<Self::V>);
    /// Closes the innermost loop with what is carried on, and gives what is carried out.
    fn end(&mut self, next: &[Self::V]) -> Vec<Self::V>;
    /// Opens the loop over the units that this call must do, and gives the next one and their end.
    fn begin_units(&mut self) -> (Self::C, Self::C);
    /// Closes it: so many units were done.
    fn end_units(&mut self, done: Self::C);
}
