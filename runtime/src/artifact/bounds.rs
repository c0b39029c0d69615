//! Which elements of a buffer an access of a plan can reach: least and greatest, over all units and iterations.
use lolm_ir::plan::{Access, Extent, Matrix};

/// Least and greatest element, or None if nothing is reached.
pub type Reach = Option<(i128, i128)>;

/// Where a launch runs: the grid and the number of iterations.
#[derive(Clone, Copy)]
pub struct Space<'a> {
    pub grid: &'a [u32],
    pub times: u32,
}

/// The elements that the pointers of an access point at, before it is moved back by `rebase`.
pub fn access(a: &Access, s: Space) -> Reach {
    if s.times == 0 || s.grid.contains(&0) {
        return None;
    }
    let mut reach = (a.base as i128, a.base as i128);
    add(&mut reach, a.iter as i128 * (s.times as i128 - 1));
    for (stride, len) in a.unit.iter().zip(s.grid) {
        add(&mut reach, *stride as i128 * (*len as i128 - 1));
    }
    Some(reach)
}

/// The elements of a matrix of these extents. Extents that follow a grid dimension shrink where its index grows, so each
/// dimension is looked at where its terms can turn: at its ends and where a tile is cut.
pub fn matrix(m: &Matrix, rows: &Extent, cols: &Extent, s: Space) -> Reach {
    if s.times == 0 || s.grid.contains(&0) {
        return None;
    }
    let mut reach = (m.base as i128, m.base as i128);
    add(&mut reach, m.iter as i128 * (s.times as i128 - 1));
    let sides = [(rows, m.row as i128), (cols, m.col as i128)];
    for (extent, stride) in sides {
        if tiled(extent).is_none() {
            let most = most(extent, 0);
            if most == 0 {
                return None;
            }
            add(&mut reach, stride * (most - 1));
        }
    }
    for (d, len) in s.grid.iter().enumerate() {
        let unit = m.unit.get(d).copied().unwrap_or(0) as i128;
        let here: Vec<(&Extent, i128)> = sides.into_iter().filter(|(e, _)| tiled(e) == Some(d)).collect();
        let at = |i: i128| {
            let mut r = (unit * i, unit * i);
            for (extent, stride) in &here {
                match most(extent, i) {
                    0 => return None,
                    n => add(&mut r, stride * (n - 1)),
                }
            }
            Some(r)
        };
        let turns = here.iter().flat_map(|(e, _)| turns(e)).chain([0, 1, *len as i128 - 2, *len as i128 - 1]);
        let reached = turns.filter(|i| (0..*len as i128).contains(i)).filter_map(at);
        let (lo, hi) = reached.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        reach = (reach.0 + lo, reach.1 + hi);
    }
    Some(reach)
}

fn add(r: &mut (i128, i128), span: i128) {
    r.0 += span.min(0);
    r.1 += span.max(0);
}

/// The grid dimension that an extent follows.
fn tiled(e: &Extent) -> Option<usize> {
    match e {
        Extent::Fixed(_) | Extent::Seen { .. } => None,
        Extent::Tile { dim, .. } => Some(*dim as usize),
    }
}

/// The greatest value of an extent where the dimension it follows has this index.
fn most(e: &Extent, i: i128) -> i128 {
    match e {
        Extent::Fixed(n) => *n as i128,
        Extent::Tile { tile, len, .. } => (*len as i128 - i * *tile as i128).clamp(0, *tile as i128),
        Extent::Seen { len, .. } => *len as i128,
    }
}

/// Indices about which an extent stops being a whole tile.
fn turns(e: &Extent) -> Vec<i128> {
    match e {
        Extent::Fixed(_) | Extent::Seen { .. } => vec![],
        Extent::Tile { tile, len, .. } => {
            let cut = *len as i128 / (*tile as i128).max(1);
            vec![cut - 1, cut, cut + 1]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lolm_ir::plan::BufferId;

    fn of(unit: Vec<i64>, row: i64, col: i64) -> Matrix {
        Matrix { buffer: BufferId(0), base: 5, unit, iter: 100, row, col }
    }

    #[test]
    fn the_last_tile_is_shorter() {
        let (rows, cols) = (Extent::Tile { dim: 0, tile: 4, len: 10 }, Extent::Fixed(8));
        let s = Space { grid: &[3], times: 2 };
        // Rows of 8 elements: the last row is 9, the last element 9·8 + 7.
        assert_eq!(matrix(&of(vec![32], 8, 1), &rows, &cols, s), Some((5, 5 + 100 + 79)));
        // Units beyond the tensor reach nothing.
        let s = Space { grid: &[7], times: 1 };
        assert_eq!(matrix(&of(vec![32], 8, 1), &rows, &cols, s), Some((5, 5 + 79)));
    }

    #[test]
    fn negative_strides_reach_back() {
        let n = Extent::Fixed(3);
        let s = Space { grid: &[], times: 1 };
        assert_eq!(matrix(&of(vec![], -2, 1), &n, &n, s), Some((5 - 4, 5 + 2)));
    }

    #[test]
    fn brute_force_agrees() {
        let rows = Extent::Tile { dim: 0, tile: 3, len: 8 };
        let cols = Extent::Tile { dim: 1, tile: 5, len: 6 };
        for (unit, row, col) in [(vec![3, 50], 1, 10), (vec![-9, 40], -3, 8), (vec![24, -5], 8, -1)] {
            let m = of(unit.clone(), row, col);
            let mut all = vec![];
            for i in 0..3i64 {
                for j in 0..2i64 {
                    for r in 0..(8 - 3 * i).min(3) {
                        for c in 0..(6 - 5 * j).min(5) {
                            all.push((5 + unit[0] * i + unit[1] * j + row * r + col * c) as i128);
                        }
                    }
                }
            }
            let want = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
            assert_eq!(matrix(&m, &rows, &cols, Space { grid: &[3, 2], times: 1 }), Some(want));
        }
    }
}
