//! Layers of an image, as a root image that programs of others read.

use crate::making::Place;
use pyro::oci::{Layer, Merged, layer::UNPACKED_MAX, root::Baked, root::Root};
use pyro::seed::walk::Warnings;
use rustix::fs::{XattrFlags, setxattr};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tokio_util::sync::CancellationToken;

/// A tar of a directory, everything in it a certain user's.
fn tar(directory: &Path, to: &Path, compression: &str) -> Layer {
    let status = Command::new("tar")
        .args(["--numeric-owner", "--owner=1234", "--group=5678", "--xattrs", compression, "-C"])
        .arg(directory)
        .arg("-cf")
        .arg(to)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    Layer { name: "a layer".into(), file: File::open(to).unwrap(), diff_id: None }
}

fn make(layers: &[Layer], agent: &Path, image: &Path) -> Merged {
    let (mut merged, mut warnings) = (Merged::new(), Warnings::default());
    let cancel = CancellationToken::new();
    for layer in layers {
        layer.merge_into(&mut merged, UNPACKED_MAX, &mut warnings, &cancel).unwrap();
    }
    let mut root = Root::new(image).unwrap();
    root.bake(&mut merged, &Baked { agent, config: b"{}", working_dir: "/srv/app" }).unwrap();
    for (number, layer) in (1..).zip(layers) {
        root.fill(&mut merged, number, layer, &cancel).unwrap();
    }
    root.finish(&merged).unwrap();
    merged
}

fn dumped(image: &Path, path: &str) -> String {
    let output =
        Command::new("dump.erofs").arg(format!("--path={path}")).arg(image).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn i9_layers_become_a_root_image_that_others_read() {
    let place = Place::new();
    let (lower, upper) = (place.dir("lower"), place.dir("upper"));
    fs::create_dir_all(lower.join("usr/lib/gone")).unwrap();
    fs::write(lower.join("usr/lib/gone/file"), "gone").unwrap();
    fs::write(lower.join("usr/lib/kept"), vec![b'k'; 10_000]).unwrap();
    setxattr(lower.join("usr/lib/kept"), "user.color", b"red", XattrFlags::CREATE).unwrap();
    symlink("usr/lib", lower.join("lib")).unwrap();
    fs::create_dir_all(upper.join("usr/lib")).unwrap();
    fs::write(upper.join("usr/lib/.wh.gone"), "").unwrap();
    fs::hard_link(lower.join("usr/lib/kept"), lower.join("same")).unwrap();
    fs::write(upper.join("new"), "new").unwrap();
    let agent = place.path("agent");
    fs::write(&agent, "an agent").unwrap();
    let image = place.path("root.erofs");
    let layers = [
        tar(&lower, &place.path("lower.tar.gz"), "--gzip"),
        tar(&upper, &place.path("upper.tar"), "--no-auto-compress"),
    ];
    let merged = make(&layers, &agent, &image);
    assert!(merged.content_bytes() >= 2 * 10_000);

    let copy = place.path("copy");
    let fsck = Command::new("fsck.erofs")
        .arg(format!("--extract={}", copy.display()))
        .arg(&image)
        .output();
    let fsck = fsck.unwrap();
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stderr));
    let read = |path: &str| fs::read(copy.join(path)).unwrap();
    assert_eq!(read("usr/lib/kept"), vec![b'k'; 10_000]);
    assert_eq!((read("new"), read("usr/lib/pyro/pyro-agent")), (b"new".into(), b"an agent".into()));
    assert!(!copy.join("usr/lib/gone").exists() && copy.join("srv/app").is_dir());
    assert_eq!(fs::read_link(copy.join("lib")).unwrap(), Path::new("usr/lib"));
    for mounted in ["proc", "sys", "dev", "run", "tmp", "mnt", "workspace", "etc"] {
        assert!(copy.join(mounted).is_dir(), "{mounted}");
    }
    let kept = dumped(&image, "/usr/lib/kept");
    assert!(kept.contains("1234") && kept.contains("5678"), "{kept}");
    assert!(kept.contains("Links: 2"), "{kept}");
    let xattrs = kept.split_once("Xattr size:").map(|(_, rest)| rest.trim_start());
    assert!(xattrs.is_some_and(|size| !size.starts_with("0")), "{kept}");

    // Equal layers make equal images.
    let other = place.path("other.erofs");
    make(&layers, &agent, &other);
    assert!(fs::read(&image).unwrap() == fs::read(&other).unwrap());
}

#[test]
fn i9_what_unpacks_to_too_much_or_changes_is_refused() {
    let place = Place::new();
    let lower = place.dir("lower");
    fs::write(lower.join("zeros"), vec![0; 1 << 20]).unwrap();
    let layer = tar(&lower, &place.path("lower.tar.gz"), "--gzip");
    let (mut merged, mut warnings) = (Merged::new(), Warnings::default());
    let cancel = CancellationToken::new();
    let error = layer.merge_into(&mut merged, 1 << 19, &mut warnings, &cancel).unwrap_err();
    assert!(error.message().contains("unpacks to more than"), "{}", error.message());
    let cut = place.path("cut.tar.gz");
    let whole = fs::read(place.path("lower.tar.gz")).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let cut = Layer { name: "cut".into(), file: File::open(&cut).unwrap(), diff_id: None };
    assert!(cut.merge_into(&mut Merged::new(), UNPACKED_MAX, &mut warnings, &cancel).is_err());
    let diff_id = Some(pyro::digest::Sha256::of(b"another"));
    let wrong = Layer { diff_id, ..layer };
    let error = wrong.merge_into(&mut Merged::new(), UNPACKED_MAX, &mut warnings, &cancel);
    assert_eq!(error.unwrap_err().kind(), pyro::ErrorKind::Untrusted);
}
