//! Directories of the host as seeds.

use crate::image::{Image, What, assert_same, tree_of};
use crate::making::{Place, build, set_mode, set_mtime};
use pyro::ErrorKind;
use pyro::seed::{self, Content, Entry, Mtime, Source, Surroundings, Visitor, Walk};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::thread::set_thread_res_uid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use tokio_util::sync::CancellationToken;

#[test]
fn nothing_is_an_empty_directory() {
    let place = Place::new();
    let (built, tree) = place.seed(&Source::Empty);
    assert_eq!((built.entry_count, built.bytes_written), (0, 0));
    assert!(built.image_bytes <= 8192, "{}", built.image_bytes);
    let root = &tree[&b""[..]];
    assert_eq!((tree.len(), root.mode, &root.what), (1, 0o755, &What::Directory));
}

#[test]
fn r5_modes_and_times_survive() {
    let place = Place::new();
    let top = place.dir("top");
    for (name, mode) in [("run", 0o755), ("set-id", 0o6711), ("read-only", 0o444)] {
        place.file(&format!("top/{name}"), name);
        set_mode(&top.join(name), mode);
    }
    place.dir("top/shared");
    set_mode(&top.join("shared"), 0o1777);
    set_mtime(&top.join("run"), -300_000_000, 123_456_789);
    set_mtime(&top.join("read-only"), 5_000_000_000, 999_999_999);
    symlink("run", top.join("link")).unwrap();
    set_mtime(&top.join("link"), 1, 1);
    set_mtime(&top.join("shared"), 0, 2);
    set_mtime(&top, 1_000_000_000, 3);
    let (built, tree) = place.seed_path(&top);
    assert_eq!(built.warnings, Vec::<String>::new());
    assert_eq!(tree[&b"run"[..]].mtime, (-300_000_000, 123_456_789));
    assert_eq!(tree[&b"set-id"[..]].mode, 0o6711);
    assert_same(&tree, &tree_of(&top));
}

