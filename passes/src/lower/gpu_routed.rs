//! The products of a mixture of experts on a GPU: rows are sorted by expert, once for each index, and then each tile of a
//! product has rows of one expert alone.
//!
//! Sorting is counting, in plain mathematics: how many rows of each expert every chunk of rows has, where each chunk's rows
//! of an expert start (`starts`), and how many of the same expert stand before a row in its chunk, which is its place.
//! An index outside of the experts is one more expert, whose matrix is zero. Tiles of so many places are dealt out expert
//! by expert (`Tiles`), the last one of each partly empty; what is empty is neither read nor written.
//!
//! The gradient of the experts is first the product of each tile, and then the sum over the tiles of each expert in order.
//! All sums follow from lengths alone, and a row's product is that of the row by itself.
use super::Lowering;
use super::index::{Index, Map};
use super::storage::Storage;
use super::stream::Stream;
use lolm_ir::axis::AxisId;
use lolm_ir::kernel::{Fold, KAxis, KOp, KValue};
use lolm_ir::op::Binary;
use lolm_ir::plan::{BufferId, Kind, Place};
use lolm_ir::{DType, ValueId};

/// Rows for each expert from which sorting them pays.
const MANY: usize = 8;
/// Rows of a tile, at least and at most, and those whose products a tile of the gradient adds up at least.
const TILE: [usize; 2] = [16, 128];
const SUMMED: usize = 64;
/// Stand for what is no axis of the graph: a chunk of rows, an expert or what follows it, a place, a tile.
const CHUNK: AxisId = AxisId(u8::MAX);
const EXPERT: AxisId = AxisId(u8::MAX - 1);
const PLACE: AxisId = AxisId(u8::MAX - 2);
const TILES: AxisId = AxisId(u8::MAX - 3);

/// The rows of an index in the order of their experts.
#[derive(Clone)]
pub(super) struct Sorted {
    /// The axes that number the rows, each with a table: the coordinate of the row at every place.
    rows: Vec<(AxisId, BufferId)>,
    /// Of each chunk the place of its first row of every expert, of rows of no expert, and the end.
    starts: BufferId,
    count: usize,
    experts: usize,
}

/// Places cut in tiles, each of one expert: that expert, its first place, and where the expert's places end.
#[derive(Clone, Copy)]
struct Tiles {
    expert: BufferId,
    first: BufferId,
    end: BufferId,
    count: usize,
    rows: usize,
}

/// A row of a tile, in a kernel.
struct Row {
    expert: KValue,
    /// It is one, and the tile is not at its end.
    exists: KValue,
    /// With the coordinates of the row, and the tile's.
    map: Map,
}

