//! The executable: everything is in the library.

use std::process::ExitCode;

/// musl's allocator maps and unmaps for nearly every page that it gives, which
/// was half of a short command's system calls.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    pyro::cli::main(std::env::args_os().collect())
}
