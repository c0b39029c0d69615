//! Sinks: what a loop nest is emitted for. Stores of the kernel, and updates of arrays.
use crate::emit::Emit;
use crate::eval::{Acc, Gen, Gives, Inst};
use crate::place::Base;
use lolm_ir::DType;
use lolm_ir::kernel::{KAxes, KOp, KValue, Mode, OperandId};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sink {
    /// A store or an accumulation of the kernel.
    Write(KValue),
    /// Fills the array of a scan or a fold with what it starts from.
    Start(KValue),
    /// Keeps the state of a scan after this step in its array.
    State(KValue),
    /// Folds one more element into an array.
    Fold(KValue),
}

/// Memory that must not be read any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Written {
    Operand(OperandId),
    State(KValue),
}

impl Sink {
    pub fn value(self) -> KValue {
        match self {
            Sink::Write(v) | Sink::Start(v) | Sink::State(v) | Sink::Fold(v) => v,
        }
    }
}

impl<E: Emit> Gen<'_, E> {
    /// The axes that must be fixed for it.
    pub fn sink_axes(&self, s: Sink) -> KAxes {
        let value = self.k.value(s.value());
        match (s, &value.op) {
            (Sink::Start(_), KOp::Scan { axis, .. }) => value.axes.without(*axis),
            _ => value.axes,
        }
    }

    /// The values that it uses.
    pub fn sink_inputs(&self, s: Sink) -> Vec<KValue> {
        let value = self.k.value(s.value());
        match s {
            Sink::Write(v) => {
                let others = self.k.uses(v).into_iter().skip(1);
                [self.stored(v)].into_iter().chain(others).collect()
            }
            Sink::Start(_) => value.args.get(2).copied().into_iter().collect(),
            Sink::State(v) => vec![v],
            Sink::Fold(_) => {
                let bounds = value.op.folds().into_iter().flat_map(|a| self.k.bounds(a));
                value.args.iter().take(2).copied().chain(bounds).collect()
            }
        }
    }

    /// The operand that it overwrites and that is also read.
    pub fn overwrites(&self, s: Sink) -> Option<OperandId> {
        let Sink::Write(v) = s else { return None };
        let (o, _) = self.k.value(v).access()?;
        (self.k.operand(o).mode == Mode::InOut).then_some(o)
    }

    /// The value that a store writes. The rounding of a store makes a cast to bf16 before it unnecessary.
    pub fn stored(&self, v: KValue) -> KValue {
        let x = self.k.value(v).args[0];
        let source = self.k.value(x);
        match source.op {
            KOp::Cast(DType::Bf16) if self.k.value(source.args[0]).dtype == DType::F32 => source.args[0],
            _ => x,
        }
    }

    /// Performs the sinks, all of whose axes are fixed.
    pub fn leaf(&mut self, sinks: &[Sink]) -> Gives<()> {
        self.each_lane_inst(|g, q| g.leaf_of(sinks, q))
    }

    /// Once for each vector in flight. What one of them writes the others do not read: they are other coordinates.
    pub fn each_lane_inst(&mut self, mut f: impl FnMut(&mut Self, u8) -> Gives<()>) -> Gives<()> {
        let before = self.written.clone();
        let mut written = before.clone();
        for q in 0..self.lane_insts() {
            self.written = before.clone();
            f(self, q)?;
            written.append(&mut self.written);
        }
        self.written = written;
        Ok(())
    }

    /// Performs the sinks of one vector in flight. Where memory is both read and written, all of the values are computed
    /// before the first is stored.
    pub fn leaf_of(&mut self, sinks: &[Sink], q: u8) -> Gives<()> {
        let fixed = self.fixed();
        let here: Vec<Sink> = sinks.iter().copied().filter(|s| fixed.contains(self.sink_axes(*s))).collect();
        if here.iter().any(|s| self.overwrites(*s).is_some() || matches!(s, Sink::State(_))) {
            for s in &here {
                for i in self.insts_of_lane(self.sink_axes(*s), q) {
                    for u in self.sink_inputs(*s) {
                        self.eval(u, &i)?;
                    }
                }
            }
        }
        for s in here {
            for i in self.insts_of_lane(self.sink_axes(s), q) {
                self.perform(s, &i)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, s: Sink, inst: &Inst) -> Gives<()> {
        match s {
            Sink::Write(v) => self.write(v, inst),
            Sink::Start(v) => {
                let x = match self.k.value(v).args.get(2) {
                    Some(init) => self.eval(*init, inst)?,
                    None => self.fold_start(v).x,
                };
                self.store_array(v, inst, x)
            }
            Sink::State(v) => {
                let h = self.eval(v, inst)?;
                self.written.insert(Written::State(v));
                self.store_array(v, inst, h)
            }
            Sink::Fold(v) => {
                let Some(x) = self.k.value(v).op.folds() else { return Err(self.nowhere(v)) };
                let acc = Acc { x: self.load_array(v, inst)?, at: None };
                let acc = self.fold_step(v, x, acc, inst)?;
                self.store_array(v, inst, acc.x)
            }
        }
    }

    fn write(&mut self, v: KValue, inst: &Inst) -> Gives<()> {
        let value = self.k.value(v);
        let Some((o, view)) = value.access() else { return Err(self.nowhere(v)) };
        let x = self.eval(self.stored(v), inst)?;
        let mut access = self.access(v, Base::Operand(o), view, inst)?;
        // A loop that was cut where the axis ends does not get there.
        if let Some(x) = self.guarded_by_end(view)
            && !self.at(x)?.masked
        {
            access.guard = self.tail_of(v, view, inst)?;
        }
        let one = self.one_of_team();
        access.guard = self.and(access.guard, one);
        self.e.note(v.0);
        if self.k.operand(o).mode == Mode::InOut {
            self.written.insert(Written::Operand(o));
        }
        match value.op {
            KOp::Accumulate(..) => self.e.accumulate(&access, x),
            _ => self.e.store(&access, x),
        }
        Ok(())
    }

    /// Vectors in flight along the lane axis.
    pub fn lane_insts(&self) -> u8 {
        let at = self.s.lane.and_then(|a| self.at[a.0 as usize].as_ref());
        at.map_or(1, |at| at.offsets.len() as u8)
    }

    /// The instances of these axes with number `q` along the lane axis; none if they lack it and q is not the first.
    pub fn insts_of_lane(&self, axes: KAxes, q: u8) -> Vec<Inst> {
        let slot = self.s.lane.and_then(|a| self.s.slot(a));
        let mut all = self.insts(axes);
        all.retain(|i| slot.map_or(0, |s| i[s]) == q);
        all
    }
}
