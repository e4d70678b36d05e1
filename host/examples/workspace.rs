//! The loop of a coding agent: seed a workspace with a directory, work in it,
//! review the diff, go back, delete.
//!
//! ```sh
//! export PYRO_EXECUTABLE=$PWD/target/x86_64-unknown-linux-musl/release/pyro
//! cargo run -p pyro --example workspace -- path/to/a/directory
//! ```

use pyro::operation::{
    FileRead, FileWrite, WorkspaceCreate, WorkspaceDelete, WorkspaceDiff, WorkspaceExec,
    WorkspaceReset,
};
use pyro::{Config, Pyro, Result};
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let pyro = Pyro::new(Config::from_environment()?);
    let mut create = WorkspaceCreate::new("debian:12");
    create.seed_path = std::env::args_os().nth(1).map(|word| PathBuf::from(word).into());
    let workspace = pyro.call(create).await?;
    println!("{} is {}", workspace.workspace_id, workspace.state.as_str());

    let worked = work(&pyro, &workspace.workspace_id).await;
    // Whatever came of it, the machine goes.
    let workspace_id = workspace.workspace_id.as_str().into();
    pyro.call(WorkspaceDelete { workspace_id, ignore_missing: true }).await?;
    worked
}

async fn work(pyro: &Pyro, id: &str) -> Result<()> {
    let ran =
        pyro.call(WorkspaceExec::new(id, ["sh", "-c", "echo hello > new; ls | wc -l"])).await?;
    println!("exit code {:?}, {} entries", ran.exit_code, ran.output.stdout.trim());

    pyro.call(FileWrite::new(id, "src/answer.txt".try_into()?, "42\n")).await?;
    let read = pyro.call(FileRead::new(id, "src/answer.txt".try_into()?)).await?;
    println!("{} bytes: {}", read.size_bytes, read.content.trim());

    let diff = pyro.call(WorkspaceDiff::new(id)).await?;
    println!("{} changed:\n{}", diff.summary.total, diff.patch);

    let reset = pyro.call(WorkspaceReset::new(id)).await?;
    let diff = pyro.call(WorkspaceDiff::new(id)).await?;
    println!("after reset {}: {} changed", reset.workspace.reset_count, diff.summary.total);
    Ok(())
}
