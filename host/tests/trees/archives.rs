//! Archives in which names come again, pushed as `tar` unpacks them.

use crate::guest::Served;
use crate::tree::{Look, Node, look};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use pyro::Result;
use pyro::seed::Source;
use pyro::workspace::push::{Pushed, push};
use pyro_protocol::GuestPath;
use pyro_protocol::push::Push;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio_util::sync::CancellationToken;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "d/x", "d/y"];

#[derive(Debug, Clone)]
enum Member {
    File(&'static str, Vec<u8>),
    Directory(&'static str),
    Symlink(&'static str),
    Link(&'static str, &'static str),
}

fn member() -> impl Strategy<Value = Member> {
    let name = || select(&NAMES[..]);
    prop_oneof![
        5 => (name(), vec(b'a'..=b'z', 0..9)).prop_map(|(name, content)| Member::File(name, content)),
        1 => name().prop_map(Member::Directory),
        1 => name().prop_map(Member::Symlink),
        3 => (name(), name()).prop_map(|(name, first)| Member::Link(name, first)),
    ]
}

fn block(member: &Member) -> Vec<u8> {
    let (name, flag, link, data): (_, _, _, &[u8]) = match member {
        Member::File(name, content) => (name, b'0', "", content),
        Member::Directory(name) => (name, b'5', "", b""),
        Member::Symlink(name) => (name, b'2', "somewhere", b""),
        Member::Link(name, first) => (name, b'1', *first, b""),
    };
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, if flag == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000005\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// What is where, with what content, and which names are one file.
fn shape(look: Look) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let shape = look.into_iter().map(|(path, node)| match node {
        Node::Directory { .. } => (path, b"directory".to_vec(), Vec::new()),
        Node::Symlink { target, .. } => (path, b"symlink".to_vec(), target),
        Node::File { content, first, .. } => (path, content, first),
    });
    shape.collect()
}

async fn pushed(served: &Served, archive: &Path) -> Result<Pushed> {
    let scratch = tempfile::tempdir().unwrap();
    let dest = GuestPath::new("/workspace").unwrap();
    let call = Push { dest, delete: true, dry_run: false, checksum: false };
    let source = Source::from_path(archive)?;
    push(&served.agent, source, call, scratch.path(), &CancellationToken::new()).await
}

/// Whether both took it; then it is the same.
async fn compare(members: &[Member]) -> bool {
    let home = tempfile::tempdir().unwrap();
    let (archive, unpacked) = (home.path().join("archive"), home.path().join("unpacked"));
    let blocks = members.iter().map(block).chain([vec![0; 1024]]);
    fs::write(&archive, blocks.collect::<Vec<_>>().concat()).unwrap();
    fs::create_dir(&unpacked).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&unpacked).stderr(Stdio::null());
    let served = Served::honest();
    match pushed(&served, &archive).await {
        Err(error) => {
            // What is refused was looked at; what was begun is carried out.
            assert_eq!(error.kind(), pyro::ErrorKind::InvalidInput, "{}", error.chain());
            false
        }
        Ok(_) if !tar.status().unwrap().success() => false,
        Ok(_) => {
            assert_eq!(shape(look(served.workspace())), shape(look(&unpacked)), "{members:?}");
            true
        }
    }
}

#[tokio::test]
async fn r5_a_name_that_comes_again() {
    let file = |name, content: &str| Member::File(name, content.into());
    for members in [
        // The first content has another name when its own comes again.
        vec![file("a", "one"), Member::Link("b", "a"), file("a", "two")],
        // Something else was there in between.
        vec![file("a", "one"), Member::Symlink("a"), file("a", "two")],
        vec![file("a", "one"), Member::Directory("a"), file("a", "two")],
        vec![file("a", "one"), file("b", "two"), Member::Link("a", "b"), file("a", "three")],
        vec![file("a", "one"), file("a", "two"), Member::Link("b", "a"), file("a", "three")],
    ] {
        assert!(compare(&members).await, "{members:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn r5_names_that_come_again_in_any_way(members in vec(member(), 1..9)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(compare(&members));
    }
}
