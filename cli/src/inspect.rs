//! What a spec, a graph, a plan or an artifact consists of, as tables and as JSON.
pub mod graph;
pub mod params;
pub mod plan;
pub mod usage;
