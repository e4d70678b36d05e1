//! `pyro-agent`: one binary, two roles.

use pyro_agent::{Guest, init, log, serve_machine};
use std::io;
use std::process::ExitCode;

/// Protects the agent: whoever is killed for memory, it is not the one who
/// could tell about it.
const OOM_SCORE: &[u8] = b"-1000";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    match std::env::args().nth(1).as_deref() {
        Some("--version") => {
            println!("pyro-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(init::SERVE) => {
            log::to_kernel();
            let error = serve().unwrap_or_else(|error| error);
            log::fatal(format_args!("the agent cannot go on: {error}"));
            ExitCode::FAILURE
        }
        Some(_) | None => {
            eprintln!("pyro-agent runs as a guest's init; it takes --version and nothing else");
            ExitCode::from(2)
        }
    }
}

fn serve() -> io::Result<io::Error> {
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
    // Started by way of /proc/self/exe, ps would call it "exe".
    rustix::thread::set_name(c"pyro-agent")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Ok(serve_machine(Guest::of_this_machine()?).await) })
}
