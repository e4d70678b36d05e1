//! What is kept about what was built.

use super::recipe::{Defaults, Name};
use crate::digest::{Digest, Sha256};
use crate::store::record::Record;
use crate::vmm::KernelFlavor;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which image an environment boots now: the only record that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The environment.
    pub environment: Name,
    /// Its root image.
    pub root_digest: Digest,
    /// Where the image comes from that it was made of; nothing if of a recipe.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// The layers of it that are kept.
    #[serde(default)]
    pub blobs: Vec<Sha256>,
}

impl Record for Current {
    const VERSION: u32 = 1;
}

/// Where an image comes from that others made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// How it came here.
    pub how: How,
    /// From where: the whole reference, or the path.
    pub source: String,
    /// The digest of its manifest; null when it has none.
    #[schemars(with = "Option<String>")]
    pub digest: Option<Sha256>,
}

impl Origin {
    /// The command that makes an environment of it again.
    #[must_use]
    pub fn way(&self, name: &str) -> String {
        let source = &self.source;
        match self.how {
            How::Pulled => format!("`pyro env pull {source} --name {name}`"),
            How::Imported => format!("`pyro env import {source} --name {name}`"),
        }
    }

    /// In a few words.
    #[must_use]
    pub fn told(&self) -> String {
        match self.how {
            How::Pulled => format!("pulled from {}", self.source),
            How::Imported => format!("imported from {}", self.source),
        }
    }
}

/// How an image came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// From a registry.
    Pulled,
    /// From a file or a directory of the host.
    Imported,
}

/// What a root image is and what it was made from; kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The environment that it was built for.
    pub environment: Name,
    /// The image's content.
    pub root_digest: Digest,
    /// The image's length in bytes.
    pub root_size: u64,
    /// The recipe and the script that its tree was made by.
    pub tree_key: Digest,
    /// The tree's content.
    pub tree_digest: Digest,
    /// The agent baked in.
    pub agent: BakedAgent,
    /// The script that made it.
    pub builder: Digest,
    /// The version of the pyro that ran the script.
    pub built_by: String,
    /// When, in UTC.
    pub built_at: Timestamp,
    /// What is installed in it, by name.
    pub packages: Vec<Package>,
    /// Where it comes from, if it was not made of a recipe.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// What its makers say a program gets.
    #[serde(default)]
    pub defaults: Option<Defaults>,
}

impl Record for Manifest {
    const VERSION: u32 = 1;
}

/// An agent inside an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakedAgent {
    /// The executable's content.
    pub digest: Digest,
    /// The version of the pyro that baked it in.
    pub version: String,
}

/// A package and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
}

/// What a tree, the first of the two stages of an image, is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// The environment that it was built for.
    pub environment: Name,
    /// The tar's content.
    pub digest: Digest,
    /// The tar's length in bytes.
    pub size: u64,
    /// When it was built, in UTC.
    pub built_at: Timestamp,
    /// What is installed in it, by name.
    pub packages: Vec<Package>,
}

impl Record for TreeRecord {
    const VERSION: u32 = 1;
}

/// Which kernel of a flavor is booted now, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// Whose configuration it has.
    pub flavor: KernelFlavor,
    /// Its release, such as `6.12.117`.
    pub version: String,
    /// The content of its vmlinux.
    pub digest: Digest,
    /// The length of its vmlinux in bytes.
    pub size: u64,
    /// The scripts and options that made it.
    pub builder: Digest,
    /// When it was built, in UTC.
    pub built_at: Timestamp,
    /// What it needs before it can read the root image.
    pub initrd: Option<InitrdRecord>,
}

impl Record for KernelRecord {
    const VERSION: u32 = 1;
}

/// The initrd of a kernel that has modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitrdRecord {
    /// Its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The agent, kernel and script that made it.
    pub key: Digest,
}

/// Reads the lines `name<TAB>version` that root.sh writes. What is no such line
/// is left out: the list informs people and decides nothing.
#[must_use]
pub fn parse_packages(text: &str) -> Vec<Package> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| Package { name: name.into(), version: version.into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record;
    use proptest::prelude::*;

    prop_compose! {
        fn manifest()(
            bytes: [u8; 3],
            root_size: u64,
            seconds in 0..4_000_000_000i64,
            nanoseconds in 0..1_000_000_000i32,
            packages in prop::collection::vec(("[a-z]{1,9}", "[^\t\r\n]{0,9}"), 0..9),
        ) -> Manifest {
            Manifest {
                environment: Name::try_from("debian:12".to_owned()).expect("a name"),
                root_digest: Digest::of(&bytes[..1]),
                root_size,
                tree_key: Digest::of(&bytes[1..2]),
                tree_digest: Digest::of(&bytes[2..]),
                agent: BakedAgent { digest: Digest::of(&bytes), version: "0.1.0".into() },
                builder: Digest::of(&[]),
                built_by: "0.1.0".into(),
                built_at: Timestamp::new(seconds, nanoseconds).expect("in range"),
                packages: packages
                    .into_iter()
                    .map(|(name, version)| Package { name, version })
                    .collect(),
                origin: None,
                defaults: None,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_manifest_survives_its_record(manifest in manifest()) {
            let home = tempfile::tempdir().expect("a directory");
            let path = home.path().join("manifest.json");
            record::write(&path, &manifest).expect("written");
            prop_assert_eq!(record::read::<Manifest>(&path).expect("read"), manifest);
        }

        #[test]
        fn package_lines_survive(manifest in manifest()) {
            let lines: String = manifest
                .packages
                .iter()
                .map(|package| format!("{}\t{}\n", package.name, package.version))
                .collect();
            prop_assert_eq!(parse_packages(&lines), manifest.packages);
        }
    }
}