#[test]
fn r6_real_trees_are_taken() {
    let place = Place::new();
    let top = place.dir("top");
    place.file("top/node_modules/x/cli.js", "x");
    place.dir("top/node_modules/.bin");
    symlink("../x/cli.js", top.join("node_modules/.bin/x")).unwrap();
    symlink("../../../outside", top.join("escape")).unwrap();
    symlink("/usr/bin/python3", top.join("python")).unwrap();
    fs::hard_link(top.join("node_modules/x/cli.js"), top.join("cli.js")).unwrap();
    fs::hard_link(top.join("python"), top.join("python3")).unwrap();
    place.dir("top/empty/and/deep");
    let expected = tree_of(&top);
    mknodat(CWD, top.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(top.join("socket")).unwrap();
    set_mtime(&top, expected[&b""[..]].mtime.0, u32::try_from(expected[&b""[..]].mtime.1).unwrap());
    let (built, tree) = place.seed_path(&top);
    assert_eq!(
        built.warnings,
        ["skipped `fifo`: it is a FIFO", "skipped `socket`: it is a socket"]
    );
    assert_eq!(tree[&b"cli.js"[..]].links, 2);
    assert_same(&tree, &expected);
    assert_eq!(built.entry_count, 13 - 1);
}

#[test]
fn r25_names_keep_what_they_have() {
    let place = Place::new();
    let top = place.dir("top");
    let long = [b'n'; 255];
    for name in
        [&b" both ends "[..], b"new\nline", b"\xff\xfe", b"!before dot", b"-", b"..a", &long]
    {
        fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let (_, tree) = place.seed_path(&top);
    assert_same(&tree, &tree_of(&top));
}

#[test]
fn every_size_is_taken() {
    let place = Place::new();
    let top = place.dir("top");
    for size in [0, 1, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) - 1, (1 << 20) + 1] {
        let content: Vec<u8> = (0..size).map(|at: usize| (at % 251 + 1) as u8).collect();
        place.file(&format!("top/{size}"), content);
        place.file(&format!("top/{size}-zeros"), vec![0; size]);
    }
    for length in [1, 4031, 4032, 4033, 4095] {
        symlink("t".repeat(length), top.join(format!("link{length}"))).unwrap();
    }
    let (_, tree) = place.seed_path(&top);
    assert_same(&tree, &tree_of(&top));
}

#[test]
fn directories_of_every_size_are_taken() {
    let place = Place::new();
    let top = place.dir("top");
    // Around one block and two, with names of every length.
    for count in (100..280).step_by(11) {
        let many = place.dir(&format!("top/{count}"));
        for index in 0..count {
            fs::write(many.join(format!("{index:0>width$}", width = 3 + index % 40)), "").unwrap();
        }
    }
    let (_, tree) = place.seed_path(&top);
    assert_same(&tree, &tree_of(&top));
}

#[test]
fn holes_cost_nothing() {
    let place = Place::new();
    let top = place.dir("top");
    let file = File::create(top.join("sparse")).unwrap();
    let pieces = [(0, "first"), (1 << 20, "second"), (9 << 20, "third")];
    for (at, text) in pieces {
        file.write_all_at(text.as_bytes(), at).unwrap();
    }
    file.set_len(20 << 20).unwrap();
    File::create(top.join("huge")).unwrap().set_len(8 << 40).unwrap();
    let image = place.path("seed.erofs");
    let built = build(&Source::Directory((&top).into()), &image).unwrap();
    assert!(built.image_bytes < 2 << 20, "{}", built.image_bytes);
    assert!(image.metadata().unwrap().blocks() * 512 < 4 << 20);
    let read = Image::open(&image);
    assert_eq!(read.find("tree/huge").size, 8 << 40);
    let found = read.content(&read.find("tree/sparse"));
    assert!(found == fs::read(top.join("sparse")).unwrap());
}

#[test]
fn equal_trees_are_equal_images() {
    let place = Place::new();
    for top in ["one", "two"] {
        // In another order, and the zeros once as a hole.
        let names = if top == "one" { ["a", "b", "c"] } else { ["c", "b", "a"] };
        for name in names {
            place.file(&format!("{top}/{name}"), name);
        }
        let zeros = place.file(&format!("{top}/zeros"), vec![0; 1 << 20]);
        if top == "one" {
            File::create(&zeros).unwrap().set_len(1 << 20).unwrap();
        }
        for name in ["a", "b", "c", "zeros", "."] {
            set_mtime(&place.path(top).join(name), 7, 7);
        }
    }
    let (one, _) = place.seed_path(&place.path("one"));
    let (two, _) = place.seed_path(&place.path("two"));
    assert_eq!(one.digest, two.digest);
    set_mtime(&place.path("two/a"), 7, 8);
    let (changed, _) = place.seed_path(&place.path("two"));
    assert_ne!(one.digest, changed.digest);
}

#[test]
fn the_image_does_not_hold_itself() {
    let place = Place::new();
    let top = place.dir("top");
    place.file("top/a", "a");
    let image = top.join("seed.erofs");
    let built = build(&Source::Directory((&top).into()), &image).unwrap();
    assert_eq!(built.warnings, ["skipped `seed.erofs`: it is the seed that is being written"]);
    assert_eq!(Image::open(&image).tree().len(), 2);
}

#[test]
fn very_deep_trees_are_taken() {
    let place = Place::new();
    let mut deep = place.dir("top");
    // Deeper than a process may have files open, in paths that Linux takes.
    for _ in 0..1500 {
        deep.push("d");
        if deep.as_os_str().len() > 3900 {
            break;
        }
        fs::create_dir(&deep).unwrap();
    }
    let image = place.path("seed.erofs");
    let built = build(&Source::Directory((&place.path("top")).into()), &image).unwrap();
    assert!(built.entry_count > 1400, "{}", built.entry_count);
    // fsck.erofs 1.5 runs out of stack, also with what mkfs.erofs makes.
    let tree = Image::open_unchecked(&image).tree();
    assert_eq!(tree.len() as u64, built.entry_count + 1);
}

#[test]
fn what_cannot_be_read_is_named() {
    let place = Place::new();
    for (name, made) in
        [("file", place.file("file/locked", "content")), ("dir", place.dir("dir/locked"))]
    {
        set_mode(&made, 0);
        set_mode(&place.path(""), 0o777);
        let error = std::thread::scope(|scope| {
            let refused = scope.spawn(|| {
                // Root reads everything; this thread is nobody.
                if rustix::process::geteuid().is_root() {
                    let nobody = rustix::fs::Uid::from_raw(65534);
                    set_thread_res_uid(nobody, nobody, nobody).unwrap();
                }
                place.refusal(&place.path(name))
            });
            refused.join().unwrap()
        });
        set_mode(&made, 0o700);
        assert!(error.message().contains(&format!("{name}/locked")), "{error}");
        assert!(error.next_step().is_some_and(|hint| hint.contains("readable")));
    }
}

#[test]
fn what_is_no_source_is_refused() {
    let place = Place::new();
    let missing = place.refusal(&place.path("missing"));
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.message().contains("missing"));
    mknodat(CWD, place.path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let fifo = place.refusal(&place.path("fifo"));
    assert_eq!(fifo.kind(), ErrorKind::InvalidInput);
    assert!(fifo.message().contains("neither a directory nor a file"));
}

#[test]
fn a_target_is_never_replaced() {
    let place = Place::new();
    let image = place.file("image", "old");
    assert!(build(&Source::Empty, &image).is_err());
    assert_eq!(fs::read(&image).unwrap(), b"old");
}

#[test]
fn many_warnings_are_counted() {
    let place = Place::new();
    let top = place.dir("top");
    for index in 0..30 {
        mknodat(CWD, top.join(format!("f{index:02}")), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    let (built, _) = place.seed_path(&top);
    assert_eq!(built.warnings.len(), 21);
    assert_eq!(built.warnings[20], "10 more of this kind");
}

#[test]
fn who_cancels_waits_no_longer() {
    let place = Place::new();
    let top = place.dir("top");
    place.file("top/a", "a");
    let cancel = CancellationToken::new();
    cancel.cancel();
    let made = seed::build(&Source::Directory((&top).into()), &place.path("image"), &cancel);
    assert_eq!(made.expect_err("cancelled").kind(), ErrorKind::Cancelled);
}

/// Gives up once it has seen some of a file.
struct Impatient(CancellationToken);

impl Visitor for Impatient {
    fn root(&mut self, _: u32, _: Mtime) -> pyro::Result<()> {
        Ok(())
    }

    fn entry(&mut self, _: &Entry, content: &mut dyn Content) -> pyro::Result<()> {
        content.read_exact(&mut [0; 10]).unwrap();
        self.0.cancel();
        content.read_exact(&mut [0; 10]).expect_err("there is no more");
        Ok(())
    }
}

#[test]
fn who_cancels_a_large_file_waits_no_longer() {
    let place = Place::new();
    let top = place.dir("top");
    place.file("top/large", [1; 100]);
    let cancel = CancellationToken::new();
    let mut visitor = Impatient(cancel.clone());
    let mut walk = Walk::new(&mut visitor, &cancel);
    let scratch = place.path("");
    let around = Surroundings { avoid: None, scratch: &scratch };
    let walked = Source::Directory((&top).into()).walk(&mut walk, around);
    assert_eq!(walked.expect_err("cancelled").kind(), ErrorKind::Cancelled);
}

/// Removes a file when it is shown, before it is read.
struct Remover(std::path::PathBuf, Vec<String>);

impl Visitor for Remover {
    fn root(&mut self, _: u32, _: Mtime) -> pyro::Result<()> {
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> pyro::Result<()> {
        if entry.path.name() == b"b" {
            fs::remove_file(self.0.join("b")).unwrap();
        }
        let mut bytes = Vec::new();
        let read = content.read_to_end(&mut bytes);
        read.map_err(|_| pyro::Error::new(ErrorKind::Io, "it cannot be read"))?;
        self.1.push(entry.path.to_string());
        Ok(())
    }
}

#[test]
fn a_file_that_vanishes_before_it_is_read_is_left_out() {
    let place = Place::new();
    let top = place.dir("top");
    for name in ["a", "b", "d"] {
        place.file(&format!("top/{name}"), "content");
    }
    // Another name of it is the file then.
    fs::hard_link(top.join("b"), top.join("c")).unwrap();
    let cancel = CancellationToken::new();
    let mut visitor = Remover(top.clone(), Vec::new());
    let mut walk = Walk::new(&mut visitor, &cancel);
    let scratch = place.path("");
    let around = Surroundings { avoid: None, scratch: &scratch };
    Source::Directory((&top).into()).walk(&mut walk, around).unwrap();
    let (count, warnings) = walk.finish();
    assert_eq!((count, warnings.lines()), (3, vec!["`b` vanished".to_owned()]));
    assert_eq!(visitor.1, ["a", "c", "d"]);
}
