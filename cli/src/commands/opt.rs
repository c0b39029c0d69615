//! `lolm opt`: passes over a graph in its text form.
use crate::output::write;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use lolm_ir::expand::expand;
use lolm_ir::graph::{LeafId, LeafKind};
use lolm_ir::verify::verify;
use lolm_ir::{Graph, text};
use lolm_passes::canonicalize::canonicalize;
use lolm_passes::differentiate::differentiate;
use lolm_passes::lower::has_launch;
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::pipeline::Target;
use lolm_passes::raise::raise;
use lolm_passes::split_reductions::split_reductions;
use std::io::Read;

/// Run passes over a graph that is given as text, and print it
#[derive(Args, Debug)]
pub struct Opt {
    /// A graph as text, such as a file of `lolm compile --emit graph`; `-` is the standard input
    file: String,
    /// The passes in order, separated by commas; with none the graph is read, verified and printed
    #[arg(long = "pass", value_name = "PASSES", value_delimiter = ',')]
    passes: Vec<Pass>,
    /// Print what raising found to stderr
    #[arg(long)]
    report: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Pass {
    /// Constants folded, identities applied, equal operations merged, dead code gone
    Canonicalize,
    /// Small operations recognised as fused ones
    Raise,
    /// The gradient of `loss.total` for every parameter, as outputs
    Differentiate,
    /// Fused operations without a launch of their own as small ones
    Expand,
    /// All fused operations as small ones
    ExpandAll,
    /// Long sums in two steps
    SplitReductions,
}

impl Opt {
    pub fn run(self) -> Result<()> {
        let mut g = text::parse(&self.read()?).with_context(|| format!("in {}", self.file))?;
        verify(&g).with_context(|| format!("in {}", self.file))?;
        for pass in &self.passes {
            g = self.pass(*pass, g)?;
            verify(&g).with_context(|| format!("bug: after pass {pass:?}"))?;
        }
        write(&text::print(&g));
        Ok(())
    }

    fn read(&self) -> Result<String> {
        let mut text = String::new();
        let read = match self.file.as_str() {
            "-" => std::io::stdin().read_to_string(&mut text),
            path => std::fs::read_to_string(path).map(|t| {
                text = t;
                0
            }),
        };
        read.with_context(|| format!("cannot read {}", self.file))?;
        Ok(text)
    }

    fn pass(&self, pass: Pass, g: Graph) -> Result<Graph> {
        Ok(match pass {
            Pass::Canonicalize => canonicalize(&g)?,
            Pass::Expand => expand(&g, &|op| !op.is_elementwise() && !has_launch(op, Target::default()))?,
            Pass::ExpandAll => expand(&g, &|_| true)?,
            Pass::SplitReductions => split_reductions(g)?,
            Pass::Differentiate => gradients(g)?,
            Pass::Raise => {
                let (raised, report) = raise(&g)?;
                if self.report {
                    crate::output::note(report.to_string().trim_end());
                }
                raised
            }
        })
    }
}

fn gradients(g: Graph) -> Result<Graph> {
    let Some(loss) = g.find_output("loss.total").map(|o| o.value) else {
        bail!("graph @{} has no output `loss.total` to differentiate", g.name);
    };
    let params = |l: &LeafId| matches!(g.leaf(*l).kind, LeafKind::Param(_));
    let wrt: Vec<LeafId> = (0..g.leaves.len() as u32).map(LeafId).filter(params).collect();
    Ok(expose_gradients(differentiate(&g, loss, &wrt)?, &wrt)?)
}
