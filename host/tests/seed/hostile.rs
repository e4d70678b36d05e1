//! Archives that no program makes by accident.

use crate::image::What;
use crate::making::Place;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write;

/// A member's header, and its data filled up to whole blocks.
pub fn member(name: &[u8], flag: u8, link: &[u8], data: &[u8]) -> Vec<u8> {
    sized_member(name, flag, link, data, data.len() as u64)
}

fn sized_member(name: &[u8], flag: u8, link: &[u8], data: &[u8], size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, b"0000644\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000005\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(157, link);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

pub fn pax(record: &str) -> Vec<u8> {
    let digits = |length: usize| length.to_string().len();
    let mut length = record.len() + 3;
    while length != record.len() + 2 + digits(length) {
        length += 1;
    }
    member(b"pax", b'x', b"", format!("{length} {record}\n").as_bytes())
}

#[test]
fn members_that_lead_elsewhere_are_refused() {
    let place = Place::new();
    let link = member(b"link", b'2', b"/etc", b"");
    for (members, name, why) in [
        (vec![member(b"/etc/passwd", b'0', b"", b"x")], "/etc/passwd", "absolute"),
        (vec![member(b"../up", b'0', b"", b"x")], "../up", "`..`"),
        (vec![member(b"a/../../up", b'0', b"", b"x")], "a/../../up", "`..`"),
        (vec![member(b"a/..", b'5', b"", b"")], "a/..", "`..`"),
        (vec![pax("path=/x"), member(b"x", b'0', b"", b"")], "/x", "absolute"),
        (
            vec![link.clone(), member(b"link/passwd", b'0', b"", b"x")],
            "link/passwd",
            "below the symbolic link `link`",
        ),
        (
            vec![link.clone(), member(b"link/a/b", b'0', b"", b"x")],
            "link/a/b",
            "below the symbolic link `link`",
        ),
        (
            vec![member(b"f", b'0', b"", b""), member(b"f/a", b'0', b"", b"")],
            "f/a",
            "below the file `f`",
        ),
        (vec![member(b"h", b'1', b"/etc/passwd", b"")], "h", "absolute"),
        (vec![member(b"h", b'1', b"../x", b"")], "h", "`..`"),
        (vec![member(b"h", b'1', b"later", b"")], "h", "comes not before it"),
        (
            vec![member(b"d/", b'5', b"", b""), member(b"h", b'1', b"d", b"")],
            "h",
            "hard link to a directory",
        ),
        (
            vec![member(b"d/a", b'0', b"", b""), member(b"d", b'2', b"x", b"")],
            "d",
            "in place of a full directory",
        ),
        (vec![member(b".", b'2', b"/etc", b"")], ".", "in the place of the root"),
        (vec![member(b"", b'0', b"", b"")], "", "empty name"),
        (vec![member(b"l", b'2', b"", b"")], "l", "0 bytes"),
    ] {
        let error = place.refusal(&place.file("archive", archive(&members)));
        let chain = error.chain();
        assert!(chain.contains(&format!("`{name}`")) && chain.contains(why), "{name}: {chain}");
        assert_eq!(error.kind(), pyro::ErrorKind::InvalidInput);
    }
}

#[test]
fn what_was_replaced_is_gone() {
    let place = Place::new();
    let members = [
        member(b"d", b'5', b"", b""),
        member(b"d", b'2', b"/etc", b""),
        member(b"d", b'5', b"", b""),
        member(b"d/inside", b'0', b"", b"ours"),
        member(b"f", b'0', b"", b"one"),
        member(b"g", b'1', b"f", b""),
        member(b"f", b'0', b"", b"two"),
        member(b"g", b'1', b"g", b""),
    ];
    let (_, tree) = place.seed_path(&place.file("archive", archive(&members)));
    assert_eq!(tree[&b"d/inside"[..]].what, What::File(b"ours".to_vec()));
    assert_eq!(tree[&b"g"[..]].what, What::File(b"one".to_vec()));
    assert_eq!((tree[&b"g"[..]].links, tree[&b"f"[..]].links), (1, 1));
}

#[test]
fn headers_that_lie_are_refused() {
    let place = Place::new();
    let half = member(b"a", b'0', b"", b"content")[..512 + 3].to_vec();
    let mut no_octal = member(b"a", b'0', b"", b"");
    no_octal[124] = b'9';
    for (bytes, why) in [
        (half, "cut short"),
        (archive(&[sized_member(b"big", b'0', b"", b"", 1 << 32)]), "cut short"),
        (archive(&[sized_member(b"x", b'x', b"", b"", 1 << 30)]), "more than 1 MiB"),
        (archive(&[sized_member(b"L", b'L', b"", b"", 1 << 30)]), "more than 1 MiB"),
        (archive(&[member(b"x", b'x', b"", b"999 path=a\n")]), "damaged"),
        (archive(&[member(b"m", b'M', b"", b"")]), "several volumes"),
        (archive(&[member(b"ok", b'0', b"", b""), no_octal]), "checksum"),
        (archive(&[pax("GNU.sparse.size=1"), member(b"s", b'0', b"", b"data")]), "sparse file `s`"),
        (archive(&[pax("GNU.sparse.map=5,1,0,3"), member(b"s", b'0', b"", b"data")]), ""),
    ] {
        let made = place.file("archive", bytes);
        if why.is_empty() {
            // A map without a size is no map.
            place.seed_path(&made);
            continue;
        }
        let error = place.refusal(&made);
        assert!(error.chain().contains(why), "{why}: {}", error.chain());
    }
}

#[test]
fn maps_that_do_not_add_up_are_refused() {
    let place = Place::new();
    for map in ["5,1,0,3", "0,9", "0,4,4", "0,4,18446744073709551615,1", "0,2,1,2"] {
        let length = |record: &str| {
            let mut length = record.len() + 3;
            while length != record.len() + 2 + length.to_string().len() {
                length += 1;
            }
            format!("{length} {record}\n")
        };
        let records =
            [length("GNU.sparse.size=100"), length(&format!("GNU.sparse.map={map}"))].concat();
        let header = member(b"pax", b'x', b"", records.as_bytes());
        let error = place
            .refusal(&place.file("archive", archive(&[header, member(b"s", b'0', b"", b"data")])));
        assert!(error.chain().contains("map of the sparse file"), "{map}: {}", error.chain());
    }
}

#[test]
fn many_large_holes_are_bounded() {
    let place = Place::new();
    let mut members = Vec::new();
    for index in 0..100 {
        let size = 16_u64 << 40;
        members.push(pax(&format!("GNU.sparse.size={size}")));
        members.push(member(format!("hole{index}").as_bytes(), b'0', b"", b""));
    }
    let error = place.refusal(&place.file("archive", archive(&members)));
    assert!(error.chain().contains("files with holes are too large"), "{}", error.chain());
    let larger = pax(&format!("GNU.sparse.size={}", (16_u64 << 40) + 1));
    let one = archive(&[larger, member(b"hole", b'0', b"", b"")]);
    let error = place.refusal(&place.file("archive", one));
    assert!(error.chain().contains("larger than 16 TiB"), "{}", error.chain());
}

#[test]
fn names_that_linux_does_not_take_are_refused() {
    let place = Place::new();
    for (record, why) in [
        (format!("path={}", "n".repeat(256)), "longer than 255"),
        (format!("path={}", "n/".repeat(2100)), "longer than 4084"),
        ("path=a\0b".to_owned(), "NUL"),
        (format!("linkpath={}", "t".repeat(4096)), "4096 bytes"),
    ] {
        let made = place.file("archive", archive(&[pax(&record), member(b"x", b'2', b"y", b"")]));
        let error = place.refusal(&made);
        assert!(error.chain().contains(why), "{why}: {}", error.chain());
    }
}

/// Without a single entry to be cancelled at.
#[test]
fn who_cancels_is_not_held_by_what_is_passed_over() {
    let place = Place::new();
    let passed = member(b"long", b'L', b"", b"name\0").repeat(100);
    let volume = sized_member(b"volume", b'V', b"", b"", 1 << 33);
    for bytes in [passed, volume] {
        let path = place.file("archive", bytes);
        let source = pyro::seed::Source::from_path(&path).unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        cancel.cancel();
        let built = pyro::seed::build(&source, &place.path("image"), &cancel);
        assert_eq!(built.expect_err("cancelled").kind(), pyro::ErrorKind::Cancelled);
        std::fs::remove_file(place.path("image")).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever an archive says, it ends with a seed or a reason.
    #[test]
    fn damaged_archives_do_no_harm(
        at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        compressed: bool,
    ) {
        let place = Place::new();
        let mut bytes = archive(&[
            pax("mtime=1.5"),
            member(b"dir", b'5', b"", b""),
            member(b"dir/file", b'0', b"", b"content"),
            member(b"link", b'2', b"dir", b""),
            member(b"hard", b'1', b"dir/file", b""),
        ]);
        if compressed {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        for (index, byte) in at {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let source = pyro::seed::Source::from_path(&place.file("archive", bytes)).unwrap();
        let image = place.path("image");
        match crate::making::build(&source, &image) {
            Ok(_) => drop(crate::image::Image::open(&image).tree()),
            Err(error) => prop_assert_eq!(error.kind(), pyro::ErrorKind::InvalidInput),
        }
    }
}