impl Lowering<'_> {
    /// Each row times the matrix of its expert; an index outside the experts gives zeros.
    pub(super) fn routed_rows(&mut self, v: ValueId, expert: AxisId, over: AxisId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let (count, experts) = (g.elements(g.axes_of(n.args[2])), g.len(expert));
        if count < MANY * experts {
            return self.routed_kernel(v, expert, over);
        }
        let sorted = self.sorted(n.args[2], experts);
        let rows = (count / experts).next_power_of_two().clamp(TILE[0], TILE[1]);
        let tiles = self.expert_tiles(&sorted, rows);
        let out = self.cx.storage_of(v).ok_or("bug: a routed product without storage")?;
        let mut s = Stream::new(&self.cx, None);
        let row = row(&mut s, &sorted, &tiles);
        let free = s.identity(g.axes_of(n.args[1]).without(expert));
        let map = joined(&row.map, &free, g.axes_of(n.args[1]).without(expert).iter());
        let depth = s.axis(over);
        let last = s.int(experts as i64);
        let is_one = s.binary(Binary::Lt, row.expert, last);
        let x = s.value(n.args[0], &map, Some(row.exists));
        let w = s.value(n.args[1], &map.with(expert, Index::value(row.expert)), Some(is_one));
        let y = s.push(KOp::Dot(depth), &[x, w], DType::F32);
        s.store_if(&out, &map, y, Some(row.exists));
        let lowered = s.finish();
        self.launch(format!("routed_dot_{}", g.elements(g.axes_of(v))), Kind::Contract, lowered);
        Ok(())
    }

    /// For each expert the sum over its rows of the products of their elements.
    pub(super) fn routed_sums(&mut self, v: ValueId, expert: AxisId) -> Result<(), String> {
        let g = self.cx.g;
        let n = g.node(v);
        let experts = g.len(expert);
        let sorted = self.sorted(n.args[2], experts);
        let rows = (sorted.count / experts).next_multiple_of(SUMMED).max(SUMMED).min(sorted.count);
        let tiles = self.expert_tiles(&sorted, rows);
        let out = self.cx.storage_of(v).ok_or("bug: a routed gradient without storage")?;
        let matrix: Vec<AxisId> = g.axes_of(v).without(expert).iter().collect();
        let size = matrix.iter().map(|a| g.len(*a)).product::<usize>();
        let sums = self.temporary("sums_of_tiles", tiles.count * size);
        let mut sums = Storage::row_major(g, sums, matrix.iter().copied());
        sums.strides.push((TILES, size as i64));

        let mut s = Stream::new(&self.cx, None);
        let row = row(&mut s, &sorted, &tiles);
        let free = s.identity(g.axes_of(v).without(expert));
        let map = joined(&row.map, &free, matrix.iter().copied());
        let (x, y) = (s.value(n.args[0], &map, Some(row.exists)), s.value(n.args[1], &map, Some(row.exists)));
        let place = row.map.get(PLACE).and_then(Index::as_axis).ok_or("bug: a tile without places")?;
        let d = s.push(KOp::Dot(place), &[x, y], DType::F32);
        s.store(&sums, &map, d);
        let lowered = s.finish();
        self.launch(format!("routed_sums_of_{}x{size}", tiles.count), Kind::Contract, lowered);

        let mut s = Stream::new(&self.cx, None);
        let map = s.identity(g.axes_of(v));
        let me = s.axis(expert);
        let me = s.push(KOp::Index(me), &[], DType::I32);
        let tile = s.k.add_axis("tile", tiles.count);
        let map = map.with(TILES, Index::axis(tile));
        let of = s.load(&column(tiles.expert), &map, None);
        let (first, end) = (s.load(&column(tiles.first), &map, None), s.load(&column(tiles.end), &map, None));
        let (mine, full) = (s.binary(Binary::Eq, of, me), s.binary(Binary::Lt, first, end));
        let mine = s.binary(Binary::And, mine, full);
        let part = s.load(&sums, &map, Some(mine));
        let sum = s.reduce_one(Fold::Sum, tile, part, DType::F32);
        s.store(&out, &map, sum);
        let lowered = s.finish();
        self.launch(format!("routed_sums_{}", g.elements(g.axes_of(v))), Kind::Reduce, lowered);
        Ok(())
    }

    /// The rows of an index sorted, where it is used first.
    fn sorted(&mut self, index: ValueId, experts: usize) -> Sorted {
        if let Some(known) = self.sorted.get(&(index, experts)) {
            return known.clone();
        }
        let g = self.cx.g;
        let all = g.axes_of(index);
        let count = g.elements(all);
        let long: Vec<AxisId> = all.iter().filter(|a| g.len(*a) > 1).collect();
        let cut = cut(&long.iter().map(|a| g.len(*a)).collect::<Vec<_>>(), experts);
        let (chunks, inside) = long.split_at(cut);
        let chunk_count = chunks.iter().map(|a| g.len(*a)).product::<usize>();
        let counts = self.add_buffer("rows_of_chunks", DType::I32, chunk_count * (experts + 1), Place::Arena(0));
        let starts = self.add_buffer("expert_starts", DType::I32, chunk_count * (experts + 2), Place::Arena(0));
        let table = |(i, a): (usize, &AxisId)| {
            (*a, self.add_buffer(format!("rows_by_expert.{i}"), DType::I32, count, Place::Arena(0)))
        };
        let rows = long.iter().enumerate().map(table).collect();
        let sorted = Sorted { rows, starts, count, experts };
        self.count_chunks(index, &sorted, (chunks, inside), counts);
        self.start_chunks(&sorted, chunk_count, counts);
        self.place_rows(index, &sorted, (chunks, inside));
        self.sorted.insert((index, experts), sorted.clone());
        sorted
    }

    /// How many rows of each expert every chunk has.
    fn count_chunks(&mut self, index: ValueId, to: &Sorted, (chunks, inside): Parts, counts: BufferId) {
        let mut s = Stream::new(&self.cx, None);
        let mut map = s.identity(self.cx.g.axes_of(index));
        let expert = s.k.add_axis("expert", to.experts + 1);
        map.set(EXPERT, Index::axis(expert));
        map.set(CHUNK, flat(&mut s, chunks));
        let of = group(&mut s, index, &map, to.experts);
        let me = s.push(KOp::Index(expert), &[], DType::I32);
        let same = s.binary(Binary::Eq, of, me);
        let count = count_where(&mut s, same, inside);
        s.store(&table(counts, to.experts + 1), &map, count);
        let lowered = s.finish();
        self.launch(format!("routed_counts_{}", to.count), Kind::Reduce, lowered);
    }

    /// Where the rows of each chunk start that belong to an expert: after all rows of the experts before it, and after its
    /// own rows of the chunks before.
    fn start_chunks(&mut self, to: &Sorted, chunks: usize, counts: BufferId) {
        let mut s = Stream::new(&self.cx, None);
        let (chunk, expert) = (s.k.add_axis("chunk", chunks), s.k.add_axis("expert", to.experts + 2));
        let (other, of) = (s.k.add_axis("other", chunks), s.k.add_axis("of", to.experts + 1));
        let at = |c: KAxis, e: KAxis| Map::default().with(CHUNK, Index::axis(c)).with(EXPERT, Index::axis(e));
        let n = s.load(&table(counts, to.experts + 1), &at(other, of), None);
        let [c, e, other_c, other_e] = [chunk, expert, other, of].map(|a| s.push(KOp::Index(a), &[], DType::I32));
        let (zero, same) = (s.int(0), s.binary(Binary::Eq, other_e, e));
        let (before, earlier) = (s.binary(Binary::Lt, other_e, e), s.binary(Binary::Lt, other_c, c));
        let mine = s.select(earlier, n, zero);
        let mine = s.select(same, mine, zero);
        let n = s.select(before, n, mine);
        let n = s.reduce_one(Fold::Sum, of, n, DType::I32);
        let n = s.reduce_one(Fold::Sum, other, n, DType::I32);
        s.store(&table(to.starts, to.experts + 2), &at(chunk, expert), n);
        let lowered = s.finish();
        self.launch(format!("routed_starts_{chunks}x{}", to.experts), Kind::Reduce, lowered);
    }

    /// Writes each row's coordinates to its place.
    fn place_rows(&mut self, index: ValueId, to: &Sorted, (chunks, inside): Parts) {
        let mut s = Stream::new(&self.cx, None);
        let mut map = s.identity(self.cx.g.axes_of(index));
        map.set(CHUNK, flat(&mut s, chunks));
        let me = group(&mut s, index, &map, to.experts);
        let mine = flat(&mut s, inside);
        // The same rows again, as those before this one.
        let again: Vec<KAxis> =
            inside.iter().map(|a| s.k.add_axis(format!("before_{}", a.0), s.graph().len(*a))).collect();
        let mut other = map.clone();
        for (a, k) in inside.iter().zip(&again) {
            other.set(*a, Index::axis(*k));
        }
        let of = group(&mut s, index, &other, to.experts);
        let theirs = flat_over(&s, inside, &again);
        let (mine, theirs) = (s.index_value(&mine), s.index_value(&theirs));
        let (same, before) = (s.binary(Binary::Eq, of, me), s.binary(Binary::Lt, theirs, mine));
        let both = s.binary(Binary::And, same, before);
        let mut rank = one_where(&mut s, both);
        for k in again.iter().rev() {
            rank = s.reduce_one(Fold::Sum, *k, rank, DType::I32);
        }
        let start = s.load(&table(to.starts, to.experts + 2), &map.with(EXPERT, Index::value(me)), None);
        let place = s.binary(Binary::Add, start, rank);
        for (a, table) in &to.rows {
            let k = s.axis(*a);
            let x = s.push(KOp::Index(k), &[], DType::I32);
            s.store(&places(*table), &Map::default().with(PLACE, Index::value(place)), x);
        }
        let lowered = s.finish();
        self.launch(format!("routed_places_{}", to.count), Kind::Scatter, lowered);
    }

    /// The places of all experts cut in tiles of so many.
    fn expert_tiles(&mut self, of: &Sorted, rows: usize) -> Tiles {
        let count = (of.count / rows + of.experts + 1).min(of.count);
        let [expert, first, end] =
            ["tile_expert", "tile_first", "tile_end"].map(|n| self.add_buffer(n, DType::I32, count, Place::Arena(0)));
        let tiles = Tiles { expert, first, end, count, rows };
        let mut s = Stream::new(&self.cx, None);
        let tile = s.k.add_axis("tile", count);
        let (expert, of_e) = (s.k.add_axis("expert", of.experts + 1), s.k.add_axis("of", of.experts + 1));
        let sizes = |s: &mut Stream, e: KAxis| {
            let at = |i: Index| Map::default().with(EXPERT, i);
            let start = s.load(&table(of.starts, 0), &at(Index::axis(e)), None);
            let end = s.load(&table(of.starts, 0), &at(Index::axis(e).plus(1)), None);
            let (n, more, rows) = (s.binary(Binary::Sub, end, start), s.int(rows as i64 - 1), s.int(rows as i64));
            let n = s.binary(Binary::Add, n, more);
            (start, end, s.binary(Binary::Div, n, rows))
        };
        let (start, end, mine) = sizes(&mut s, expert);
        let (_, _, theirs) = sizes(&mut s, of_e);
        let [t, e, other] = [tile, expert, of_e].map(|a| s.push(KOp::Index(a), &[], DType::I32));
        let (zero, earlier) = (s.int(0), s.binary(Binary::Lt, other, e));
        let before = s.select(earlier, theirs, zero);
        let before = s.reduce_one(Fold::Sum, of_e, before, DType::I32);
        let next = s.binary(Binary::Add, before, mine);
        let (from, to) = (s.binary(Binary::Le, before, t), s.binary(Binary::Lt, t, next));
        let here = s.binary(Binary::And, from, to);
        let (number, each) = (s.binary(Binary::Sub, t, before), s.int(rows as i64));
        let skipped = s.binary(Binary::Mul, number, each);
        let first = s.binary(Binary::Add, start, skipped);
        let map = Map::default().with(TILES, Index::axis(tile));
        for (x, to) in [(e, tiles.expert), (first, tiles.first), (end, tiles.end)] {
            let x = s.select(here, x, zero);
            let x = s.reduce_one(Fold::Sum, expert, x, DType::I32);
            s.store(&column(to), &map, x);
        }
        let lowered = s.finish();
        self.launch(format!("routed_tiles_{count}_of_{rows}"), Kind::Reduce, lowered);
        tiles
    }
}

