//! What is stored of a line: values of the whole line once, and those of its elements by the lanes that have them.
use super::Cx;
use crate::emit::Emit;
use crate::eval::{Gives, SLOTS};
use crate::place::Base;
use crate::ptx::coord::{self, C};
use crate::ptx::inst::*;
use crate::ptx::simt::V;
use lolm_ir::kernel::{KAxis, KValue};

/// Stores of elements of a line.
pub struct Elements<'a> {
    /// The axes of a line, and how many elements it has.
    pub axes: &'a [KAxis],
    pub width: i64,
    /// The value that the elements are, and the stores of what is made of it.
    pub value: KValue,
    pub stores: &'a [KValue],
}

impl Cx<'_> {
    /// Stores what is made of the line that is fixed, if it exists; one lane of its four does so.
    pub fn store_whole(&mut self, stores: &[KValue], exists: Option<Reg>) -> Gives<()> {
        let quad = coord::int(&mut self.g.e.b, self.quad);
        let first = self.g.e.b.setp(Cmp::Eq, Type::S32, quad, Src::Int(0));
        self.g.only = self.g.and(exists.map(V::Reg), Some(V::Reg(first)));
        stores.iter().try_for_each(|s| self.store(*s))?;
        self.g.only = None;
        Ok(())
    }

    /// Stores what is made of the elements of the line that is fixed: this lane has these, in pairs of neighbours.
    pub fn store_elements(&mut self, e: &Elements, exists: Option<Reg>, elements: &[V]) -> Gives<()> {
        for (i, x) in elements.iter().enumerate() {
            self.g.open_scope(e.axes.iter().copied().collect());
            let column = self.column(C::Const(0), i / 2, i % 2);
            let inside = self.below(column, e.width).map(V::Reg);
            match e.axes {
                // The number of a column is a part of the instruction, so no address of each is in registers.
                [a] => {
                    let first = self.column(C::Const(0), 0, 0);
                    self.fix_from(*a, first, (i / 2 * 8 + i % 2) as i64);
                }
                axes => {
                    let column = coord::either(&mut self.g.e.b, column, C::Const(e.width - 1), BinOp::Min);
                    for (a, c) in self.digits(axes, column) {
                        self.fix(a, c);
                    }
                }
            }
            self.g.set(e.value, &[0; SLOTS], *x);
            self.g.only = self.g.and(exists.map(V::Reg), inside);
            e.stores.iter().try_for_each(|s| self.store(*s))?;
            self.g.scopes.pop();
        }
        self.g.only = None;
        Ok(())
    }

    fn store(&mut self, s: KValue) -> Gives<()> {
        let stored = self.g.stored(s);
        let x = self.g.eval(stored, &[0; SLOTS])?;
        let k = self.g.k;
        let Some((o, view)) = k.value(s).access() else { return Err(self.g.nowhere(s)) };
        self.g.e.note(s.0);
        let access = self.g.access(s, Base::Operand(o), view, &[0; SLOTS])?;
        self.g.e.store(&access, x);
        Ok(())
    }
}
