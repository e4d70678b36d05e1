//! Workspace disks: sparse ext4 files, formatted once per size and copied.

pub mod copy;
pub(crate) mod room;
pub mod space;

use crate::blocking::blocking;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::store::private_dir;
use crate::store::staging::{self, Staging};
use crate::vmm::Durability;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The size every disk has as a device, so that the devices a guest sees do not
/// depend on its workspace. Sparse: it costs what is written.
pub const DEVICE_BYTES: u64 = 64 << 30;

/// The size of the file system on it unless somebody asks for another.
pub const DEFAULT_MIB: u64 = 16 << 10;

/// The smallest file system that leaves room for a journal and some work.
pub const MIN_MIB: u64 = 64;

const _: () = assert!(DEFAULT_MIB << 20 <= DEVICE_BYTES);

// Blocks of 4 KiB are numbered by 32 bits: see FORMAT.
const _: () = assert!(DEVICE_BYTES / 4096 <= 1 << 32);

/// The size of the device that a guest copies a whole tree to: more than its disk,
/// its seed and its environment can hold together. Sparse, and cut to the file
/// system's size in the end.
pub const COPY_BYTES: u64 = 4 * DEVICE_BYTES;

/// The directories that the agent and the overlay keep their layers in. They
/// make them where they are missing, which takes a translated guest some
/// milliseconds.
const LAYERS: &[&str] = &["root/upper", "root/work/index", "workspace/upper", "workspace/work"];

/// How a file system is made. With the rest of the recipe it tells cached ones
/// apart: a changed recipe makes a new one. Inodes are wide enough for the
/// overlay's attributes, which else take a block; there is no room to grow,
/// which would be 4 MiB more to copy for every guest.
const FORMAT: &[&str] = &["-q", "-F", "-t", "ext4", "-L", "pyro", "-m", "0", "-I", "512"];

/// How a file system is made that a whole tree is copied to. Its tables are left
/// holes; who uses it first fills them.
const COPY_FORMAT: &[&str] = &[
    "-q",
    "-F",
    "-t",
    "ext4",
    "-L",
    "pyro-root",
    "-m",
    "0",
    "-b",
    "4096",
    "-I",
    "256",
    "-J",
    "size=16",
    "-E",
    "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
];

/// What makes a file system last or not. That of a one-shot run ends with its
/// guest, so what only pays later is left out:
///
/// - No journal, and no copies of the superblock: nobody ever recovers it.
/// - Checksums of the block groups alone, which spare formatting them, and not
///   of all metadata: the host's own storage is beneath.
/// - No numbers of blocks beyond 32 bits, so that the block groups fill one
///   block: the largest device has 2^24.
const fn format_for(durability: Durability) -> &'static [&'static str] {
    match durability {
        Durability::Scratch => &[
            "-O",
            "^has_journal,^resize_inode,^metadata_csum,^64bit,uninit_bg,sparse_super2",
            "-E",
            "lazy_itable_init=1,nodiscard,root_owner=0:0,num_backup_sb=0",
        ],
        Durability::Kept => &[
            "-O",
            "^resize_inode,^64bit",
            "-J",
            "size=16",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
        ],
    }
}

/// A file of a seed's size with nothing in it, for machines without a seed.
pub fn no_seed(config: &Config) -> Result<PathBuf> {
    let directory = config.cache_dir.join("disks");
    let path = directory.join("no-seed");
    // One that is not as long as it should be is being made.
    if !path.metadata().is_ok_and(|meta| meta.len() == DEVICE_BYTES) {
        private_dir(&directory)?;
        let failed = |error| Error::io(format!("cannot make {}", path.display()), error);
        let made = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        made.and_then(|file| file.set_len(DEVICE_BYTES)).map_err(failed)?;
    }
    Ok(path)
}

/// Makes a device with nothing on it.
pub fn create_empty(path: &Path, bytes: u64) -> Result<()> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|file| file.set_len(bytes))
        .map_err(|error| Error::io(format!("cannot make {}", path.display()), error))
}

/// Makes a disk with an empty file system of `mib` MiB at `path`.
pub async fn create(config: &Config, path: &Path, mib: u64, durability: Durability) -> Result<()> {
    if !(MIN_MIB..=DEVICE_BYTES >> 20).contains(&mib) {
        let max = DEVICE_BYTES >> 20;
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("a disk of {mib} MiB cannot be made"),
        )
        .hint(format!("choose between {MIN_MIB} and {max} MiB")));
    }
    let formatted = formatted(config, mib, durability).await?;
    let path = path.to_owned();
    blocking(move || copy::sparse(&formatted, &path).map(drop)).await
}

