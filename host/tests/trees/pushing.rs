//! Pushes to an honest guest.

use crate::guest::{Served, called};
use crate::tree::{Look, Node, look, plant, steps};
use proptest::prelude::*;
use pyro::seed::Source;
use pyro::workspace::push::{Pushed, push};
use pyro::{ErrorKind, Result};
use pyro_protocol::FrameKind;
use pyro_protocol::GuestPath;
use pyro_protocol::push::{Push, PushAction, PushEnd};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub fn to(dest: &str) -> Push {
    let dest = GuestPath::new(dest).unwrap();
    Push { dest, delete: false, dry_run: false, checksum: false }
}

fn exactly() -> Push {
    Push { delete: true, ..to(".") }
}

pub async fn run(served: &Served, source: &Path, call: Push) -> Result<Pushed> {
    let scratch = tempfile::tempdir().unwrap();
    let source = Source::from_path(source)?;
    push(&served.agent, source, call, scratch.path(), &CancellationToken::new()).await
}

fn told(pushed: &Pushed) -> Vec<(String, PushAction)> {
    pushed.changes.iter().map(|change| (change.path.clone(), change.action)).collect()
}

fn source() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(directory: &Path, path: &str, content: &str) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn age(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// What was pushed looks like the source, except that what had the same content
/// has kept its time.
fn check(before: &Look, after: &Look, source: &Look) {
    let paths = |look: &Look| look.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(after), paths(source));
    for (path, node) in after {
        let kept = before.get(path).map_or(node.modified(), Node::modified);
        let wanted = &source[path];
        let is_right =
            node == wanted || (node.modified() == kept && *node == wanted.clone().at(kept));
        assert!(is_right, "{}: {node:?} for {wanted:?}", String::from_utf8_lossy(path));
    }
}

#[tokio::test]
async fn what_differs_is_sent_and_nothing_else() {
    let (served, source) = (Served::honest(), source());
    for index in 0..100 {
        write(source.path(), &format!("d{}/f{index}", index % 7), "content");
    }
    let first = run(&served, source.path(), to(".")).await.unwrap();
    assert_eq!((first.end.created, first.end.bytes_written), (107, 700));
    assert_eq!(look(served.workspace()), look(source.path()));
    let again = run(&served, source.path(), to(".")).await.unwrap();
    assert_eq!(again.end, PushEnd::default(), "{:?}", again.changes);
    write(source.path(), "d1/f1", "another content");
    let third = run(&served, source.path(), to(".")).await.unwrap();
    assert_eq!((third.end.updated, third.end.bytes_written), (1, 15));
    assert_eq!(told(&third), [("/workspace/d1/f1".to_owned(), PushAction::Updated)]);
    assert_eq!(look(served.workspace()), look(source.path()));
}

#[tokio::test]
async fn equal_contents_are_not_sent_whatever_their_time() {
    let (served, source) = (Served::honest(), source());
    write(source.path(), "same", "content");
    write(served.workspace(), "same", "content");
    age(&served.at("same"), 1000);
    let before = look(served.workspace());
    let pushed = run(&served, source.path(), to(".")).await.unwrap();
    assert_eq!(pushed.end, PushEnd::default(), "{:?}", pushed.changes);
    assert_eq!(look(served.workspace()), before);
    // Another content of the same length and time is seen when one looks.
    write(served.workspace(), "same", "CONTENT");
    let time = source.path().join("same").metadata().unwrap().modified().unwrap();
    File::open(served.at("same")).unwrap().set_modified(time).unwrap();
    assert_eq!(run(&served, source.path(), to(".")).await.unwrap().end, PushEnd::default());
    let checked = run(&served, source.path(), Push { checksum: true, ..to(".") }).await.unwrap();
    assert_eq!((checked.end.updated, checked.end.bytes_written), (1, 7));
    assert_eq!(fs::read(served.at("same")).unwrap(), b"content");
}

#[tokio::test]
async fn what_the_source_does_not_have_stays_unless_told() {
    let (served, source) = (Served::honest(), source());
    write(source.path(), "a/new", "x");
    write(served.workspace(), "a/old", "x");
    write(served.workspace(), "b/deep/old", "x");
    write(served.workspace(), "z", "x");
    run(&served, source.path(), to("/workspace")).await.unwrap();
    assert!(served.at("a/old").exists() && served.at("b/deep/old").exists());
    let dry = Push { dry_run: true, ..exactly() };
    let would = run(&served, source.path(), dry).await.unwrap();
    assert!(served.at("a/old").exists());
    let did = run(&served, source.path(), exactly()).await.unwrap();
    let deleted = |path: &str| (path.to_owned(), PushAction::Deleted);
    let expected = [deleted("/workspace/a/old"), deleted("/workspace/b"), deleted("/workspace/z")];
    assert_eq!((told(&would), told(&did)), (expected.to_vec(), expected.to_vec()));
    assert_eq!(look(served.workspace()), look(source.path()));
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_tells_the_same() {
    let (served, source) = (Served::honest(), source());
    write(source.path(), "new/file", "x");
    write(source.path(), "changed", "new");
    write(source.path(), "longer", "longer");
    write(source.path(), "touched", "same");
    write(served.workspace(), "changed", "old");
    write(served.workspace(), "longer", "l");
    write(served.workspace(), "touched", "same");
    age(&served.at("touched"), 5);
    age(&served.at("changed"), 5);
    let before = look(served.workspace());
    let dry = Push { dry_run: true, ..exactly() };
    let would = run(&served, source.path(), dry).await.unwrap();
    assert_eq!(look(served.workspace()), before);
    let did = run(&served, source.path(), exactly()).await.unwrap();
    assert_eq!(told(&would), told(&did));
    assert_eq!((would.end.bytes_written, did.end.bytes_written), (0, 10));
    check(&before, &look(served.workspace()), &look(source.path()));
}

#[tokio::test]
async fn a_conflict_names_the_path_and_changes_nothing() {
    let (served, source) = (Served::honest(), source());
    write(source.path(), "a", "first");
    write(source.path(), "b", "a file");
    write(source.path(), "c/file", "in a directory");
    write(served.workspace(), "b/content", "x");
    let error = run(&served, source.path(), to(".")).await.expect_err("in the way");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("/workspace/b is a directory with content"), "{error}");
    assert!(!served.at("a").exists());
    fs::remove_dir_all(served.at("b")).unwrap();
    fs::create_dir(served.at("b")).unwrap();
    write(served.workspace(), "c", "a file");
    let error = run(&served, source.path(), to(".")).await.expect_err("in the way");
    assert!(error.message().contains("/workspace/c is in the way of a directory"), "{error}");
    run(&served, source.path(), exactly()).await.unwrap();
    assert_eq!(look(served.workspace()), look(source.path()));
}

