//! A layered layout (Sugiyama, Tagawa, Toda 1981): ranks by longest path, order within a rank by the mean of the
//! neighbours, places as close to the neighbours as the boxes allow.
//!
//! Long arrows get a place in every rank that they cross, up to a length: beyond it they are drawn straight through, as
//! the arrows from a forward pass to its backward pass would otherwise fill the picture.

/// Where the boxes go, and where arrows bend.
pub struct Layout {
    /// Centre of each box.
    pub places: Vec<(f64, f64)>,
    /// Points that each arrow passes, its ends excluded.
    pub bends: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

const LONGEST: usize = 12;
const SWEEPS: usize = 8;
const GAP: f64 = 16.0;
/// Room that an arrow takes when it passes a rank.
const PASSAGE: f64 = 6.0;

/// Lays out boxes of these widths; `edges` go from earlier boxes to later ones.
pub fn layout(widths: &[f64], edges: &[(usize, usize)], rank_height: f64) -> Layout {
    let ranks = ranks(widths.len(), edges);
    let mut g = Layers::new(widths, &ranks, edges);
    g.order();
    g.place();
    let bends = g.chains.iter().map(|c| c.iter().map(|n| (g.x[*n], y(g.rank[*n], rank_height))).collect()).collect();
    let places: Vec<(f64, f64)> = (0..widths.len()).map(|i| (g.x[i], y(g.rank[i], rank_height))).collect();
    let right = (0..g.x.len()).map(|i| g.x[i] + g.width[i] / 2.0).fold(0.0, f64::max);
    Layout { places, bends, width: right + GAP, height: g.rows.len() as f64 * rank_height }
}

fn y(rank: usize, height: f64) -> f64 {
    (rank as f64 + 0.5) * height
}

/// The longest path from a source; then a source, with what is only a view of it, sinks to just above its first reader.
fn ranks(n: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let (mut up, mut down) = (vec![vec![]; n], vec![vec![]; n]);
    for (from, to) in edges {
        up[*to].push(*from);
        down[*from].push(*to);
    }
    // Boxes are in topological order, so one pass in each direction is enough.
    let mut rank: Vec<usize> = vec![0; n];
    for i in 0..n {
        rank[i] = up[i].iter().map(|f| rank[*f] + 1).max().unwrap_or(0);
    }
    // A chain of single operands down from a source, such as a renamed parameter, stands where it is read.
    let mut view = vec![false; n];
    for i in 0..n {
        view[i] = up[i].is_empty() || up[i].len() == 1 && view[up[i][0]];
    }
    for i in (0..n).rev().filter(|i| view[*i]) {
        if let Some(reader) = down[i].iter().map(|r| rank[*r]).min() {
            rank[i] = reader - 1;
        }
    }
    rank
}

/// Boxes and passages in rows.
struct Layers {
    width: Vec<f64>,
    rank: Vec<usize>,
    rows: Vec<Vec<usize>>,
    up: Vec<Vec<usize>>,
    down: Vec<Vec<usize>>,
    /// The passages of each edge.
    chains: Vec<Vec<usize>>,
    x: Vec<f64>,
}

impl Layers {
    fn new(widths: &[f64], ranks: &[usize], edges: &[(usize, usize)]) -> Self {
        let mut g = Layers {
            width: widths.to_vec(),
            rank: ranks.to_vec(),
            rows: vec![vec![]; ranks.iter().max().map_or(0, |r| r + 1)],
            up: vec![vec![]; widths.len()],
            down: vec![vec![]; widths.len()],
            chains: vec![],
            x: vec![],
        };
        for (i, r) in ranks.iter().enumerate() {
            g.rows[*r].push(i);
        }
        for (from, to) in edges {
            let chain = g.passages(ranks[*from] + 1, ranks[*to]);
            if chain.is_empty() && ranks[*to] > ranks[*from] + 1 {
                g.chains.push(chain);
                continue;
            }
            let path: Vec<usize> = std::iter::once(*from).chain(chain.iter().copied()).chain([*to]).collect();
            for pair in path.windows(2) {
                g.down[pair[0]].push(pair[1]);
                g.up[pair[1]].push(pair[0]);
            }
            g.chains.push(chain);
        }
        g
    }

    /// New passages for the ranks `from..to`, or none if that is too far.
    fn passages(&mut self, from: usize, to: usize) -> Vec<usize> {
        if to <= from || to - from > LONGEST {
            return vec![];
        }
        let mut out = vec![];
        for r in from..to {
            let id = self.width.len();
            self.width.push(PASSAGE);
            self.rank.push(r);
            self.up.push(vec![]);
            self.down.push(vec![]);
            self.rows[r].push(id);
            out.push(id);
        }
        out
    }

