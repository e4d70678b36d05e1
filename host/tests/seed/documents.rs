//! What strangers say of images, from nowhere and from what is right with a few
//! bytes changed: every decoder comes to an end, and never fails as if pyro were to
//! blame. host/fuzz does the same for longer.

use crate::hostile::{archive, member, pax};
use crate::image::Image;
use crate::making::Place;
use proptest::collection::vec;
use proptest::prelude::*;
use pyro::context::Roots;
use pyro::oci::document::{Document, LAYERS_MAX, choose};
use pyro::oci::layer::UNPACKED_MAX;
use pyro::oci::layout::{Found, Scratch, find};
use pyro::oci::registry::challenge;
use pyro::oci::root::{Baked, Root};
use pyro::oci::{ImageConfig, Layer, Merged, Reference};
use pyro::seed::walk::Warnings;
use pyro::{ErrorKind, Result};
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use tokio_util::sync::CancellationToken;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Documents and the like that are right; `D` is a digest.
const RIGHT: [&str; 7] = [
    r#"{"schemaVersion":2,"manifests":[{"digest":"D","size":7,"platform":{"os":"linux",
        "architecture":"amd64","variant":"v2"},"annotations":{"a":"b"}}]}"#,
    r#"{"schemaVersion":2,"config":{"mediaType":"","digest":"D","size":2},
        "layers":[{"digest":"D","size":9},{"digest":"D","size":0}]}"#,
    r#"{"os":"linux","architecture":"amd64","config":{"Env":["A=b","C"],"Cmd":"one",
        "Entrypoint":["a","b"],"User":"7:8","WorkingDir":"/srv"},"rootfs":{"diff_ids":["D"]}}"#,
    r#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#,
    "registry.example:5000/some/app.of_mine:1.2-x@D",
    "alpine",
    r#"Basic, Bearer realm="https://a/t",service="s, \"x",scope=y"#,
];

/// Which of them a configuration is, and what `docker save` begins with.
const CONFIG: usize = 2;
const SAVED: usize = 3;

fn decode(text: &[u8]) {
    match Document::parse(text) {
        Ok(Document::Index(entries)) => drop(choose(&entries)),
        Ok(Document::Manifest(manifest)) => assert!(manifest.layers.len() <= LAYERS_MAX),
        Err(bad) => drop(bad.to_string()),
    }
    if let Ok(config) = ImageConfig::parse(text) {
        let words = config.entrypoint.iter().chain(&config.cmd);
        assert!(words.chain([&config.user, &config.working_dir]).all(|word| !word.contains('\0')));
    }
    let Ok(text) = str::from_utf8(text) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference), "{text}");
    }
    assert!(challenge::parse(text).len() <= text.len());
}

/// A right text with a few bytes changed, and cut short or said twice.
fn nearly_right(which: Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (which, changes, any::<prop::sample::Index>(), 0..3_u8).prop_map(
        |(which, changes, end, how)| {
            let mut text = RIGHT[which].replace('D', DIGEST).into_bytes();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            match how {
                0 => text.truncate(end.index(text.len())),
                1 => text.extend_from_within(end.index(text.len())..),
                _ => {}
            }
            text
        },
    )
}

/// A member of a layer, with what may come before one.
fn any_member() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        "[ab./]{0,8}",
        r"\.wh\.[ab.]{0,3}",
        r"[ab]/\.wh\.(\.wh\.\.opq|a)",
        "(usr/lib/pyro|etc/hosts|tmp|dev)(/a)?",
        r"\PC{0,20}",
    ];
    let data = vec(any::<u8>(), 0..600);
    let record = prop_oneof![
        "path=[ab./]{0,300}",
        "(size|uid|mtime)=-?[0-9]{0,22}",
        r"SCHILY\.xattr\.(user\.[ab]{0,3}|security\.capability|trusted\.a)=\PC{0,40}",
        r"GNU\.sparse\.(size|map|major)=[0-9,]{0,12}",
        "linkpath=[ab./]{0,20}",
    ];
    (name, "[ab./]{0,9}", data, prop::option::of(record), any::<prop::sample::Index>()).prop_map(
        |(name, link, data, record, kind)| {
            let kinds = b"000112255367gKLSDV";
            let kind = kinds[kind.index(kinds.len())];
            let data = if b"0SgKL".contains(&kind) { data } else { Vec::new() };
            let name = &name.as_bytes()[..name.len().min(100)];
            let before = record.map(|record| pax(&record)).unwrap_or_default();
            [before, member(name, kind, link.as_bytes(), &data)].concat()
        },
    )
}

/// What comes of layers: an image, or why there is none.
fn make(layers: &[Layer], agent: &Path, image: &Path) -> Result<()> {
    let (mut merged, mut warnings) = (Merged::new(), Warnings::default());
    let cancel = CancellationToken::new();
    for layer in layers {
        layer.merge_into(&mut merged, UNPACKED_MAX, &mut warnings, &cancel)?;
    }
    // As whoever makes an image asks before anything is written.
    if merged.content_bytes() > 1 << 30 {
        return Ok(());
    }
    let mut root = Root::new(image)?;
    root.bake(&mut merged, &Baked { agent, config: b"{}", working_dir: "/a/b" })?;
    for (number, layer) in (1..).zip(layers) {
        root.fill(&mut merged, number, layer, &cancel)?;
    }
    root.finish(&merged)?;
    // The checker of others looks at it.
    drop(Image::open(image));
    Ok(())
}

fn blameless<T>(result: Result<T>) -> Option<T> {
    result
        .inspect_err(|error| assert_ne!(error.kind(), ErrorKind::Internal, "{}", error.chain()))
        .ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_from_nowhere_harm_a_decoder(text in vec(any::<u8>(), 0..400)) {
        decode(&text);
    }

    #[test]
    fn nothing_that_is_nearly_right_harms_a_decoder(text in nearly_right(0..RIGHT.len())) {
        decode(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn layers_of_any_members_are_an_image_or_refused(
        layers in vec(vec(any_member(), 0..12), 1..4),
    ) {
        let place = Place::new();
        let agent = place.file("agent", "an agent");
        let layers: Vec<_> = (0..).zip(&layers).map(|(number, members)| {
            let file = File::open(place.file(&format!("layer-{number}"), archive(members))).unwrap();
            Layer { name: "a layer".into(), file, diff_id: None }
        }).collect();
        blameless(make(&layers, &agent, &place.path("root.erofs")));
    }

    #[test]
    fn an_archive_of_any_parts_is_an_image_or_refused(
        manifest in nearly_right(SAVED..SAVED + 1),
        config in nearly_right(CONFIG..SAVED + 1),
        others in vec(any_member(), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let place = Place::new();
        let parts = [("manifest.json", &manifest), ("c", &config), ("l", &Vec::new())];
        let parts = parts.map(|(name, data)| member(name.as_bytes(), b'0', b"", data));
        let mut bytes = archive(&[&others[..], &parts[..]].concat());
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let path = place.file("image.tar", bytes);
        let scratch = Scratch { dir: &place.dir("scratch"), room: 1 << 20 };
        let admitted = Roots::UNLIMITED.admit(&path).unwrap();
        let found = find(&admitted, None, scratch, &CancellationToken::new());
        if let Some(Found::Image(image)) = blameless(found) {
            prop_assert!(image.layers.len() <= LAYERS_MAX);
        }
        // A name is no path of the host's.
        let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
        prop_assert_eq!(beside, 2);
    }
}
