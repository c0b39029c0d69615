//! The text of the stages of a mixture of experts:
//!
//! ```text
//! group 8 rows by 3 experts: @order, @starts = @index
//! routed rows 8 by 3 of @order, @starts, taken=8, depth=4, width=5:
//!     @y[width] by [4*10, 2*5] = @x[depth] by [8*4] * @w[20*expert + 5*depth + width] in 8 of @x.tile, @y.tile
//! ```
//!
//! The left side is what is computed: rows of y, or the matrices w (`@w[…] = @x[…] by […] * @y[…] by […]`).
use super::parse::Parser;
use super::print::{Printer, Sum};
use crate::plan::{Gives, Group, Matrices, Routed, Rows};
use crate::text::cursor::{Result, bracketed};

impl Printer<'_> {
    pub(super) fn group(&self, g: &Group) -> String {
        let [order, starts] = [g.order, g.starts].map(|b| self.element(b, Sum::default()));
        let index = self.element(g.index, Sum::new(g.base, &[]));
        format!("group {} rows by {} experts: {order}, {starts} = {index}", g.rows, g.experts)
    }

    pub(super) fn routed(&self, r: &Routed) -> String {
        let [order, starts, a, b] =
            [r.order, r.starts, r.tiles[0], r.tiles[1]].map(|b| self.element(b, Sum::default()));
        let lengths = [("taken", &r.taken), ("depth", &r.depth), ("width", &r.width)];
        let lengths = lengths.map(|(name, e)| format!("{name}={}", self.extent(e))).join(", ");
        let (x, w, y) = (self.rows(&r.x, "depth"), self.matrices(&r.w), self.rows(&r.y, "width"));
        let product = match r.gives {
            Gives::Rows => format!("{y} = {x} * {w}"),
            Gives::Experts => format!("{w} = {x} * {y}"),
        };
        let (rows, experts, block) = (r.rows, r.experts, r.block);
        let gives = match r.gives {
            Gives::Rows => "rows",
            Gives::Experts => "experts",
        };
        let head = format!("routed {gives} {rows} by {experts} of {order}, {starts}, {lengths}");
        format!("{head}: {product} in {block} of {a}, {b}")
    }

    fn rows(&self, r: &Rows, col: &str) -> String {
        let mut at = Sum::new(r.base, &r.unit);
        at.term(r.col, col, false);
        let dims: Vec<String> = r.dims.iter().map(|(len, stride)| format!("{len}*{stride}")).collect();
        format!("{} by [{}]", self.element(r.buffer, at), dims.join(", "))
    }

    fn matrices(&self, m: &Matrices) -> String {
        let mut at = Sum::new(m.base, &m.unit);
        at.term(m.expert, "expert", false);
        at.term(m.row, "depth", false);
        at.term(m.col, "width", false);
        self.element(m.buffer, at)
    }
}

impl Parser {
    pub(super) fn group(&mut self) -> Result<Group> {
        let rows = self.integer("a number of rows")?;
        self.keyword("rows")?;
        self.keyword("by")?;
        let experts = self.integer("a number of experts")?;
        self.keyword("experts")?;
        self.mark(':')?;
        let order = self.element(&[])?.0;
        self.mark(',')?;
        let starts = self.element(&[])?.0;
        self.mark('=')?;
        let (index, at) = self.element(&[])?;
        Ok(Group { rows, experts, index, base: at.base, order, starts })
    }

    pub(super) fn routed(&mut self) -> Result<Routed> {
        let gives = match self.one_of("what is computed", &["rows", "experts"])?.as_str() {
            "rows" => Gives::Rows,
            _ => Gives::Experts,
        };
        let rows = self.integer("a number of rows")?;
        self.keyword("by")?;
        let experts = self.integer("a number of experts")?;
        self.keyword("of")?;
        let order = self.element(&[])?.0;
        self.mark(',')?;
        let starts = self.element(&[])?.0;
        self.mark(',')?;
        let taken = self.extent("taken")?;
        self.mark(',')?;
        let depth = self.extent("depth")?;
        self.mark(',')?;
        let width = self.extent("width")?;
        self.mark(':')?;
        let (x, w, y) = match gives {
            Gives::Rows => {
                let y = self.rows("width")?;
                self.mark('=')?;
                let x = self.rows("depth")?;
                self.mark('*')?;
                (x, self.matrices()?, y)
            }
            Gives::Experts => {
                let w = self.matrices()?;
                self.mark('=')?;
                let x = self.rows("depth")?;
                self.mark('*')?;
                (x, w, self.rows("width")?)
            }
        };
        self.keyword("in")?;
        let block = self.integer("a number of rows")?;
        self.keyword("of")?;
        let first = self.element(&[])?.0;
        self.mark(',')?;
        let tiles = [first, self.element(&[])?.0];
        Ok(Routed { gives, rows, experts, order, starts, taken, depth, width, x, w, y, block, tiles })
    }

    fn rows(&mut self, col: &str) -> Result<Rows> {
        let (buffer, mut at) = self.element(&[col])?;
        self.keyword("by")?;
        let dims = bracketed(self, |p| {
            let len = p.integer("the length of a dimension")?;
            p.mark('*')?;
            Ok((len, p.integer("its stride")?))
        })?;
        let col = at.take(col);
        Ok(Rows { buffer, base: at.base, unit: at.unit, dims, col })
    }

    fn matrices(&mut self) -> Result<Matrices> {
        let (buffer, mut at) = self.element(&["expert", "depth", "width"])?;
        let (expert, row, col) = (at.take("expert"), at.take("depth"), at.take("width"));
        Ok(Matrices { buffer, base: at.base, unit: at.unit, expert, row, col })
    }
}