/// The axes of rows that number chunks, and those inside of one.
type Parts<'a> = (&'a [AxisId], &'a [AxisId]);

/// How many of the axes, the outermost, number chunks: what makes counting over chunks and inside of them cheap together.
fn cut(lens: &[usize], experts: usize) -> usize {
    let product = |lens: &[usize]| lens.iter().product::<usize>();
    let cost = |at: &usize| {
        let (chunks, inside) = (product(&lens[..*at]), product(&lens[*at..]));
        let over = chunks.saturating_mul(experts + 2);
        over.saturating_mul(over).saturating_add(chunks.saturating_mul(inside).saturating_mul(inside))
    };
    (0..lens.len().max(1)).min_by_key(cost).unwrap_or(0)
}

/// A row of a tile: axes for tiles and places, and what lies there.
fn row(s: &mut Stream, of: &Sorted, tiles: &Tiles) -> Row {
    let (tile, place) = (s.k.add_axis("tile", tiles.count), s.k.add_axis("place", tiles.rows));
    let mut map = Map::default().with(TILES, Index::axis(tile)).with(PLACE, Index::axis(place));
    let [expert, first, end] = [tiles.expert, tiles.first, tiles.end].map(|b| s.load(&column(b), &map, None));
    let at = s.push(KOp::Index(place), &[], DType::I32);
    let at = s.binary(Binary::Add, first, at);
    let exists = s.binary(Binary::Lt, at, end);
    for (a, b) in &of.rows {
        let here = Map::default().with(PLACE, Index::value(at));
        let x = s.load(&places(*b), &here, Some(exists));
        map.set(*a, Index::value(x));
    }
    Row { expert, exists, map }
}

