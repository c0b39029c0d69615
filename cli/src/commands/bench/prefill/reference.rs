//! The same products by the `gemm` crate, where the feature `gemm-reference` is on.
#[cfg(feature = "gemm-reference")]
use super::length;
use lolm_ir::plan::Gemm;

pub const LIBRARY: &str = "the gemm crate 0.19 with x86-v4";

/// Products on their own memory, each with its own B, as each layer has its own weights.
pub struct Reference {
    #[cfg(feature = "gemm-reference")]
    products: Vec<lolm_runtime::cpu::reference::Product>,
    #[cfg(feature = "gemm-reference")]
    threads: usize,
}

#[cfg(not(feature = "gemm-reference"))]
impl Reference {
    pub fn new<'a>(_: impl Iterator<Item = &'a Gemm>, _: usize) -> Reference {
        Reference {}
    }

    /// Nothing, without the library.
    pub fn run(&mut self) -> Option<f64> {
        None
    }
}

#[cfg(feature = "gemm-reference")]
impl Reference {
    pub fn new<'a>(products: impl Iterator<Item = &'a Gemm>, threads: usize) -> Reference {
        let product = |g: &Gemm| {
            let [m, n, k] = [&g.m, &g.n, &g.k].map(|e| length(e) as usize);
            lolm_runtime::cpu::reference::Product::new(m, n, k, g.b.col == 1)
        };
        Reference { products: products.map(product).collect(), threads }
    }

    /// The seconds that all products took.
    pub fn run(&mut self) -> Option<f64> {
        let start = std::time::Instant::now();
        for p in &mut self.products {
            p.run(self.threads);
        }
        Some(start.elapsed().as_secs_f64())
    }
}
