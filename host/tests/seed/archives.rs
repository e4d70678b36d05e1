//! Archives as seeds, as real programs make them.

use crate::image::{assert_same, tree_of};
use crate::making::{Place, set_mode, set_mtime};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs GNU tar.
fn tar(place: &Place, words: &[&str]) -> PathBuf {
    let archive = place.path("archive");
    let output = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .args(words)
        .current_dir(place.path(""))
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    archive
}

/// A tree with everything that an archive can hold in all formats.
fn sample(place: &Place) -> PathBuf {
    let top = place.dir("top");
    place.file("top/bin/run", "#!/bin/sh\n");
    set_mode(&top.join("bin/run"), 0o755);
    place.dir("top/empty");
    symlink("../../etc", top.join("up")).unwrap();
    symlink("/etc/passwd", top.join("absolute")).unwrap();
    fs::hard_link(top.join("bin/run"), top.join("again")).unwrap();
    place.file("top/ blanks ", "");
    for name in ["bin/run", "absolute", "up", "again", " blanks ", "bin", "empty", "."] {
        set_mtime(&top.join(name), 1_000_000_000, 0);
    }
    top
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn r5_r6_every_format_and_compression_is_the_same_tree() {
    let place = Place::new();
    let top = sample(&place);
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let archive = tar(&place, &[&format!("--format={format}"), "-C", "top", "."]);
        let plain = fs::read(&archive).unwrap();
        let (built, tree) = place.seed_path(&archive);
        assert_same(&tree, &tree_of(&top));
        assert_eq!(built.warnings, Vec::<String>::new());
        let (half, rest) = plain.split_at(plain.len() / 2);
        let compressed = [
            gzip(&plain),
            [gzip(half), gzip(rest)].concat(),
            compress_to_vec(&plain[..], CompressionLevel::Fastest),
            [half, rest].map(|part| compress_to_vec(part, CompressionLevel::Fastest)).concat(),
        ];
        for bytes in compressed {
            // Whatever it is called.
            let (again, _) = place.seed_path(&place.file("archive.txt", bytes));
            assert_eq!(again.digest, built.digest);
        }
    }
}

#[test]
fn r6_archives_of_a_directory_and_of_its_content_are_taken() {
    let place = Place::new();
    let top = sample(&place);
    let (_, tree) = place.seed_path(&tar(&place, &["-C", "top", "."]));
    assert_same(&tree, &tree_of(&top));
    let (_, tree) = place.seed_path(&tar(&place, &["top"]));
    assert!(tree.contains_key(&b"top/bin/run"[..]));
    let (built, tree) = place.seed_path(&tar(&place, &["-C", "top", "./bin/run", "bin//run"]));
    assert_eq!((built.entry_count, tree.len()), (3, 3));
}

#[test]
fn r6_special_files_of_an_archive_are_skipped() {
    let place = Place::new();
    place.file("top/file", "content");
    mknodat(CWD, place.path("top/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let (built, tree) = place.seed_path(&tar(&place, &["-C", "top", "."]));
    assert_eq!(built.warnings, ["skipped `fifo`: it is a FIFO"]);
    assert_eq!(tree.len(), 2);
}

#[test]
fn long_names_are_taken() {
    let place = Place::new();
    let name = "n".repeat(250);
    let deep = format!("top/{}/{name}", [&name[..]; 6].join("/"));
    place.file(&deep, "deep");
    symlink("t".repeat(4000), place.path("top/link")).unwrap();
    fs::hard_link(place.path(&deep), place.path("top/hard")).unwrap();
    for format in ["gnu", "posix"] {
        let options = [&format!("--format={format}"), "--mtime=@5", "-C", "top", "."];
        let (_, tree) = place.seed_path(&tar(&place, &options));
        let mut expected = tree_of(&place.path("top"));
        expected.values_mut().for_each(|seen| seen.mtime = (5, 0));
        assert_same(&tree, &expected);
    }
}

#[test]
fn sparse_files_of_every_kind_are_taken() {
    let place = Place::new();
    let sparse = place.file("top/sparse", "");
    let file = fs::File::options().write(true).open(&sparse).unwrap();
    // More pieces than one header has room for.
    for index in 0..60_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", index * 300_000).unwrap();
    }
    file.set_len(20_000_000).unwrap();
    fs::File::create(place.path("top/hole")).unwrap().set_len(5_000_000).unwrap();
    let expected = tree_of(&place.path("top"));
    for format in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let archive = tar(&place, &[format, &["--sparse", "-C", "top", "."]].concat());
        assert!(archive.metadata().unwrap().len() < 2 << 20, "no holes in {format:?}");
        let (_, tree) = place.seed_path(&archive);
        for name in ["sparse", "hole"] {
            let (found, expected) = (&tree[name.as_bytes()], &expected[name.as_bytes()]);
            assert!(found.what == expected.what, "{name} {format:?}");
        }
    }
}

