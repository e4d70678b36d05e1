//! Images that the stories make themselves.

use super::server::Registry;
use pyro::digest::Sha256;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layer: a tar archive, and how it is compressed on its way.
pub struct Layer {
    pub tar: Vec<u8>,
    pub packed: Packed,
}

#[derive(Clone, Copy)]
pub enum Packed {
    Gzip,
    Zstd,
}

impl Packed {
    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Gzip => gzip(tar),
            Self::Zstd => zstd(tar),
        }
    }
}

/// A frame of blocks that are stored as they are.
fn zstd(content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    // No checksum, no length, a window of 1 MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x50];
    let count = content.len().div_ceil(BLOCK).max(1);
    for (index, block) in content.chunks(BLOCK).enumerate() {
        let is_last = u32::from(index + 1 == count);
        let header = is_last | u32::try_from(block.len()).unwrap() << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .args(["-1", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = tar.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A tar of what is in a directory, all of it root's.
pub fn tar_of(directory: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(directory)
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Pushes an image; `says` is the inside of the configuration's `config`.
pub fn push(registry: &Registry, name: &str, says: &str, layers: &[Layer]) -> String {
    let manifest = manifest(registry, name, "amd64", says, layers);
    registry.push_manifest(name, "1", MANIFEST, &manifest)
}

/// Pushes an index with the image, and with one for another processor before it.
pub fn push_index(registry: &Registry, name: &str, says: &str, layers: &[Layer]) -> String {
    let entries: Vec<_> = [("arm64", &layers[..0]), ("amd64", layers)]
        .into_iter()
        .map(|(architecture, layers)| {
            let text = manifest(registry, name, architecture, says, layers);
            let digest = registry.push_manifest(name, architecture, MANIFEST, &text);
            format!(
                r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{},
                "platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                text.len()
            )
        })
        .collect();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#,
        entries.join(",")
    );
    registry.push_manifest(name, "1", INDEX, &index)
}

fn manifest(
    registry: &Registry,
    name: &str,
    architecture: &str,
    says: &str,
    layers: &[Layer],
) -> String {
    let diff_ids: Vec<_> =
        layers.iter().map(|layer| format!("{:?}", Sha256::of(&layer.tar).to_string())).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{{says}}},
        "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let config_digest = registry.push_blob(name, config.as_bytes());
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            let packed = layer.packed.pack(&layer.tar);
            let digest = registry.push_blob(name, &packed);
            let (media_type, size) = (layer.packed.media_type(), packed.len());
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}",
        "digest":"{config_digest}","size":{}}},"layers":[{}]}}"#,
        config.len(),
        descriptors.join(",")
    )
}
