//! The executable: everything is in the library.

use std::process::ExitCode;

/// musl's allocator maps and unmaps for nearly every page that it gives, which
/// was half of a short command's system calls.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// The agent that `make build` puts in; empty in a build by cargo alone, which
/// takes the one beside it.
static AGENT: &[u8] = include_bytes!(env!("PYRO_EMBED_AGENT"));

fn main() -> ExitCode {
    pyro::config::this_is_pyro(AGENT);
    pyro::cli::main(std::env::args_os().collect())
}
