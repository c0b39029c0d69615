//! What the e-graph passes share: the operations as an egg language, what is known of a class, regions of a graph,
//! rules as rows, and extraction.
//!
//! A graph is cut into regions; each *distinct* region is an e-graph once, and what comes out of it is replayed on its
//! equals. Nothing here knows which rules there are: `raise` and `rewrite` bring their own.
pub mod analysis;
pub mod encode;
pub mod extract;
pub mod language;
pub mod region;
pub mod rule;

pub use analysis::{Context, Facts, Known, Operand};
pub use language::{Enode, Fun, Head};
pub use region::{Body, Ref, Region, Regions};
pub use rule::{Cond, Limits, Row, Rules, Run, Stop};

/// The e-graph of a region.
pub type EGraph = egg::EGraph<Enode, Context>;