/// The cached empty file system of this size, made if need be.
async fn formatted(config: &Config, mib: u64, durability: Durability) -> Result<PathBuf> {
    let lasting = format_for(durability);
    let recipe = [FORMAT, lasting, LAYERS].concat().join(" ");
    let key = blake3::hash(recipe.as_bytes()).to_hex();
    let directory = config.cache_dir.join("disks");
    let path = directory.join(format!("{mib}-{}.ext4", &key[..16]));
    if path.exists() {
        return Ok(path);
    }
    let program = find_mke2fs(config)?;
    let making = directory.join("making");
    for left in staging::abandoned(&making) {
        // What a crash left; it is in nobody's way.
        drop(left.remove());
    }
    let staging = Staging::new(&making)?;
    let made = staging.path().join("disk.ext4");
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&made)
        .map_err(|error| Error::io(format!("cannot write {}", made.display()), error))?;
    file.set_len(DEVICE_BYTES).map_err(|error| Error::io("cannot make a sparse file", error))?;
    let skeleton = staging.path().join("skeleton");
    let mut command = Command::new(&program);
    command.args(FORMAT).args(lasting);
    // Their owner is that of the skeleton, which is root in the guest only if
    // it is root here.
    if rustix::process::geteuid().is_root() {
        for layer in LAYERS {
            fs::create_dir_all(skeleton.join(layer))
                .map_err(|error| Error::io("cannot prepare a disk", error))?;
        }
        command.arg("-d").arg(&skeleton);
    }
    command.arg(&made).arg(format!("{mib}M"));
    format(command).await?;
    // mke2fs may cut or extend the file to whole blocks of the file system.
    file.set_len(DEVICE_BYTES)
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("cannot write a formatted disk", error))?;
    fs::rename(&made, &path)
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))?;
    Ok(path)
}

/// Makes an empty file system of its own on a device, for a guest to fill: one
/// that any Linux takes, with a journal, and room to grow.
pub async fn format_copy(config: &Config, path: &Path, mib: u64, inodes: u64) -> Result<()> {
    let (inodes, size) = (inodes.to_string(), format!("{mib}M"));
    let mut command = Command::new(find_mke2fs(config)?);
    command.args(COPY_FORMAT).args(["-N", &inodes]).arg(path).arg(size);
    format(command).await
}

/// Runs mke2fs.
async fn format(mut command: Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| Error::io("cannot run mke2fs", error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(ErrorKind::Io, format!("mke2fs cannot format a disk: {said}")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn only_sizes_that_can_be_are_made() {
        let home = tempfile::tempdir().expect("a directory");
        let target = home.path().join("disk");
        for mib in [0, MIN_MIB - 1, (DEVICE_BYTES >> 20) + 1, u64::MAX] {
            let error = create(&Config::within(home.path()), &target, mib, Durability::Scratch)
                .await
                .expect_err("no size");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{mib}");
            assert!(error.next_step().is_some_and(|hint| hint.contains("64 and 65536")));
        }
        assert!(!target.exists() && !home.path().join("cache").exists());
    }

    #[tokio::test]
    async fn a_disk_is_large_costs_little_and_leaves_nothing_else() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        // As a crash would leave it.
        let left = config.cache_dir.join("disks/making/0123456789abcdef");
        fs::create_dir_all(&left).expect("it is made");
        fs::write(left.join("disk.ext4"), "half").expect("written");
        for (name, durability) in [("one", Durability::Scratch), ("two", Durability::Kept)] {
            let target = home.path().join(name);
            create(&config, &target, MIN_MIB, durability).await.expect("a disk");
            let meta = target.metadata().expect("it is there");
            assert_eq!((meta.len(), meta.mode() & 0o777), (DEVICE_BYTES, 0o600));
            let most = match durability {
                Durability::Scratch => 1 << 20,
                Durability::Kept => 24 << 20,
            };
            assert!(meta.blocks() * 512 < most, "{} bytes", meta.blocks() * 512);
            let mut magic = [0; 2];
            File::open(&target)
                .expect("ours")
                .read_exact_at(&mut magic, 1080)
                .expect("a superblock");
            assert_eq!(magic, [0x53, 0xef]);
        }
        assert_eq!(fs::read_dir(config.cache_dir.join("disks/making")).expect("there").count(), 0);
        assert_eq!(fs::read_dir(config.cache_dir.join("disks")).expect("there").count(), 3);
    }

    #[test]
    fn r2_no_seed_is_whole_though_another_makes_it() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let disks = config.cache_dir.join("disks");
        fs::create_dir_all(&disks).expect("made");
        // As another has it between two of its steps.
        File::create(disks.join("no-seed")).expect("made");
        let path = no_seed(&config).expect("made");
        assert_eq!(path.metadata().expect("there").len(), DEVICE_BYTES);
    }

    #[tokio::test]
    async fn many_at_once_are_all_whole() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        let targets: Vec<_> = (0..8).map(|n| home.path().join(n.to_string())).collect();
        let making =
            targets.iter().map(|target| create(&config, target, MIN_MIB, Durability::Kept));
        for made in futures::future::join_all(making).await {
            made.expect("a disk");
        }
        let blocks = |path: &PathBuf| path.metadata().expect("there").blocks();
        assert!(targets.iter().all(|target| blocks(target).abs_diff(blocks(&targets[0])) < 64));
    }
}
