//! The binary `omega-opt`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(optimizer::cli::main() as u8)
}
