//! A saved image as a file: an archive in an archive, each with members that a
//! stranger chose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro::ErrorKind;
use pyro::context::Roots;
use pyro::oci::layer::UNPACKED_MAX;
use pyro::oci::layout::{Found, Scratch, find};
use pyro::oci::{Layer, Merged};
use pyro::seed::entry::BadPath;
use pyro::seed::walk::Warnings;
use tokio_util::sync::CancellationToken;

/// A name, a kind, a link's target, data.
type Member<'a> = (&'a [u8], u8, &'a [u8], &'a [u8]);

const KINDS: &[u8] = b"0011225334567xxgLKSDVM";

fn write(tar: &mut Vec<u8>, (name, kind, link, data): Member<'_>) {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8], most: usize| {
        let bytes = &bytes[..bytes.len().min(most)];
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, name, 100);
    put(100, b"0000644", 7);
    put(124, format!("{:011o}", data.len()).as_bytes(), 11);
    put(136, b"00000000001", 11);
    put(148, b"        ", 8);
    put(156, &[KINDS[usize::from(kind) % KINDS.len()]], 1);
    put(157, link, 100);
    put(257, b"ustar\x0000", 8);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&block);
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fuzz_target!(|input: (&[u8], &[u8], Vec<Member<'_>>, Vec<Member<'_>>)| {
    let (manifest, config, layer, others) = input;
    let mut inner = Vec::new();
    layer.into_iter().for_each(|member| write(&mut inner, member));
    inner.resize(inner.len() + 1024, 0);
    let mut outer = Vec::new();
    others.into_iter().for_each(|member| write(&mut outer, member));
    for (name, data) in [("manifest.json", manifest), ("c", config), ("l", inner.as_slice())] {
        write(&mut outer, (name.as_bytes(), 0, b"", data));
    }
    outer.resize(outer.len() + 1024, 0);

    let place = tempfile::tempdir().expect("a directory");
    let (file, dir) = (place.path().join("image"), place.path().join("scratch"));
    std::fs::create_dir(&dir).expect("made");
    let cancel = CancellationToken::new();
    let mut merged = Merged::new();
    for bytes in [&outer, &inner] {
        std::fs::write(&file, bytes).expect("written");
        let place = Roots::UNLIMITED.admit(&file).expect("there");
        match find(&place, None, Scratch { dir: &dir, room: 1 << 20 }, &cancel) {
            Ok(Found::Image(image)) => {
                image.layers.iter().for_each(|layer| merge(&mut merged, layer))
            }
            Ok(Found::Tree(_)) => unreachable!("it is no directory"),
            Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{}", error.chain()),
        }
        std::fs::remove_dir_all(&dir).expect("removed");
        std::fs::create_dir(&dir).expect("made");
    }
    let _ = merged.visit(|visit| {
        let path = visit.path.as_bytes();
        assert!(path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b"..")));
        Ok::<_, BadPath>(())
    });
});

fn merge(merged: &mut Merged, layer: &Layer) {
    let mut warnings = Warnings::default();
    let merging = layer.merge_into(merged, UNPACKED_MAX, &mut warnings, &CancellationToken::new());
    if let Err(error) = merging {
        assert_ne!(error.kind(), ErrorKind::Internal, "{}", error.chain());
    }
}
