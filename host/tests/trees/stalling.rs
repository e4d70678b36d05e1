//! Guests that say or take nothing more, and callers who want nothing more.

use crate::exporting::{names, wanted};
use crate::guest::{Served, called};
use pyro::seed::Source;
use pyro::workspace::export::export;
use pyro::workspace::push::push;
use pyro::{ErrorKind, Result};
use pyro_protocol::export::{ExportEntry, ExportKind, Exporting};
use pyro_protocol::file::{Disposition, FileRead, FileTime, FileType, FileWrite, ReadRange};
use pyro_protocol::push::Push;
use pyro_protocol::{ByteString, FrameKind, GuestPath, codec};
use std::fs;
use std::future::pending;
use std::io::Read;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// Reads the call and nothing more.
async fn deaf(stream: UnixStream) {
    let _kept = called(stream).await;
    pending::<()>().await;
}

fn path() -> GuestPath {
    GuestPath::new("file").unwrap()
}

fn lost<T: std::fmt::Debug>(answer: Result<T>) {
    let error = answer.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::GuestLost, "{}", error.chain());
}

/// More than any socket holds.
const MUCH: u64 = 64 << 20;

#[tokio::test]
async fn s4_a_guest_that_takes_nothing_more_is_given_up() {
    let served = Served::stalling(deaf);
    let write = || FileWrite { path: path(), disposition: Disposition::Replace, mode: None };
    lost(served.agent.write_file_from(write(), std::io::repeat(1).take(MUCH)).await);
    lost(served.agent.write_file(write(), tokio::io::repeat(1)).await);
    let source = tempfile::tempdir().unwrap();
    for number in 0..500 {
        let link = source.path().join(number.to_string());
        std::os::unix::fs::symlink("x".repeat(4000), link).unwrap();
    }
    let dest = GuestPath::new("/workspace").unwrap();
    let call = Push { dest, delete: false, dry_run: false, checksum: false };
    let tree = Source::from_path(source.path()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    lost(push(&served.agent, tree, call, scratch.path(), &CancellationToken::new()).await);
}

#[tokio::test]
async fn s4_a_guest_that_says_nothing_more_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let output = home.path().join("output");
    let mute = Served::stalling(deaf);
    let read = || FileRead { path: path(), range: ReadRange::From { offset: 0 }, max_bytes: None };
    lost(mute.agent.read_file(read(), |_| async { Ok(()) }).await);
    lost(export(&mute.agent, wanted("x", &output), &CancellationToken::new()).await);
    let falls_silent = Served::stalling(|stream| async move {
        let (_reader, mut writer) = called(stream).await;
        let exporting = Exporting { file_type: FileType::Directory };
        writer.send(FrameKind::Reply, &exporting).await.unwrap();
        pending::<()>().await;
    });
    lost(export(&falls_silent.agent, wanted("x", &output), &CancellationToken::new()).await);
    assert_eq!(names(home.path()), [""; 0]);
}

/// The first piece of an export: a directory.
fn first_piece() -> Vec<u8> {
    let entry = ExportEntry {
        path: ByteString::default(),
        mode: 0o755,
        modified: FileTime { seconds: 1, nanoseconds: 1 },
        kind: ExportKind::Directory,
        attributes: None,
    };
    let encoded = codec::encode(&entry).unwrap();
    [&[0][..], &(encoded.len() as u32).to_le_bytes(), &encoded].concat()
}

#[tokio::test]
async fn r3_a_cancelled_export_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let begun = cancel.clone();
    let staged = home.path().to_owned();
    let served = Served::hostile(move |stream| {
        let (begun, staged) = (begun.clone(), staged.clone());
        async move {
            let (_reader, mut writer) = called(stream).await;
            let exporting = Exporting { file_type: FileType::Directory };
            writer.send(FrameKind::Reply, &exporting).await.unwrap();
            writer.send_raw(FrameKind::Data, &first_piece()).await.unwrap();
            // Until something is there to be left behind.
            let is_staged = || fs::read_dir(&staged).unwrap().next().is_some();
            while !is_staged() {
                tokio::task::yield_now().await;
            }
            begun.cancel();
            pending::<()>().await;
        }
    });
    let answer = export(&served.agent, wanted("x", &home.path().join("output")), &cancel).await;
    assert_eq!(answer.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert_eq!(names(home.path()), [""; 0]);
    // One that was cancelled before begins nothing.
    let answer = export(&served.agent, wanted("x", &home.path().join("output")), &cancel).await;
    assert_eq!(answer.expect_err("cancelled").kind(), ErrorKind::Cancelled);
}