    /// Sorts each row by the mean position of its neighbours, downwards and upwards in turn.
    fn order(&mut self) {
        let mut at = vec![0.0; self.width.len()];
        let number = |row: &[usize], at: &mut Vec<f64>| {
            let n = row.len() as f64;
            row.iter().enumerate().for_each(|(i, v)| at[*v] = (i as f64 + 0.5) / n);
        };
        self.rows.iter().for_each(|r| number(r, &mut at));
        for sweep in 0..SWEEPS {
            let downwards = sweep % 2 == 0;
            for step in 0..self.rows.len() {
                let r = if downwards { step } else { self.rows.len() - 1 - step };
                let near = if downwards { &self.up } else { &self.down };
                let mut row = std::mem::take(&mut self.rows[r]);
                let key = |v: &usize| mean(&near[*v], &at).unwrap_or(at[*v]);
                row.sort_by(|a, b| key(a).total_cmp(&key(b)));
                number(&row, &mut at);
                self.rows[r] = row;
            }
        }
    }

    /// Moves boxes towards their neighbours without changing the order.
    fn place(&mut self) {
        self.x = vec![0.0; self.width.len()];
        for r in 0..self.rows.len() {
            let mut left = GAP;
            for v in &self.rows[r] {
                self.x[*v] = left + self.width[*v] / 2.0;
                left += self.width[*v] + GAP;
            }
        }
        for sweep in 0..2 * SWEEPS {
            let downwards = sweep % 2 == 0;
            for step in 0..self.rows.len() {
                let r = if downwards { step } else { self.rows.len() - 1 - step };
                let near = if downwards { &self.up } else { &self.down };
                let row = &self.rows[r];
                let wish: Vec<f64> = row.iter().map(|v| mean(&near[*v], &self.x).unwrap_or(self.x[*v])).collect();
                let widths: Vec<f64> = row.iter().map(|v| self.width[*v]).collect();
                for (v, x) in row.iter().zip(settle(&wish, &widths)) {
                    self.x[*v] = x;
                }
            }
        }
        let left = (0..self.x.len()).map(|i| self.x[i] - self.width[i] / 2.0).fold(f64::INFINITY, f64::min);
        self.x.iter_mut().for_each(|x| *x += GAP - left);
    }
}

fn mean(near: &[usize], at: &[f64]) -> Option<f64> {
    (!near.is_empty()).then(|| near.iter().map(|n| at[*n]).sum::<f64>() / near.len() as f64)
}

/// Places in the given order that are as near to the wishes as the widths allow (least squares: neighbours that would
/// overlap become one block at the mean of their wishes).
fn settle(wish: &[f64], widths: &[f64]) -> Vec<f64> {
    // A block: its members' count, the sum of (wish - offset), and its width so far.
    let mut blocks: Vec<(usize, f64, f64)> = vec![];
    for (w, width) in wish.iter().zip(widths) {
        let mut new = (1, w - (width + GAP) / 2.0, width + GAP);
        while let Some((n, sum, size)) = blocks.last().copied() {
            if sum / n as f64 + size <= new.1 / new.0 as f64 {
                break;
            }
            blocks.pop();
            new = (n + new.0, sum + new.1 - new.0 as f64 * size, size + new.2);
        }
        blocks.push(new);
    }
    let (mut out, mut i) = (vec![], 0);
    for (n, sum, _) in blocks {
        let mut left = sum / n as f64;
        for width in &widths[i..i + n] {
            out.push(left + (width + GAP) / 2.0);
            left += width + GAP;
        }
        i += n;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_a_row_do_not_overlap_and_arrows_go_down() {
        let widths = [40.0, 80.0, 30.0, 50.0, 20.0, 60.0];
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 5), (4, 5)];
        let l = layout(&widths, &edges, 50.0);
        for (a, b) in edges {
            assert!(l.places[a].1 < l.places[b].1, "{a} {b}");
        }
        for a in 0..widths.len() {
            for b in 0..a {
                let apart = (l.places[a].0 - l.places[b].0).abs();
                let same_row = l.places[a].1 == l.places[b].1;
                assert!(!same_row || apart >= (widths[a] + widths[b]) / 2.0, "{a} {b}");
            }
        }
        // A leaf stands just above its reader, and a long arrow bends around what lies between.
        assert_eq!(l.places[4].1, l.places[3].1);
        assert_eq!(l.bends[4].len(), 1);
    }

    #[test]
    fn boxes_settle_where_they_wish() {
        assert_eq!(settle(&[100.0, 300.0], &[20.0, 20.0]), [100.0, 300.0]);
        let tight = settle(&[100.0, 100.0], &[20.0, 20.0]);
        assert_eq!(tight[1] - tight[0], 20.0 + GAP);
        assert_eq!((tight[0] + tight[1]) / 2.0, 100.0);
    }

    #[test]
    fn nothing_is_laid_out_to_nothing() {
        assert_eq!(layout(&[], &[], 10.0).places.len(), 0);
    }
}
