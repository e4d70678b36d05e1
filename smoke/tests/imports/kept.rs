//! Images as they are kept on a host: the parts that each way has, by their names.

use super::tar::{Member, tar_of};
use pyro::digest::Sha256;
use std::fs;
use std::path::Path;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub struct Parts(Vec<(String, Vec<u8>)>);

/// What an image says: the inside of its configuration's `config`.
fn config(says: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> =
        layers.iter().map(|tar| format!("{:?}", Sha256::of(tar).to_string())).collect();
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{{says}}},
        "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    text.into_bytes()
}

impl Parts {
    /// As `docker save` of old has an image.
    pub fn saved(name: &str, says: &str, layers: &[Vec<u8>]) -> Self {
        let mut parts = vec![("config.json".to_owned(), config(says, layers))];
        let mut names = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            let part = format!("{number}/layer.tar");
            names.push(format!("{part:?}"));
            parts.push((part, layer.clone()));
        }
        let manifest = format!(
            r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":[{}]}}]"#,
            names.join(",")
        );
        parts.push(("manifest.json".into(), manifest.into_bytes()));
        Self(parts)
    }

    /// As the OCI's layout has it.
    pub fn layout(name: &str, says: &str, layers: &[Vec<u8>]) -> Self {
        let mut parts = Vec::new();
        let mut blob = |media_type: &str, content: Vec<u8>, more: &str| {
            let digest = Sha256::of(&content).to_string();
            let size = content.len();
            parts.push((format!("blobs/{}", digest.replace(':', "/")), content));
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{more}}}"#)
        };
        let config = blob(CONFIG, config(says, layers), "");
        let layers: Vec<_> = layers.iter().map(|tar| blob(LAYER, tar.clone(), "")).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        let named = format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
        let manifest = blob(MANIFEST, manifest.into_bytes(), &named);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#);
        parts.push(("index.json".into(), index.into_bytes()));
        parts.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        Self(parts)
    }

    pub fn into_archive(self) -> Vec<u8> {
        let members: Vec<_> =
            self.0.into_iter().map(|(name, content)| Member::file(&name, content)).collect();
        tar_of(&members)
    }

    pub fn put_into(self, directory: &Path) {
        for (name, content) in self.0 {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}
