//! Archives with images in them that ask for more than anybody should give.

use crate::hostile::{archive, member, pax};
use crate::making::Place;
use pyro::context::Roots;
use pyro::oci::layout::{Found, Scratch, find};
use pyro::{ErrorKind, Result};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

const GIB: u64 = 1 << 30;

/// What is found in an archive, with so much room for its parts, and where these are.
fn found(place: &Place, members: &[Vec<u8>], room: u64) -> (Result<Found>, PathBuf) {
    let path = place.file("image.tar", archive(members));
    let dir = place.dir("scratch");
    let admitted = Roots::UNLIMITED.admit(&path).unwrap();
    (find(&admitted, None, Scratch { dir: &dir, room }, &CancellationToken::new()), dir)
}

fn saved(layers: &[&str]) -> Vec<Vec<u8>> {
    let manifest = format!(r#"[{{"Config":"c","RepoTags":["a:1"],"Layers":{layers:?}}}]"#);
    let diff_ids = vec![format!("sha256:{}", "0".repeat(64)); layers.len()];
    let config = format!(r#"{{"rootfs":{{"diff_ids":{diff_ids:?}}}}}"#);
    vec![
        member(b"manifest.json", b'0', b"", manifest.as_bytes()),
        member(b"c", b'0', b"", config.as_bytes()),
    ]
}

/// A file that is nothing but a hole.
fn hole(bytes: u64) -> [Vec<u8>; 3] {
    let records = [format!("GNU.sparse.size={bytes}"), "GNU.sparse.map=0,0".into()];
    let [size, map] = records.map(|record| pax(&record));
    // Both records in one header.
    let (size, map) = (&size[512..], &map[512..]);
    let end = |records: &[u8]| records.iter().position(|byte| *byte == 0).unwrap();
    let both = [&size[..end(size)], &map[..end(map)]].concat();
    [member(b"pax", b'x', b"", &both), member(b"hole", b'0', b"", b""), Vec::new()]
}

#[test]
fn what_there_is_no_room_for_is_not_begun() {
    let place = Place::new();
    let members = [&saved(&[])[..], &hole(3 * GIB)].concat();
    let (found, dir) = found(&place, &members, 2 * GIB);
    let error = found.expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{}", error.chain());
    assert!(fs::read_dir(dir).unwrap().next().is_none());
    let (found, _) = self::found(&place, &[&saved(&[])[..], &hole(65 * GIB)].concat(), u64::MAX);
    assert!(found.expect_err("too much").chain().contains("more than 64 GiB"));
}

#[test]
fn a_hole_of_a_part_takes_no_room() {
    let place = Place::new();
    let (found, dir) = found(&place, &[&saved(&[])[..], &hole(3 * GIB)].concat(), 4 * GIB);
    assert!(matches!(found.unwrap(), Found::Image(image) if image.layers.is_empty()));
    let parts: Vec<_> =
        fs::read_dir(dir).unwrap().map(|part| part.unwrap().metadata().unwrap()).collect();
    assert!(parts.iter().any(|part| part.len() == 3 * GIB));
    assert!(parts.iter().map(|part| part.blocks() * 512).sum::<u64>() < 1 << 20);
}

#[test]
fn no_more_layers_are_opened_than_an_image_may_have() {
    let place = Place::new();
    let (found, _) = found(&place, &saved(&["c"; 513]), GIB);
    let error = found.expect_err("too many").chain();
    assert!(error.contains("513 layers"), "{error}");
}

#[test]
fn a_name_that_is_no_parts_is_nobodys() {
    let place = Place::new();
    let long = "n".repeat(5000);
    let mut members = saved(&[&long]);
    members.extend([pax(&format!("path={long}")), member(b"x", b'0', b"", b"")]);
    let (found, _) = found(&place, &members, GIB);
    let error = found.expect_err("it is not there").chain();
    assert!(error.contains("it has no nnn"), "{error}");
}
