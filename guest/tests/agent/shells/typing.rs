//! Input and signals.

use super::{LONG, program, script};
use crate::host::{Host, soon};
use pyro_protocol::process::Outcome;
use pyro_protocol::shell::{ReadUntil, SignalShell, WriteShell};

#[tokio::test]
async fn r17_a_shell_that_does_not_read_takes_what_fits_and_blocks_nobody() {
    let host = Host::new();
    let shell = host.open(script("stty raw -echo; echo up; exec sleep 1000")).await;
    host.shows(shell.id, "up").await;
    let data = vec![b'x'; 1 << 20];
    let write = WriteShell { id: shell.id, data: data.clone().into(), wait_ms: 50 };
    let written = soon("a write", host.call(write)).await.expect("it is told");
    assert!(written.taken > 0 && (written.taken as usize) < data.len(), "{}", written.taken);
    // Nobody waits for it meanwhile. The kernel may still make some room of what it
    // has; then nothing more is taken.
    let again = || WriteShell { id: shell.id, data: data.clone().into(), wait_ms: 0 };
    let full = async { while host.call(again()).await.expect("it is told").taken > 0 {} };
    soon("a full terminal", full).await;
    assert_eq!(host.script("echo works").await.text(), "works\n");
    host.close_shell(shell.id).await.expect("it closes");
}

#[tokio::test]
async fn r17_a_long_input_arrives_whole_as_it_is_read() {
    let host = Host::new();
    let shell = host.open(script("stty raw -echo; echo up; head -c 300000 | cksum")).await;
    host.shows(shell.id, "up").await;
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let write = WriteShell { id: shell.id, data: data.clone().into(), wait_ms: LONG };
    let written = host.call(write).await.expect("it is told");
    assert_eq!(written.taken as usize, data.len());
    let (seen, _) = host.ended(shell.id).await;
    std::fs::write(host.at("data"), &data).expect("a file of ours");
    let expected = host.script("cksum < data").await;
    assert!(seen.contains(expected.text().trim_end()), "{seen:?}");
    host.close_shell(shell.id).await.expect("it closes");
}

#[tokio::test]
async fn r17_a_signal_reaches_the_foreground_job_and_not_the_shell() {
    let host = Host::new();
    let shell = host.open(program(&[])).await;
    host.shows(shell.id, "pyro$ ").await;
    let job = "sh -c 'trap \"echo cau\"\"ght; exit 3\" INT; echo rea\"\"dy; while :; do sleep 0.1; done'\n";
    host.type_in(shell.id, job).await.expect("it types");
    host.shows(shell.id, "ready").await;
    host.call(SignalShell { id: shell.id, number: 2 }).await.expect("it is sent");
    host.shows(shell.id, "caught").await;
    host.type_in(shell.id, "echo code $?\n").await.expect("the shell lives");
    host.shows(shell.id, "code 3").await;
    // What no job is there for is the shell's own.
    host.call(SignalShell { id: shell.id, number: 9 }).await.expect("it is sent");
    assert_eq!(host.ended(shell.id).await.1, Outcome::Signaled { signal: 9 });
    for number in [0, 65] {
        host.call(SignalShell { id: shell.id, number }).await.expect_err("it is none");
    }
    host.close_shell(shell.id).await.expect("it closes");
}

#[tokio::test]
async fn control_characters_do_what_they_do_on_a_keyboard() {
    let host = Host::new();
    let shell = host.open(program(&["cat"])).await;
    host.type_in(shell.id, "half a lin\u{8}\u{7f}ne\n").await.expect("it types");
    let read = host.read_shell(shell.id, 0, ReadUntil::Output).await;
    assert!(!read.output.data.0.is_empty());
    host.type_in(shell.id, "\u{3}").await.expect("it types");
    assert_eq!(host.ended(shell.id).await.1, Outcome::Signaled { signal: 2 });
    host.close_shell(shell.id).await.expect("it closes");
}