#[test]
fn the_last_of_a_name_counts() {
    let place = Place::new();
    place.file("one/a", "first");
    place.file("one/b", "stays");
    place.file("two/a", "second");
    let archive = tar(&place, &["-C", "one", "a", "b", "-C", "../two", "a"]);
    let (_, tree) = place.seed_path(&archive);
    assert_eq!(tree[&b"a"[..]].what, crate::image::What::File(b"second".to_vec()));
    assert_eq!((tree.len(), tree[&b"a"[..]].links), (3, 1));
}

#[test]
fn archives_of_git_are_taken() {
    let place = Place::new();
    let top = place.dir("top");
    place.file("top/a", "a");
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=n", "-c", "user.email=e", "-C"]).arg(&top).args(words);
        assert!(git.output().unwrap().status.success());
    };
    git(&["init", "-q"]);
    git(&["add", "a"]);
    git(&["commit", "-qm", "one"]);
    let archive = place.path("git.tar.gz");
    git(&["archive", "--format=tar.gz", "-o", archive.to_str().unwrap(), "HEAD"]);
    let (built, tree) = place.seed_path(&archive);
    assert_eq!((built.entry_count, tree.len()), (1, 2));
}

#[test]
fn other_compressions_are_named() {
    let place = Place::new();
    for (bytes, name) in [
        (&b"\xfd7zXZ\0rest"[..], "xz"),
        (b"BZh91AY", "bzip2"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x04\x22\x4d\x18rest", "lz4"),
    ] {
        let error = place.refusal(&place.file("archive.tar", bytes));
        assert!(error.message().ends_with(&format!("{name} is not taken")), "{error}");
        assert!(error.next_step().is_some_and(|hint| hint.contains("gzip or zstd")));
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let place = Place::new();
    for (bytes, why) in [
        (Vec::new(), "it is empty"),
        (b"some text".to_vec(), "it is no tar archive, or one cut short"),
        (vec![b'x'; 5000], "it is no tar archive"),
        (gzip(&[b'x'; 5000]), "it is no tar archive"),
    ] {
        let error = place.refusal(&place.file("archive.tar", bytes));
        assert!(error.message().ends_with(why), "{error}");
        assert_eq!(error.kind(), pyro::ErrorKind::InvalidInput);
    }
}

#[test]
fn an_archive_cut_short_anywhere_is_refused() {
    let place = Place::new();
    sample(&place);
    place.file("top/content", (0..30_000).map(|at: u32| (at % 253) as u8).collect::<Vec<_>>());
    let plain = fs::read(tar(&place, &["-C", "top", "."])).unwrap();
    // What follows the first empty block is only filling.
    let end = plain.len() - plain.iter().rev().take_while(|byte| **byte == 0).count();
    let zstd = compress_to_vec(&plain[..], CompressionLevel::Fastest);
    let cuts = (1..end).step_by(997).chain([end]);
    let refused = |bytes: &[u8]| place.refusal(&place.file("cut", bytes));
    for cut in cuts {
        let error = refused(&plain[..cut]);
        assert!(error.chain().contains("cut short"), "{cut}: {}", error.chain());
    }
    for bytes in [gzip(&plain), zstd] {
        for cut in (7..bytes.len() * 9 / 10).step_by(bytes.len() / 17) {
            let error = refused(&bytes[..cut]);
            let chain = error.chain();
            assert!(chain.contains("cut short") || chain.contains("damaged"), "{cut}: {chain}");
        }
    }
}

#[test]
fn a_missing_archive_is_named() {
    let place = Place::new();
    let error = place.refusal(Path::new("/nowhere/archive.tar"));
    assert_eq!(error.kind(), pyro::ErrorKind::NotFound);
    assert!(error.message().contains("/nowhere/archive.tar"));
}

#[test]
fn r5_a_wrong_checksum_is_found_and_what_follows_is_not_looked_at() {
    let place = Place::new();
    sample(&place);
    let plain = fs::read(tar(&place, &["-C", "top", "."])).unwrap();
    for bytes in [gzip(&plain), compress_to_vec(&plain[..], CompressionLevel::Fastest)] {
        for garbage in [&[0; 10_000][..], b"not compressed"] {
            place.seed_path(&place.file("whole", [&bytes, garbage].concat()));
        }
        // The last bytes are the content's checksum, or its length.
        let mut wrong = bytes.clone();
        *wrong.last_mut().unwrap() ^= 1;
        let error = place.refusal(&place.file("wrong", wrong));
        assert!(error.chain().contains("it is damaged"), "{}", error.chain());
        let error = place.refusal(&place.file("short", &bytes[..bytes.len() - 2]));
        assert!(error.chain().contains("cut short"), "{}", error.chain());
    }
}
