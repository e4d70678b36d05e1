//! `pyro-agent`: one binary, two roles.

mod memory;

use pyro_agent::init::{self, Life};
use pyro_agent::{Doors, Guest, THREADS, serve_machine};
use std::io;
use std::process::ExitCode;

/// musl's own maps and unmaps memory for every buffer of some size: page faults,
/// which a translated guest pays for dearly. With this one a stream is about
/// twice as fast.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Protects the agent: whoever is killed for memory, it is not the one who
/// could tell about it.
const OOM_SCORE: &[u8] = b"-1000";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run(agent);
    }
    match std::env::args().nth(1).as_deref() {
        Some("--version") => {
            println!("pyro-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(_) | None => {
            eprintln!("pyro-agent is a guest's init; it takes --version and nothing else");
            ExitCode::from(2)
        }
    }
}

/// Returns only when it cannot go on.
fn agent(life: Life, doors: &Doors) -> io::Error {
    serve(life, doors).unwrap_or_else(|error| error)
}

fn serve(life: Life, doors: &Doors) -> io::Result<io::Error> {
    rustix::thread::set_name(c"pyro-agent")?;
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()?;
    runtime.block_on(async { Ok(serve_machine(Guest::of_this_machine()?, life, doors).await) })
}
