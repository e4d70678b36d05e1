//! Workspace disks: sparse ext4 files, formatted once per size and copied.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{SeekFrom, seek};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The size every disk has as a device, so that the devices a guest sees do not
/// depend on its workspace. Sparse: it costs what is written.
pub const DEVICE_BYTES: u64 = 64 << 30;

/// The size of the file system on it unless somebody asks for another.
pub const DEFAULT_MIB: u64 = 16 << 10;

/// The smallest file system that leaves room for a journal and some work.
pub const MIN_MIB: u64 = 64;

const _: () = assert!(DEFAULT_MIB << 20 <= DEVICE_BYTES);

/// What a copy reads at a time.
const COPY_CHUNK: usize = 1 << 20;

/// The formatting, by which cached file systems are told apart: a changed
/// recipe makes a new one.
const FORMAT: &[&str] = &[
    "-q",
    "-F",
    "-t",
    "ext4",
    "-L",
    "pyro",
    "-J",
    "size=16",
    "-m",
    "0",
    "-E",
    "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
];

/// Makes a disk with an empty file system of `mib` MiB at `path`.
pub async fn create(config: &Config, path: &Path, mib: u64) -> Result<()> {
    if !(MIN_MIB..=DEVICE_BYTES >> 20).contains(&mib) {
        let max = DEVICE_BYTES >> 20;
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("a disk of {mib} MiB cannot be made"),
        )
        .hint(format!("choose between {MIN_MIB} and {max} MiB")));
    }
    let formatted = formatted(config, mib).await?;
    copy_sparse(&formatted, path)
}

/// The cached empty file system of this size, made if need be.
async fn formatted(config: &Config, mib: u64) -> Result<PathBuf> {
    let key = blake3::hash(FORMAT.join(" ").as_bytes()).to_hex();
    let directory = config.cache_dir.join("disks");
    let path = directory.join(format!("{mib}-{}.ext4", &key[..16]));
    if path.exists() {
        return Ok(path);
    }
    crate::store::private_dir(&directory)?;
    let program = find_mke2fs(config)?;
    let staged = tempfile::Builder::new()
        .prefix(".formatting-")
        .tempfile_in(&directory)
        .map_err(|error| Error::io(format!("cannot write in {}", directory.display()), error))?;
    staged
        .as_file()
        .set_len(DEVICE_BYTES)
        .map_err(|error| Error::io("cannot make a sparse file", error))?;
    let output = Command::new(&program)
        .args(FORMAT)
        .arg(staged.path())
        .arg(format!("{mib}M"))
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Error::io(format!("cannot run {}", program.display()), error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(ErrorKind::Io, format!("mke2fs cannot format a disk: {said}")));
    }
    // mke2fs may cut or extend the file to whole blocks of the file system.
    staged
        .as_file()
        .set_len(DEVICE_BYTES)
        .and_then(|()| staged.as_file().sync_all())
        .map_err(|error| Error::io("cannot write a formatted disk", error))?;
    staged
        .persist(&path)
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error.error))?;
    Ok(path)
}

/// Finds the program that formats disks.
///
/// # Errors
/// `HostRequirement` when it is not installed.
pub fn find_mke2fs(config: &Config) -> Result<PathBuf> {
    // Debian keeps it where an ordinary user's PATH does not lead.
    config
        .find_program("mke2fs")
        .or_else(|| Some(PathBuf::from("/usr/sbin/mke2fs")).filter(|path| path.is_file()))
        .ok_or_else(|| {
            Error::new(ErrorKind::HostRequirement, "mke2fs is not installed")
                .hint("install it with `apt-get install e2fsprogs`")
        })
}

/// Copies a file and leaves its holes holes.
pub fn copy_sparse(source: &Path, target: &Path) -> Result<()> {
    let run = || -> std::io::Result<()> {
        let from = File::open(source)?;
        let to = File::options().write(true).create_new(true).mode(0o600).open(target)?;
        to.set_permissions(fs::Permissions::from_mode(0o600))?;
        if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
            return Ok(());
        }
        let length = from.metadata()?.len();
        to.set_len(length)?;
        let mut buffer = vec![0; COPY_CHUNK];
        let mut at = 0;
        while let Some(start) = next(&from, SeekFrom::Data(at))? {
            let end = next(&from, SeekFrom::Hole(start))?.unwrap_or(length);
            at = start;
            while at < end {
                let chunk =
                    usize::try_from(end - at).map_or(COPY_CHUNK, |left| left.min(COPY_CHUNK));
                from.read_exact_at(&mut buffer[..chunk], at)?;
                to.write_all_at(&buffer[..chunk], at)?;
                at += chunk as u64;
            }
        }
        Ok(())
    };
    run().map_err(|error| Error::io(format!("cannot make the disk {}", target.display()), error))
}

/// Where the next data or hole is; `None` past the last data.
fn next(file: &File, from: SeekFrom) -> std::io::Result<Option<u64>> {
    match seek(file, from) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