#[tokio::test]
async fn s8_the_destination_is_below_the_workspace_and_no_link() {
    let (served, source) = (Served::honest(), source());
    let outside = tempfile::tempdir().unwrap();
    write(source.path(), "file", "x");
    write(source.path(), "link/file", "x");
    symlink(outside.path(), served.at("link")).unwrap();
    for dest in ["link", "link/below", "..", "/etc"] {
        assert!(run(&served, source.path(), to(dest)).await.is_err(), "{dest}");
    }
    let error = run(&served, source.path(), to(".")).await.expect_err("a link is in the way");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    run(&served, source.path(), to("made/for/it")).await.unwrap();
    assert_eq!(look(&served.at("made/for/it")), look(source.path()));
    run(&served, source.path(), exactly()).await.unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(look(served.workspace()), look(source.path()));
}

#[tokio::test]
async fn r5_modes_and_links_come_along() {
    let (served, source) = (Served::honest(), source());
    write(source.path(), "z/tool", "#!/bin/sh");
    fs::set_permissions(source.path().join("z/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(source.path().join("z/tool"), source.path().join("a")).unwrap();
    symlink("../anywhere", source.path().join("link")).unwrap();
    run(&served, source.path(), to(".")).await.unwrap();
    let inode = |path: &str| served.at(path).metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("z/tool"));
    // The names stay together when the content is another.
    write(source.path(), "a", "#!/bin/bash");
    run(&served, source.path(), to(".")).await.unwrap();
    assert_eq!(inode("a"), inode("z/tool"));
    assert_eq!(look(served.workspace()), look(source.path()));
    assert_eq!(run(&served, source.path(), to(".")).await.unwrap().end, PushEnd::default());
}

#[tokio::test]
async fn r3_a_host_that_goes_away_leaves_nothing() {
    let (served, source) = (Served::honest(), source());
    for index in 0..50 {
        write(source.path(), &format!("f{index}"), &"x".repeat(100_000));
    }
    write(served.workspace(), "f1", "old");
    let before = look(served.workspace());
    // Cancelled after the first few polls, and after some more, and so on.
    for polls in [1, 5, 20, 60, 100] {
        let mut pushing = Box::pin(run(&served, source.path(), exactly()));
        let mut left = polls;
        let cut = std::future::poll_fn(|context| {
            left -= 1;
            match pushing.as_mut().poll(context) {
                std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await;
        drop(pushing);
        if cut.is_some() {
            break;
        }
        // The agent answers the next call only when it is there; and a listing
        // does not show what it has not swept yet.
        let still = look(served.workspace());
        let visible = |name: &Vec<u8>| !name.starts_with(b".pyro-commit-");
        let still: Vec<_> = still.into_iter().filter(|(name, _)| visible(name)).collect();
        assert!(still == before.clone().into_iter().collect::<Vec<_>>(), "after {polls} polls");
    }
}

#[tokio::test]
async fn s4_answers_that_make_no_sense_are_refused() {
    let source = source();
    write(source.path(), "file", "x");
    // No answer, an unknown one, too many, half a digest.
    for answers in [vec![], vec![9], vec![0, 0], vec![2, 1, 2, 3]] {
        let served = Served::hostile(move |stream| {
            let answers = answers.clone();
            async move {
                let (mut reader, mut writer) = called(stream).await;
                while reader.next().await.is_ok_and(|frame| frame.kind == FrameKind::Data) {}
                writer.send_raw(FrameKind::Reply, &[2, 1]).await.unwrap();
                drop(writer.send_raw(FrameKind::Data, &answers).await);
                drop(writer.send_raw(FrameKind::DataEnd, &[]).await);
                while reader.next().await.is_ok() {}
            }
        });
        let error = run(&served, source.path(), to(".")).await.expect_err("nonsense");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn r5_r6_any_tree_becomes_like_any_source(there in steps(20), mine in steps(20), more in steps(6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (served, source) = (Served::honest(), source());
            plant(served.workspace(), &there);
            plant(source.path(), &mine);
            let before = look(served.workspace());
            run(&served, source.path(), exactly()).await.unwrap();
            check(&before, &look(served.workspace()), &look(source.path()));
            let again = run(&served, source.path(), exactly()).await.unwrap();
            assert_eq!(again.end, PushEnd::default(), "{:?}", again.changes);
            plant(source.path(), &more);
            let before = look(served.workspace());
            run(&served, source.path(), exactly()).await.unwrap();
            check(&before, &look(served.workspace()), &look(source.path()));
        });
    }
}
