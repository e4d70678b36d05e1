//! Kernels: Debian's own, quick to set up, and the tuned one, quick to boot.

use super::build::{Task, settle};
use super::manifest::{InitrdRecord, KernelRecord};
use super::script::{INITRD, Run, STOCK, TUNED, TUNED_CONFIG};
use super::{Environments, failure};
use crate::blocking::blocking;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::store::record::{self, RecordError};
use crate::store::shelf::{self, Held};
use crate::store::verify;
use crate::vmm::KernelFlavor;
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const VMLINUX: &str = "vmlinux";
const INITRD_FILE: &str = "initrd.cpio";

const STOCK_DEADLINE: Duration = Duration::from_secs(20 * 60);
const TUNED_DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);
const INITRD_DEADLINE: Duration = Duration::from_secs(60);

/// The package, what it unpacks to and what is kept of it.
const STOCK_ROOM: u64 = 512 << 20;
/// Source and objects.
const TUNED_ROOM: u64 = 4 << 30;

const STOCK_PROGRAMS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("modprobe", "kmod"),
    ("perl", "perl-base"),
    ("xz", "xz-utils"),
];

const TUNED_PROGRAMS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("make", "make"),
    ("gcc", "gcc"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
];

/// A kernel to boot; it stays while this lives.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Whose configuration it has.
    pub flavor: KernelFlavor,
    /// The uncompressed ELF.
    pub vmlinux: PathBuf,
    /// What it needs before it can read the root image.
    pub initrd: Option<PathBuf>,
    /// The content of the ELF.
    pub digest: Digest,
    /// Its release, such as `6.12.117`.
    pub version: String,
    _held: Vec<Held>,
}

/// Where kernels are in the cache.
#[derive(Debug, Clone)]
pub(super) struct Kernels {
    dir: PathBuf,
}

