//! Graph to graph, graph to kernels and plan: one pass, one file.
