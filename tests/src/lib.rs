//! Filetests, golden cases, properties and tidy: what the tests of the whole road share.
pub mod compiled;
pub mod filetest;
pub mod golden;
pub mod golden_checks;
pub mod machine;
pub mod plan_interp;
pub mod ptxas;
