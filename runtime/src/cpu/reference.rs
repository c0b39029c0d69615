//! Products by the `gemm` crate, for comparisons: nothing that runs a model uses them.
use gemm::Parallelism;

/// A product with its own memory: A and C row-major, B row-major or column-major.
pub struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>, // [m, k]
    b: Vec<f32>, // [k, n] or [n, k]
    by_rows: bool,
    c: Vec<f32>, // [m, n]
}

impl Product {
    pub fn new(m: usize, n: usize, k: usize, by_rows: bool) -> Product {
        Product { m, n, k, a: vec![0.5; m * k], b: vec![0.25; k * n], by_rows, c: vec![0.0; m * n] }
    }

    /// Computes C on this many threads and gives it.
    pub fn run(&mut self, threads: usize) -> &[f32] {
        let (m, n, k) = (self.m, self.n, self.k);
        let (row, col) = if self.by_rows { (n as isize, 1) } else { (1, k as isize) };
        let threads = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
        let (a, b, c) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        let no = false;
        // SAFETY: vectors of m·k, k·n and m·n elements, addressed by the strides of these matrices.
        unsafe {
            gemm::gemm(m, n, k, c, 1, n as isize, no, a, 1, k as isize, b, col, row, 0.0, 1.0, no, no, no, threads)
        };
        &self.c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_give_the_product() {
        for by_rows in [false, true] {
            let mut p = Product::new(20, 30, 40, by_rows);
            assert!(p.run(1).iter().all(|x| *x == 5.0));
        }
    }
}
