//! Listing and searching the workspace.

use crate::host::{Host, guest_path};
use proptest::collection::btree_set;
use proptest::prelude::*;
use pyro_protocol::file::{
    FileList, FileListed, FileSearch, FileSearched, FileStat, FileType, Pattern, SearchCursor,
};
use pyro_protocol::{AgentError, AgentErrorKind, GuestPath};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

fn list(path: &str, recursive: bool) -> FileList {
    FileList { path: guest_path(path), recursive, after: None, limit: 1000 }
}

fn paths(listed: &FileListed) -> Vec<String> {
    listed.entries.iter().map(|entry| entry.path.to_string()).collect()
}

/// All pages, of so many entries each.
async fn all_pages(host: &Host, mut call: FileList) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let page = host.call(call.clone()).await.expect("a page");
        assert!(page.entries.len() <= call.limit as usize);
        all.extend(paths(&page));
        match page.next {
            Some(next) => call.after = Some(next),
            None => return all,
        }
    }
}

fn find(text: &str) -> FileSearch {
    let pattern = Pattern { text: text.to_owned(), literal: false, ignore_case: false };
    FileSearch {
        path: guest_path("."),
        pattern: Some(pattern),
        include: Vec::new(),
        exclude: Vec::new(),
        git: false,
        after: None,
        limit: 1000,
        max_file_bytes: 1024 * 1024,
    }
}

fn found(searched: &FileSearched) -> Vec<String> {
    let shown = |found: &pyro_protocol::file::Match| match &found.line {
        None => found.path.to_string(),
        Some(line) => {
            let text = String::from_utf8_lossy(&line.text.0).into_owned();
            format!("{}:{}:{text}", found.path, line.number)
        }
    };
    searched.matches.iter().map(shown).collect()
}

#[tokio::test]
async fn one_level_or_all_in_the_order_of_bytes() {
    let host = Host::new();
    fs::create_dir_all(host.at("a/c")).expect("made");
    for name in ["a-b", "a/c/d", "a/B", "Z", ".hidden"] {
        host.write(name, "x", 0o644);
    }
    symlink("a", host.at("link")).expect("a link");
    let shallow = host.call(list("/workspace", false)).await.expect("listed");
    let top = ["/workspace/.hidden", "/workspace/Z", "/workspace/a", "/workspace/a-b"];
    assert_eq!(paths(&shallow)[..4], top);
    let deep = host.call(list(".", true)).await.expect("listed");
    let expected = [
        "/workspace/.hidden",
        "/workspace/Z",
        "/workspace/a",
        "/workspace/a/B",
        "/workspace/a/c",
        "/workspace/a/c/d",
        "/workspace/a-b",
        "/workspace/link",
    ];
    assert_eq!(paths(&deep), expected);
    assert_eq!(deep.next, None);
    for limit in 1..9 {
        assert_eq!(all_pages(&host, FileList { limit, ..list(".", true) }).await, expected);
    }
    assert_eq!(paths(&host.call(list("link", true)).await.expect("listed")), ["/workspace/link"]);
    let missing = host.call(list("missing", false)).await;
    assert_eq!(missing.expect_err("not there").kind, AgentErrorKind::NotFound);
}

#[tokio::test]
async fn a_page_goes_on_after_a_directory() {
    let host = Host::new();
    fs::create_dir_all(host.at("b/sub")).expect("made");
    for name in ["a", "b/inside", "b/sub/deep", "c", "dots.."] {
        host.write(name, "x", 0o644);
    }
    for limit in 1..6 {
        let shallow = all_pages(&host, FileList { limit, ..list(".", false) }).await;
        let top = ["/workspace/a", "/workspace/b", "/workspace/c", "/workspace/dots.."];
        assert_eq!(shallow, top, "{limit} a page");
        let deep = all_pages(&host, FileList { limit, ..list(".", true) }).await;
        assert_eq!(deep, paths(&host.call(list(".", true)).await.expect("listed")));
        assert_eq!(deep.len(), 7);
    }
    let named = host.call(FileStat { path: guest_path("dots..") }).await.expect("there");
    assert_eq!(named.path.to_string(), "/workspace/dots..");
}

#[tokio::test]
async fn s8_a_cursor_does_not_lead_out() {
    let host = Host::new();
    for after in ["/workspace/../etc", "/workspace/a/../../etc"] {
        for recursive in [false, true] {
            let call = FileList { after: Some(guest_path(after)), ..list(".", recursive) };
            let refused = host.call(call).await.expect_err("it leads out");
            assert_eq!(refused.kind, AgentErrorKind::InvalidArgument, "{refused}");
        }
    }
}

