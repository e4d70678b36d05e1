//! The executable: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pyro::cli::main(std::env::args_os().collect())
}