/// The first map with the indices that the other has for these axes.
fn joined(to: &Map, from: &Map, axes: impl Iterator<Item = AxisId>) -> Map {
    axes.fold(to.clone(), |m, a| from.get(a).map_or(m.clone(), |i| m.with(a, i.clone())))
}

/// The expert of a row; what is none is one more.
fn group(s: &mut Stream, index: ValueId, map: &Map, experts: usize) -> KValue {
    let x = s.value(index, map, None);
    let (zero, none) = (s.int(0), s.int(experts as i64));
    let (low, high) = (s.binary(Binary::Le, zero, x), s.binary(Binary::Lt, x, none));
    let one = s.binary(Binary::And, low, high);
    s.select(one, x, none)
}

/// An index over several axes, the last one fastest.
fn flat(s: &mut Stream, axes: &[AxisId]) -> Index {
    let over: Vec<KAxis> = axes.iter().map(|a| s.axis(*a)).collect();
    flat_over(s, axes, &over)
}

fn flat_over(s: &Stream, axes: &[AxisId], over: &[KAxis]) -> Index {
    let mut out = Index::default();
    let mut stride = 1;
    for (a, k) in axes.iter().zip(over).rev() {
        out.add_scaled(&Index::axis(*k), stride);
        stride *= s.graph().len(*a) as i64;
    }
    out
}

fn one_where(s: &mut Stream, holds: KValue) -> KValue {
    let (one, zero) = (s.int(1), s.int(0));
    s.select(holds, one, zero)
}

/// At how many coordinates of these axes something holds.
fn count_where(s: &mut Stream, holds: KValue, axes: &[AxisId]) -> KValue {
    let one = one_where(s, holds);
    axes.iter().rev().fold(one, |n, a| {
        let k = s.axis(*a);
        s.reduce_one(Fold::Sum, k, n, DType::I32)
    })
}

/// A table of numbers of experts for each chunk.
fn table(buffer: BufferId, pitch: usize) -> Storage {
    Storage { buffer, strides: vec![(CHUNK, pitch as i64), (EXPERT, 1)], base: 0 }
}
fn places(buffer: BufferId) -> Storage {
    Storage { buffer, strides: vec![(PLACE, 1)], base: 0 }
}
fn column(buffer: BufferId) -> Storage {
    Storage { buffer, strides: vec![(TILES, 1)], base: 0 }
}
