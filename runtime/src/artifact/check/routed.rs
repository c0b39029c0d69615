//! Checks the stages of a mixture of experts: whatever rows and starts stand in memory, nothing outside a buffer is
//! touched, and threads have tiles of their own.
use super::{Program, Space, strides, within};
use crate::artifact::bounds::{self, Reach};
use lolm_ir::DType;
use lolm_ir::plan::{Buffer, BufferId, Extent, Gives, Group, Matrices, Matrix, Place, Routed, Rows};

type Check = Result<(), String>;

impl Program<'_> {
    pub(super) fn group(&self, g: &Group, units: u64) -> Check {
        if units != 1 {
            return Err(format!("{units} units would group the same rows"));
        }
        self.counts(g.rows, g.experts)?;
        let index = self.integers(g.index)?;
        within(Some((g.base as i128, g.base as i128 + g.rows as i128 - 1)), index.len as i128, index)?;
        self.grouping(g.rows, g.experts, g.order, g.starts)?;
        [g.order, g.starts].into_iter().try_for_each(|b| self.written(b))
    }

    pub(super) fn routed(&self, r: &Routed, space: Space) -> Check {
        self.counts(r.rows, r.experts)?;
        self.grouping(r.rows, r.experts, r.order, r.starts)?;
        for e in [&r.taken, &r.depth, &r.width] {
            match e {
                Extent::Seen { .. } => return Err(format!("{e:?} in a routed product")),
                Extent::Fixed(_) | Extent::Tile { .. } => self.extent(e, space)?,
            }
        }
        let most = |e: &Extent| match e {
            Extent::Fixed(n) => *n,
            Extent::Tile { tile, .. } => *tile,
            Extent::Seen { len, .. } => *len,
        };
        let whole = match r.taken {
            Extent::Tile { len, .. } => len,
            Extent::Fixed(n) => n,
            Extent::Seen { .. } => 0,
        };
        if whole != r.rows || (r.gives == Gives::Experts && r.taken != Extent::Fixed(r.rows)) {
            return Err(format!("{:?} of {} rows are taken", r.taken, r.rows));
        }
        self.rows(&r.x, r.rows, &r.depth, space).map_err(|what| format!("rows x: {what}"))?;
        self.rows(&r.y, r.rows, &r.width, space).map_err(|what| format!("rows y: {what}"))?;
        self.matrices(&r.w, r, space).map_err(|what| format!("matrices: {what}"))?;
        self.tile(r.tiles[0], r.block, most(&r.depth))?;
        self.tile(r.tiles[1], r.block, r.columns(most(&r.width)))?;
        self.written(if r.gives == Gives::Rows { r.y.buffer } else { r.w.buffer })
    }

    fn counts(&self, rows: u32, experts: u32) -> Check {
        match rows == 0 || rows > i32::MAX as u32 || experts >= i32::MAX as u32 {
            true => Err(format!("{rows} rows of {experts} experts")),
            false => Ok(()),
        }
    }

    fn integers(&self, id: BufferId) -> Result<&Buffer, String> {
        let b = self.find(id)?;
        match b.dtype {
            DType::I32 => Ok(b),
            other => Err(format!("buffer `{}` is {other}, expected i32", b.name)),
        }
    }

    fn grouping(&self, rows: u32, experts: u32, order: BufferId, starts: BufferId) -> Check {
        for (id, len) in [(order, rows as u64), (starts, experts as u64 + 1)] {
            let b = self.integers(id)?;
            if b.len < len {
                return Err(format!("buffer `{}` has {} elements, expected {len}", b.name, b.len));
            }
        }
        Ok(())
    }

    fn written(&self, id: BufferId) -> Check {
        let b = self.find(id)?;
        match b.place {
            Place::Table(_) | Place::Input(_) => Err(format!("`{}` is a table or an input", b.name)),
            Place::Arena(_) | Place::Scratch(_) | Place::Param(_) | Place::State(_) | Place::Output(_) => Ok(()),
        }
    }

    fn floats(&self, id: BufferId) -> Result<&Buffer, String> {
        let b = self.find(id)?;
        match b.dtype {
            DType::F32 => Ok(b),
            other => Err(format!("buffer `{}` is {other}, expected f32", b.name)),
        }
    }

    fn rows(&self, r: &Rows, rows: u32, cols: &Extent, space: Space) -> Check {
        let b = self.floats(r.buffer)?;
        strides(&r.unit, space)?;
        let count = r.dims.iter().fold(1u128, |n, d| n.saturating_mul(d.0 as u128));
        if count != rows as u128 {
            return Err(format!("{:?} are {count} rows, expected {rows}", r.dims));
        }
        let line = Matrix { buffer: r.buffer, base: r.base, unit: r.unit.clone(), iter: 0, row: 0, col: r.col };
        let reach = bounds::matrix(&line, &Extent::Fixed(1), cols, space);
        within(r.dims.iter().fold(reach, |reach, (len, by)| spread(reach, *len, *by)), b.len as i128, b)
    }

    fn matrices(&self, m: &Matrices, r: &Routed, space: Space) -> Check {
        let b = self.find(m.buffer)?;
        // The weights of a product may be bf16, as those of a `Gemm` may; sums are f32.
        if b.dtype != DType::F32 && (b.dtype != DType::Bf16 || r.gives == Gives::Experts) {
            return Err(format!("buffer `{}` is {}, expected f32", b.name, b.dtype));
        }
        strides(&m.unit, space)?;
        let one = Matrix { buffer: m.buffer, base: m.base, unit: m.unit.clone(), iter: 0, row: m.row, col: m.col };
        let reach = bounds::matrix(&one, &r.depth, &r.width, space);
        within(spread(reach, r.experts, m.expert), b.len as i128, b)
    }

    fn tile(&self, id: BufferId, block: u32, columns: u32) -> Check {
        let b = self.floats(id)?;
        let need = block as u64 * columns as u64;
        match matches!(b.place, Place::Scratch(_)) && block > 0 && b.len >= need {
            true => Ok(()),
            false => {
                Err(format!("tile `{}` has {} elements at {:?}, expected {need} of scratch", b.name, b.len, b.place))
            }
        }
    }
}

/// The reach of `len` copies, `by` elements apart.
fn spread(reach: Reach, len: u32, by: i64) -> Reach {
    let (lo, hi) = reach.filter(|_| len > 0)?;
    let span = by as i128 * (len as i128 - 1);
    Some((lo + span.min(0), hi + span.max(0)))
}

#[cfg(test)]
mod tests;