impl Kernels {
    pub(super) fn new(cache_dir: &Path) -> Self {
        Self { dir: cache_dir.join("kernels") }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn record(&self, flavor: KernelFlavor) -> PathBuf {
        self.dir.join(format!("{flavor}.json"))
    }

    pub(super) fn lock(&self, flavor: KernelFlavor) -> PathBuf {
        self.dir.join(format!("{flavor}.lock"))
    }

    /// Where the kernels of a flavor lie, each named by its digest.
    pub(super) fn shelf(&self, flavor: KernelFlavor) -> PathBuf {
        self.dir.join(flavor.as_str())
    }

    /// Where the initrds lie, each named by its digest.
    pub(super) fn initrds(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    pub(super) fn read(&self, flavor: KernelFlavor) -> Result<KernelRecord, RecordError> {
        record::read(&self.record(flavor))
    }
}

impl Environments {
    /// The kernel that guests boot: the tuned one when it is built, else
    /// Debian's, unless the configuration names one.
    ///
    /// # Errors
    /// `EnvironmentMissing` when it is not built, `EnvironmentCorrupt` when it
    /// is not what it was.
    pub fn kernel(&self) -> Result<Kernel> {
        if let Some(flavor) = self.wanted_flavor()? {
            return self.load_kernel(flavor)?.ok_or_else(|| failure::kernel_not_built(flavor));
        }
        for flavor in KernelFlavor::ALL {
            if let Some(kernel) = self.load_kernel(flavor)? {
                return Ok(kernel);
            }
        }
        Err(Error::new(ErrorKind::EnvironmentMissing, "there is no kernel to boot yet")
            .hint("`pyro env build debian:12`"))
    }

    pub(super) fn wanted_flavor(&self) -> Result<Option<KernelFlavor>> {
        let Some(name) = self.config.kernel.as_deref() else { return Ok(None) };
        name.parse().map(Some).map_err(|_| failure::unknown_kernel(name))
    }

    /// `None` when it was never built.
    fn load_kernel(&self, flavor: KernelFlavor) -> Result<Option<Kernel>> {
        let repair = format!("`pyro env build debian:12 --kernel {flavor}`");
        let record = match self.kernels.read(flavor) {
            Ok(record) => record,
            Err(RecordError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(failure::corrupt_record(error, &repair)),
        };
        let load = |dir: PathBuf, file, digest, size| -> Result<(PathBuf, Held)> {
            let path = dir.join(file);
            let missing = || failure::corrupt(&path, verify::Fault::Missing, &repair);
            let held = shelf::hold(&dir)?.ok_or_else(missing)?;
            verify::verify(&path, digest, size)
                .map_err(|fault| failure::corrupt(&path, fault, &repair))?;
            Ok((path, held))
        };
        let dir = self.kernels.shelf(flavor).join(record.digest.hex());
        let (vmlinux, held) = load(dir, VMLINUX, record.digest, record.size)?;
        let mut all_held = vec![held];
        let mut initrd = None;
        if let Some(made) = record.initrd {
            let dir = self.kernels.initrds().join(made.digest.hex());
            let (path, held) = load(dir, INITRD_FILE, made.digest, made.size)?;
            initrd = Some(path);
            all_held.push(held);
        }
        Ok(Some(Kernel {
            flavor,
            vmlinux,
            initrd,
            digest: record.digest,
            version: record.version,
            _held: all_held,
        }))
    }
}

/// Makes sure that there is a kernel, building Debian's when there is none: the
/// tuned one takes minutes, so it is built only on request.
pub(super) async fn ensure_any(task: &Task<'_>) -> Result<()> {
    let environments = task.environments;
    let flavor = match environments.wanted_flavor()? {
        Some(flavor) => flavor,
        None if environments.kernels.record(KernelFlavor::Tuned).exists() => KernelFlavor::Tuned,
        None => KernelFlavor::Stock,
    };
    match flavor {
        KernelFlavor::Tuned => {
            let environments = environments.clone();
            let loaded = blocking(move || environments.load_kernel(KernelFlavor::Tuned)).await?;
            loaded.map(drop).ok_or_else(|| failure::kernel_not_built(KernelFlavor::Tuned))
        }
        KernelFlavor::Stock => ensure(task, KernelFlavor::Stock).await,
    }
}

/// Makes sure that the kernel of this flavor is there and made by this pyro.
pub(super) async fn ensure(task: &Task<'_>, flavor: KernelFlavor) -> Result<()> {
    let kernels = &task.environments.kernels;
    let _lock = task.lock(&kernels.lock(flavor), &format!("the {flavor} kernel")).await?;
    let known = match kernels.read(flavor) {
        Ok(record) => Some(record),
        Err(RecordError::Missing { .. }) => None,
        Err(error) => {
            task.warn(&error).await;
            None
        }
    };
    // Held until the record says that they are needed.
    let (mut record, _kernel) = match current(task, known.as_ref(), flavor).await? {
        Some(current) => current,
        None => build(task, flavor).await?,
    };
    let _initrd = match flavor {
        KernelFlavor::Tuned => None,
        KernelFlavor::Stock => {
            let made = known.as_ref().and_then(|known| known.initrd.as_ref());
            let (made, held) = ensure_initrd(task, &record, made).await?;
            record.initrd = Some(made);
            Some(held)
        }
    };
    if known.as_ref() != Some(&record) {
        record::write(&kernels.record(flavor), &record)?;
    }
    Ok(())
}

fn builder_of(task: &Task<'_>, flavor: KernelFlavor) -> Digest {
    let scripts = &task.environments.scripts;
    match flavor {
        KernelFlavor::Tuned => scripts.digest(&[TUNED, TUNED_CONFIG]),
        KernelFlavor::Stock => scripts.digest(&[STOCK]),
    }
}

async fn current(
    task: &Task<'_>,
    known: Option<&KernelRecord>,
    flavor: KernelFlavor,
) -> Result<Option<(KernelRecord, Held)>> {
    let Some(record) = known.filter(|record| record.builder == builder_of(task, flavor)) else {
        return Ok(None);
    };
    let dir = task.environments.kernels.shelf(flavor).join(record.digest.hex());
    let held = task.intact(&dir, VMLINUX, record.digest, record.size).await?;
    Ok(held.map(|held| (record.clone(), held)))
}

/// Runs the flavor's script; nothing refers to its result yet.
async fn build(task: &Task<'_>, flavor: KernelFlavor) -> Result<(KernelRecord, Held)> {
    let doing = format!("building the {flavor} kernel");
    let made = task.staging.path().join("kernel");
    let (script, arguments, programs, room, deadline) = match flavor {
        KernelFlavor::Stock => {
            (STOCK, vec![made.clone().into()], STOCK_PROGRAMS, STOCK_ROOM, STOCK_DEADLINE)
        }
        KernelFlavor::Tuned => {
            let options = Run::companion(&task.staging, TUNED_CONFIG);
            let arguments = vec![options.into(), made.clone().into()];
            (TUNED, arguments, TUNED_PROGRAMS, TUNED_ROOM, TUNED_DEADLINE)
        }
    };
    task.require(&doing, programs, room)?;
    task.stage("building the kernel", flavor.as_str()).await;
    let temporary = Some(task.temporary());
    task.run(script, arguments, temporary, doing, deadline).await?;

    let (digest, size) = settle(made.join(VMLINUX)).await?;
    let version = fs::read_to_string(made.join("version"))
        .map_err(|error| Error::io(format!("{script} left no version"), error))?;
    let to = task.environments.kernels.shelf(flavor).join(digest.hex());
    let held = task.shelve(&made, &to, VMLINUX, digest, size).await?;
    let record = KernelRecord {
        flavor,
        version: version.trim().to_owned(),
        digest,
        size,
        builder: builder_of(task, flavor),
        built_at: Timestamp::now(),
        initrd: None,
    };
    Ok((record, held))
}

/// The initrd for this kernel and the agent there is now.
async fn ensure_initrd(
    task: &Task<'_>,
    kernel: &KernelRecord,
    made: Option<&InitrdRecord>,
) -> Result<(InitrdRecord, Held)> {
    let agent = task.agent().await?;
    let script = task.environments.scripts.digest(&[INITRD]);
    let parts = [kernel.digest, agent.digest, script].map(|digest| digest.to_string());
    let key = Digest::of_parts(parts);
    let initrds = task.environments.kernels.initrds();
    if let Some(made) = made.filter(|made| made.key == key) {
        let dir = initrds.join(made.digest.hex());
        if let Some(held) = task.intact(&dir, INITRD_FILE, made.digest, made.size).await? {
            return Ok((made.clone(), held));
        }
    }

    let doing = "packing the initrd".to_owned();
    task.stage("packing the initrd", &kernel.version).await;
    let dir = task.staging.path().join("initrd");
    fs::create_dir_all(&dir)
        .map_err(|error| Error::io(format!("cannot make {}", dir.display()), error))?;
    let made = dir.join(INITRD_FILE);
    let modules =
        task.environments.kernels.shelf(kernel.flavor).join(kernel.digest.hex()).join("modules");
    let arguments = vec![modules.into(), agent.path.into(), made.clone().into()];
    task.run(INITRD, arguments, None, doing, INITRD_DEADLINE).await?;

    let (digest, size) = settle(made).await?;
    let held = task.shelve(&dir, &initrds.join(digest.hex()), INITRD_FILE, digest, size).await?;
    Ok((InitrdRecord { digest, size, key }, held))
}
