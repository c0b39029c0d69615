//! The stages of a mixture of experts in plain loops.
use lolm_ir::plan::{Extent, Gives, Group, Routed, Rows};

pub fn group(g: &Group, memory: &mut [Vec<f64>]) {
    let index = &memory[g.index.0 as usize][g.base as usize..][..g.rows as usize];
    let expert = |r: &usize| if (0.0..g.experts as f64).contains(&index[*r]) { index[*r] as u32 } else { g.experts };
    let mut order: Vec<usize> = (0..g.rows as usize).collect();
    order.sort_by_key(expert);
    let before = |e: u32| order.iter().filter(|r| expert(r) < e).count() as f64;
    let starts: Vec<f64> = (0..=g.experts).map(before).collect();
    memory[g.order.0 as usize] = order.iter().map(|r| *r as f64).collect();
    memory[g.starts.0 as usize] = starts;
}

pub fn product(r: &Routed, at: &[i64], memory: &mut [Vec<f64>]) {
    let range = |e: &Extent| match e {
        Extent::Fixed(n) => 0..*n as usize,
        Extent::Tile { dim, tile, len } => {
            let lo = at[*dim as usize] as usize * *tile as usize;
            lo..(lo + *tile as usize).min(*len as usize)
        }
        Extent::Seen { .. } => panic!("a routed product has lengths of the plan"),
    };
    let moved = |unit: &[i64]| unit.iter().zip(at).map(|(s, i)| s * i).sum::<i64>();
    let line = |x: &Rows, mut row: usize| {
        let mut offset = x.base + moved(&x.unit);
        for (len, stride) in x.dims.iter().rev() {
            offset += (row % *len as usize) as i64 * stride;
            row /= *len as usize;
        }
        offset
    };
    let matrix = |e: usize| r.w.base + moved(&r.w.unit) + e as i64 * r.w.expert;
    let (depth, width) = (range(&r.depth).len() as i64, range(&r.width).len() as i64);
    let starts: Vec<usize> = memory[r.starts.0 as usize].iter().map(|s| *s as usize).collect();
    let order: Vec<usize> = memory[r.order.0 as usize].iter().map(|s| *s as usize).collect();
    let experts = r.experts as usize;
    let put = |buffer: u32, at: i64, x: f64, memory: &mut [Vec<f64>]| memory[buffer as usize][at as usize] = x;
    let of = |memory: &[Vec<f64>], buffer: u32, at: i64| memory[buffer as usize][at as usize];
    match r.gives {
        Gives::Rows => {
            for i in range(&r.taken) {
                let expert = (0..experts).find(|e| (starts[*e]..starts[*e + 1]).contains(&i));
                let (x, y) = (line(&r.x, order[i]), line(&r.y, order[i]));
                for j in 0..width {
                    let term = |k: i64, e: usize| {
                        let w = matrix(e) + k * r.w.row + j * r.w.col;
                        of(memory, r.x.buffer.0, x + k * r.x.col) * of(memory, r.w.buffer.0, w)
                    };
                    let sum = expert.map_or(0.0, |e| (0..depth).map(|k| term(k, e)).sum());
                    put(r.y.buffer.0, y + j * r.y.col, sum, memory);
                }
            }
        }
        Gives::Experts => {
            for (e, k, j) in (0..experts).flat_map(|e| (0..depth).flat_map(move |k| (0..width).map(move |j| (e, k, j))))
            {
                let rows = &order[starts[e]..starts[e + 1]];
                let term = |row: &usize| {
                    let x = of(memory, r.x.buffer.0, line(&r.x, *row) + k * r.x.col);
                    x * of(memory, r.y.buffer.0, line(&r.y, *row) + j * r.y.col)
                };
                let sum = rows.iter().map(term).sum();
                put(r.w.buffer.0, matrix(e) + k * r.w.row + j * r.w.col, sum, memory);
            }
        }
    }
}
