//! Every kernel of every spec through NVIDIA's assembler, which takes minutes; of some specs, if they are named.
use lolm_tests::ptxas::{assemble, names};
use std::process::ExitCode;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let specs = names().filter(|n| asked.is_empty() || asked.iter().any(|a| a == n)).collect::<Vec<_>>();
    match assemble(&specs, str::to_owned) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(complaints) => {
            eprintln!("{complaints}");
            ExitCode::FAILURE
        }
    }
}
