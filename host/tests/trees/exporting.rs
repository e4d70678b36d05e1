//! Exports of an honest guest.

use crate::guest::Served;
use crate::tree::{look, plant, steps};
use proptest::prelude::*;
use pyro::workspace::export::{Existing, Exported, Format, Limits, Wanted, export};
use pyro::{ErrorKind, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::file::FileType;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use tokio_util::sync::CancellationToken;

pub fn wanted(path: &str, output: &Path) -> Wanted {
    Wanted {
        path: GuestPath::new(path).unwrap(),
        output: output.into(),
        format: Format::Tree,
        existing: Existing::Refuse,
        limits: Limits::default(),
        attributes: false,
    }
}

async fn run(served: &Served, path: &str, output: &Path) -> Result<Exported> {
    export(&served.agent, wanted(path, output), &CancellationToken::new()).await
}

/// Nothing but the output is there.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn r5_a_file_keeps_content_mode_and_time() {
    let served = Served::honest();
    let home = tempfile::tempdir().unwrap();
    let content = vec![7; 3_000_000];
    fs::write(served.at("tool"), &content).unwrap();
    fs::set_permissions(served.at("tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    let output = home.path().join("made/for/it");
    let exported = run(&served, "tool", &output).await.unwrap();
    assert_eq!(exported.file_type, FileType::File);
    assert_eq!((exported.entry_count, exported.bytes_written), (1, 3_000_000));
    assert!(fs::read(&output).unwrap() == content);
    let (here, there) = (output.metadata().unwrap(), served.at("tool").metadata().unwrap());
    // Set-id bits stay in the guest.
    assert_eq!(here.mode() & 0o7777, 0o751);
    assert_eq!((here.mtime(), here.mtime_nsec()), (there.mtime(), there.mtime_nsec()));
    assert_eq!(names(output.parent().unwrap()), ["it"]);
}

#[tokio::test]
async fn r6_links_of_any_kind_and_holes_survive_and_special_files_are_left_out() {
    let served = Served::honest();
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(served.at("empty")).unwrap();
    symlink("../../outside", served.at("up")).unwrap();
    symlink("/etc/passwd", served.at("absolute")).unwrap();
    let sparse = File::create(served.at("sparse")).unwrap();
    sparse.write_all_at(b"end", 64 << 20).unwrap();
    fs::hard_link(served.at("sparse"), served.at("twin")).unwrap();
    let fifo = served.at("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let output = home.path().join("all");
    let exported = run(&served, "/workspace", &output).await.unwrap();
    assert_eq!(exported.warnings.len(), 2, "{:?}", exported.warnings);
    assert!(exported.warnings[1].contains("/workspace/fifo"));
    assert_eq!(exported.entry_count, 6);
    assert_eq!(fs::read_link(output.join("up")).unwrap(), Path::new("../../outside"));
    assert_eq!(fs::read_link(output.join("absolute")).unwrap(), Path::new("/etc/passwd"));
    let (sparse, twin) = (output.join("sparse"), output.join("twin"));
    assert_eq!(sparse.metadata().unwrap().ino(), twin.metadata().unwrap().ino());
    assert_eq!(sparse.metadata().unwrap().len(), (64 << 20) + 3);
    assert!(sparse.metadata().unwrap().blocks() * 512 < 1 << 20, "the hole is one here too");
    let link = home.path().join("link");
    assert_eq!(run(&served, "up", &link).await.unwrap().file_type, FileType::Symlink);
    assert!(link.symlink_metadata().unwrap().is_symlink());
}

#[tokio::test]
async fn s8_no_link_leads_an_export_out_of_the_workspace() {
    let served = Served::honest();
    let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), served.at("out")).unwrap();
    fs::create_dir(served.at("in")).unwrap();
    symlink("../out", served.at("in/out")).unwrap();
    for path in ["out/secret", "in/out/secret", "in/../out/secret"] {
        run(&served, path, &home.path().join("output")).await.expect_err(path);
        assert_eq!(names(home.path()), [""; 0], "{path}");
    }
    // What is in the way is a link in the output too.
    run(&served, ".", &home.path().join("all")).await.unwrap();
    assert_eq!(fs::read_link(home.path().join("all/out")).unwrap(), outside.path());
}

#[tokio::test]
async fn r16_what_is_not_there_fails_at_once_and_leaves_nothing() {
    let served = Served::honest();
    let home = tempfile::tempdir().unwrap();
    let output = home.path().join("output");
    let error = run(&served, "absent", &output).await.expect_err("nothing to export");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = run(&served, "../etc", &output).await.expect_err("not in the tree");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(names(home.path()), [""; 0]);
}

#[tokio::test]
async fn what_is_there_is_replaced_only_on_request() {
    let served = Served::honest();
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(served.at("tree")).unwrap();
    fs::write(served.at("tree/new"), "").unwrap();
    let output = home.path().join("output");
    fs::create_dir_all(output.join("old/deep")).unwrap();
    fs::set_permissions(output.join("old"), fs::Permissions::from_mode(0o500)).unwrap();
    let error = run(&served, "tree", &output).await.expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(output.join("old").exists());
    let replacing = Wanted { existing: Existing::Replace, ..wanted("tree", &output) };
    export(&served.agent, replacing, &CancellationToken::new()).await.unwrap();
    assert_eq!(names(&output), ["new"]);
    assert_eq!(names(home.path()), ["output"]);
}

#[tokio::test]
async fn what_was_killed_is_swept_by_the_next() {
    let served = Served::honest();
    let home = tempfile::tempdir().unwrap();
    fs::write(served.at("file"), "x").unwrap();
    let killed = home.path().join(".pyro-export-0123456789abcdef");
    fs::create_dir_all(killed.join("item/deep")).unwrap();
    fs::set_permissions(killed.join("item"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::write(killed.join("made-by-pyro"), "").unwrap();
    fs::set_permissions(&killed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(home.path().join("mine")).unwrap();
    run(&served, "file", &home.path().join("output")).await.unwrap();
    let mut names = names(home.path());
    names.sort();
    assert_eq!(names, ["mine", "output"]);
}

#[tokio::test]
async fn limits_hold() {
    let served = Served::honest();
    let home = tempfile::tempdir().unwrap();
    let output = home.path().join("output");
    fs::create_dir(served.at("tree")).unwrap();
    fs::write(served.at("tree/file"), vec![1; 5000]).unwrap();
    for limits in
        [Limits { bytes: 4999, ..Limits::default() }, Limits { entries: 1, ..Limits::default() }]
    {
        let asked = Wanted { limits, ..wanted("tree", &output) };
        let error =
            export(&served.agent, asked, &CancellationToken::new()).await.expect_err("too much");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.next_step().is_some());
        assert_eq!(names(home.path()), [""; 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn r5_r6_any_tree_comes_out_as_it_is(steps in steps(25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let served = Served::honest();
            let home = tempfile::tempdir().unwrap();
            plant(served.workspace(), &steps);
            let there = look(served.workspace());
            let output = home.path().join("output");
            let exported = run(&served, ".", &output).await.unwrap();
            assert_eq!(exported.entry_count, there.len() as u64 + 1);
            assert_eq!(look(&output), there);
            // And as an archive, unpacked by whatever tar there is.
            let archive = home.path().join("archive.tar");
            let asked = Wanted { format: Format::Tar, ..wanted(".", &archive) };
            export(&served.agent, asked, &CancellationToken::new()).await.unwrap();
            let unpacked = home.path().join("unpacked");
            fs::create_dir(&unpacked).unwrap();
            let tar = Command::new("tar")
                .args(["--no-same-owner", "-p", "-xf"])
                .arg(&archive)
                .arg("-C")
                .arg(&unpacked)
                .status();
            assert!(tar.unwrap().success());
            assert_eq!(look(&unpacked), there);
        });
    }
}