#[tokio::test]
async fn r6_what_is_special_is_listed() {
    let host = Host::new();
    let fifo = host.at("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("a FIFO");
    drop(std::os::unix::net::UnixListener::bind(host.at("socket")).expect("a socket"));
    let listed = host.call(list(".", true)).await.expect("listed");
    let types: Vec<_> = listed.entries.iter().map(|entry| entry.file_type).collect();
    assert_eq!(types, [FileType::Fifo, FileType::Socket]);
}

#[tokio::test]
async fn r25_names_are_bytes() {
    let host = Host::new();
    for name in [b" blanks ".as_slice(), b"new\nline", b"\xff\xfe", b"*"] {
        fs::write(host.workspace.path().join(std::ffi::OsStr::from_bytes(name)), "").expect("made");
    }
    let listed = host.call(list(".", false)).await.expect("listed");
    let names: Vec<_> = listed.entries.iter().map(|entry| entry.path.as_bytes()).collect();
    let expected = [
        b"/workspace/ blanks ".as_slice(),
        b"/workspace/*",
        b"/workspace/new\nline",
        b"/workspace/\xff\xfe",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_page_has_no_more_than_fits_a_reply() {
    let host = Host::new();
    let deep = format!("{0}/{0}/{0}", "d".repeat(255));
    fs::create_dir_all(host.at(&deep)).expect("made");
    for index in 0..1000 {
        host.write(&format!("{deep}/{index:0>250}"), "", 0o644);
    }
    let call = FileList { limit: u32::MAX, ..list(".", true) };
    let first = host.call(call.clone()).await.expect("a page");
    assert!(first.next.is_some() && first.entries.len() > 100);
    assert_eq!(all_pages(&host, call).await.len(), 1003);
}

#[tokio::test]
async fn r6_what_is_deeper_than_a_path_is_counted() {
    let host = Host::new();
    let mut directory = fs::File::open(host.workspace.path()).expect("open");
    for _ in 0..40 {
        let name = "d".repeat(200);
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkdirat(&directory, &name, mode).expect("made");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        directory = rustix::fs::openat(&directory, &name, flags, mode).expect("open").into();
    }
    let listed = host.call(list(".", true)).await.expect("listed");
    assert_eq!((listed.too_deep, listed.entries.len()), (1, 20));
}

#[tokio::test]
async fn lines_are_found() {
    let host = Host::new();
    fs::create_dir_all(host.at("src/.git")).expect("made");
    host.write("src/a.rs", "fn main() {\r\n  fixme()\r\n}", 0o644);
    host.write("src/b.txt", "TODO\ntodo twice todo", 0o644);
    host.write("src/.git/config", "todo", 0o644);
    host.write("binary", b"todo\0todo", 0o644);
    host.write("large", vec![b'x'; 2 * 1024 * 1024], 0o644);
    symlink("src/a.rs", host.at("link")).expect("a link");
    let all = host.call(find("fixme|todo")).await.expect("searched");
    let lines = ["/workspace/src/a.rs:2:  fixme()", "/workspace/src/b.txt:2:todo twice todo"];
    assert_eq!(found(&all), lines);
    assert_eq!((all.tally.files, all.tally.binary, all.tally.too_large), (2, 1, 1));
    let pattern = Pattern { text: "todo".into(), literal: false, ignore_case: true };
    let call = FileSearch { pattern: Some(pattern), include: vec!["*.txt".into()], ..find("") };
    assert_eq!(host.call(call).await.expect("searched").matches.len(), 2);
    let literal = Pattern { text: "fixme()".into(), literal: true, ignore_case: false };
    let call = FileSearch { pattern: Some(literal), ..find("") };
    assert_eq!(host.call(call).await.expect("searched").matches.len(), 1);
    let git = host.call(FileSearch { git: true, ..find("^todo$") }).await.expect("searched");
    assert_eq!(found(&git), ["/workspace/src/.git/config:1:todo"]);
    let one = FileSearch { path: guest_path("src/b.txt"), ..find("TODO") };
    assert_eq!(host.call(one).await.expect("searched").matches.len(), 1);
    for bad in ["(", ""] {
        let refused = host.call(find(bad)).await.expect_err("no pattern");
        assert_eq!(refused.kind, AgentErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn names_are_found_by_globs() {
    let host = Host::new();
    fs::create_dir_all(host.at("src/deep")).expect("made");
    fs::create_dir_all(host.at("target/deep")).expect("made");
    for name in ["src/a.rs", "src/deep/b.rs", "target/deep/c.rs", "d.txt"] {
        host.write(name, "", 0o644);
    }
    let globs = |include: &[&str], exclude: &[&str]| FileSearch {
        pattern: None,
        include: include.iter().map(|glob| (*glob).to_owned()).collect(),
        exclude: exclude.iter().map(|glob| (*glob).to_owned()).collect(),
        ..find("")
    };
    let names = async |call| found(&host.call(call).await.expect("searched"));
    let (a, b) = ("/workspace/src/a.rs", "/workspace/src/deep/b.rs");
    assert_eq!(names(globs(&["*.rs"], &["target"])).await, [a, b]);
    assert_eq!(names(globs(&["src/*.rs"], &[])).await, [a]);
    assert_eq!(names(globs(&["src/**/*.rs"], &[])).await, [a, b]);
    assert_eq!(names(globs(&["*.{txt,md}"], &[])).await, ["/workspace/d.txt"]);
    let bad = host.call(globs(&["[a"], &[])).await.expect_err("no glob");
    assert_eq!(bad.kind, AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_search_goes_on_where_it_was() {
    let host = Host::new();
    fs::create_dir(host.at("d")).expect("made");
    for name in ["a", "d/b", "e"] {
        host.write(name, "x\ny\nx\nx\n", 0o644);
    }
    let expected = found(&host.call(find("x")).await.expect("searched"));
    assert_eq!(expected.len(), 9);
    for limit in 1..10 {
        let mut call = FileSearch { limit, ..find("x") };
        let mut all = Vec::new();
        loop {
            let page = host.call(call.clone()).await.expect("a page");
            all.extend(found(&page));
            match page.next {
                Some(next) => call.after = Some(next),
                None => break,
            }
        }
        assert_eq!(all, expected, "{limit} a page");
    }
    let elsewhere = SearchCursor { path: guest_path("/elsewhere"), line: None };
    let refused = host.call(FileSearch { after: Some(elsewhere), ..find("x") }).await;
    assert_eq!(refused.expect_err("no cursor").kind, AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn of_a_long_line_a_part_is_shown() {
    let host = Host::new();
    host.write("long", format!("{}needle{}", "a".repeat(5000), "b".repeat(5000)), 0o644);
    let searched = host.call(find("needle")).await.expect("searched");
    let line = searched.matches[0].line.as_ref().expect("a line");
    assert!(line.cut && line.start == 5000);
    assert!(line.text.0.len() == 1024 && line.text.0.windows(6).any(|part| part == b"needle"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    // Not `..`, by which it would write outside.
    fn pages_of_any_size_make_the_whole(names in btree_set("[a-c-][a-c.-]{0,2}(/[a-c-][a-c.-]{0,2}){0,2}", 1..60), limit in 1..20_u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let host = Host::new();
            for name in &names {
                if let Some(parent) = host.at(name).parent() {
                    drop(fs::create_dir_all(parent));
                }
                drop(fs::write(host.at(name), ""));
            }
            let whole = all_pages(&host, list(".", true)).await;
            let paged = all_pages(&host, FileList { limit, ..list(".", true) }).await;
            assert_eq!(whole, paged);
            let is_sorted = whole.is_sorted_by_key(|path| path.split('/').map(String::from).collect::<Vec<_>>());
            assert!(is_sorted, "{whole:?}");
        });
    }
}

#[tokio::test]
async fn a_cursor_may_have_vanished() -> Result<(), AgentError> {
    let host = Host::new();
    fs::create_dir(host.at("b")).expect("made");
    for name in ["a", "b/1", "b/2", "c"] {
        host.write(name, "", 0o644);
    }
    let after = |path: &str| Some(GuestPath::new(path).expect("a path"));
    let call = |cursor: &str| FileList { after: after(cursor), ..list(".", true) };
    let rest = host.call(call("/workspace/b/1")).await?;
    assert_eq!(paths(&rest), ["/workspace/b/2", "/workspace/c"]);
    fs::remove_dir_all(host.at("b")).expect("removed");
    assert_eq!(paths(&host.call(call("/workspace/b/1")).await?), ["/workspace/c"]);
    Ok(())
}
