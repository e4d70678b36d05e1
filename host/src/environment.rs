//! Stub: named, immutable things to boot.

use crate::{Config, Error, ErrorKind, Events, Result};
use serde::Serialize;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// A named, immutable thing to boot.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Environment {
    /// Such as `debian:12`.
    pub name: String,
    /// What it is good for, in one line.
    pub description: String,
    /// Such as `debian`.
    pub distribution: String,
    /// Such as `12`.
    pub distribution_version: String,
    /// The packages it adds to the distribution's minimum.
    pub packages: Vec<String>,
    /// What there is on this host; null until it is built.
    pub installed: Option<Installed>,
}

/// The files of an environment on this host.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Installed {
    /// The read-only root image.
    pub root_image: PathBuf,
    /// Its digest.
    pub root_digest: String,
    /// Its size in bytes.
    pub root_bytes: u64,
    /// The kernel.
    pub kernel: PathBuf,
    /// `tuned` or `stock`.
    pub kernel_flavor: String,
    /// Its digest.
    pub kernel_digest: String,
    /// When it was built, RFC 3339 in UTC.
    pub built_at: String,
}

/// What was removed.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Pruned {
    /// Each file or directory.
    pub removed: Vec<Removed>,
    /// The space gained in bytes.
    pub bytes: u64,
}

/// A file or directory that was removed.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Removed {
    /// Where it was.
    pub path: PathBuf,
    /// The space it took in bytes.
    pub bytes: u64,
}

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Also when it is there already.
    pub force: bool,
}

/// The environments of this host.
#[derive(Debug)]
pub struct Environments {}

fn known() -> Vec<Environment> {
    ["debian:12-base", "debian:12", "debian:12-build"]
        .map(|name| Environment {
            name: name.into(),
            description: "A stub".into(),
            distribution: "debian".into(),
            distribution_version: "12".into(),
            packages: vec!["git".into()],
            installed: None,
        })
        .into()
}

impl Environments {
    /// The environments that this configuration finds.
    #[must_use]
    pub fn new(_config: &Config) -> Self {
        Self {}
    }

    /// All of them.
    ///
    /// # Errors
    /// Never, in this stub.
    pub fn list(&self) -> Result<Vec<Environment>> {
        Ok(known())
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn inspect(&self, name: &str) -> Result<Environment> {
        known().into_iter().find(|known| known.name == name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no environment `{name}`"))
                .hint("`pyro env list` shows them")
        })
    }

    /// Builds one.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn build(
        &self,
        name: &str,
        _options: BuildOptions,
        _events: &Events,
        _cancel: &CancellationToken,
    ) -> Result<Environment> {
        self.inspect(name)
    }

    /// Removes what nothing needs.
    ///
    /// # Errors
    /// Never, in this stub.
    pub fn prune(&self, _dry_run: bool) -> Result<Pruned> {
        Ok(Pruned { removed: Vec::new(), bytes: 0 })
    }
}
#[allow(missing_docs)]
pub struct Kernel { pub flavor: crate::vmm::KernelFlavor, pub vmlinux: PathBuf, pub initrd: Option<PathBuf> }
#[allow(missing_docs)]
pub struct Bootable { pub root_image: PathBuf, pub kernel: Kernel }
impl Environments {
    #[allow(missing_docs)]
    pub fn resolve(&self, _name: &str) -> crate::Result<Bootable> {
        use crate::vmm::KernelFlavor;
        let d = PathBuf::from("/root/.cache/pyro-dev");
        let stock = std::env::var_os("STOCK").is_some();
        Ok(Bootable { root_image: "/tmp/dev-root.erofs".into(), kernel: if stock { Kernel { flavor: KernelFlavor::Stock, vmlinux: d.join("stock/vmlinux"), initrd: Some("/tmp/dev-initrd.cpio".into()) } } else { Kernel { flavor: KernelFlavor::Tuned, vmlinux: d.join("tuned/vmlinux"), initrd: None } } })
    }
}
