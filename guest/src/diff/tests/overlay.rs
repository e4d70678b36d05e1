//! A real overlay to change at random, in a mount namespace of one thread's.

use super::super::layers::Layers;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The layers of a test, and what they look like together.
pub struct Overlay {
    pub directory: TempDir,
}

/// What a test can see of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: SeenKind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenKind {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
    Special(u32, u64),
}

pub type Tree = BTreeMap<Vec<u8>, Seen>;

/// Runs a test where it can mount; says so when it cannot.
pub fn with_mounts(test: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: an overlay with redirects and an index takes root to mount");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: only this thread's view of mounts changes, and it ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may");
            let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", flags).expect("mounts of its own");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Overlay {
    /// Directories for one; the seed is to be filled, then it is mounted.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["seed", "upper", "work", "live"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    pub fn seed(&self) -> PathBuf {
        self.directory.path().join("seed")
    }

    pub fn live(&self) -> PathBuf {
        self.directory.path().join("live")
    }

    pub fn mount(&self) {
        let at = |name: &str| self.directory.path().join(name);
        mount_layers(&self.seed(), &at("upper"), &at("work"), &self.live());
    }

    /// With a table of hard links, or without.
    pub fn layers(&self, table: bool) -> Layers {
        let open =
            |path: &str| OwnedFd::from(File::open(self.directory.path().join(path)).unwrap());
        let hard_links = table.then(|| {
            let path = self.directory.path().join("hard-links");
            fs::write(&path, hard_links(&self.seed())).unwrap();
            File::open(path).unwrap().into()
        });
        Layers {
            lower: open("seed"),
            upper: open("upper"),
            index: Some(open("work/index")),
            hard_links,
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Left to the namespace's end if it was never mounted.
        let _ = rustix::mount::unmount(self.live(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// Mounts an overlay as guests do.
pub fn mount_layers(lower: &Path, upper: &Path, work: &Path, at: &Path) {
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=on,index=on,metacopy=off,xino=auto",
        lower.display(),
        upper.display(),
        work.display(),
    );
    let options = CString::new(options).unwrap();
    mount("overlay", at, "overlay", MountFlags::NOATIME, Some(options.as_c_str()))
        .expect("an overlay");
}

/// The table that the builder of a seed writes.
fn hard_links(seed: &Path) -> Vec<u8> {
    let mut groups: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for path in see(seed).into_keys() {
        let meta = fs::symlink_metadata(seed.join(os(&path))).unwrap();
        if !meta.is_dir() && meta.nlink() > 1 {
            let group = groups.entry(meta.ino()).or_default();
            group.extend(&path);
            group.push(0);
        }
    }
    groups.into_values().flat_map(|group| [group, vec![0]].concat()).collect()
}

pub fn os(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// All that is in a directory.
pub fn see(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(os(&directory))).unwrap() {
            let path =
                super::super::layers::join(&directory, entry.unwrap().file_name().as_bytes());
            let seen = see_one(&root.join(os(&path)));
            if seen.kind == SeenKind::Directory {
                pending.push(path.clone());
            }
            tree.insert(path, seen);
        }
    }
    tree
}

fn see_one(path: &Path) -> Seen {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = match meta.file_type() {
        kind if kind.is_file() => SeenKind::File(fs::read(path).unwrap()),
        kind if kind.is_dir() => SeenKind::Directory,
        kind if kind.is_symlink() => {
            SeenKind::Link(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
        }
        kind => {
            assert!(kind.is_fifo() || kind.is_socket() || kind.is_char_device());
            SeenKind::Special(meta.mode() & libc::S_IFMT, meta.rdev())
        }
    };
    let owner = (meta.uid(), meta.gid());
    Seen { kind, mode: meta.mode() & 0o7777, owner, xattrs: xattrs(path) }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    names.truncate(length);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// A step of a random program's. Places are numbers, of which each is some path
/// of the tree as it then is.
#[derive(Debug, Clone)]
pub enum Op {
    Write(usize, u8, Vec<u8>),
    Append(usize, Vec<u8>),
    Overwrite(usize, Vec<u8>),
    Truncate(usize, u8),
    Touch(usize),
    Remove(usize),
    Rename(usize, usize, u8),
    Exchange(usize, usize),
    MakeDirectory(usize, u8),
    Chmod(usize, u32),
    Chown(usize),
    Symlink(usize, u8, Vec<u8>),
    HardLink(usize, usize, u8),
    Copy(usize, usize, u8),
    Fifo(usize, u8),
    Device(usize, u8),
    Xattr(usize, bool),
    FileForDirectory(usize, Vec<u8>),
    DirectoryForFile(usize),
}

/// Names with all that names can have.
pub const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c",
    b"d.txt",
    b"e e",
    "ä".as_bytes(),
    b"\xff",
    b"t\tab",
    b"q\"uote",
    b"-- x",
    b"new\nline",
    b"back\\slash",
];

/// Does it, or does nothing when it cannot be done.
pub fn perform(root: &Path, op: &Op) {
    let paths: Vec<_> = see(root).into_keys().collect();
    let some =
        |number: &usize| paths.get(number % paths.len().max(1)).map(|path| root.join(os(path)));
    let directory = |number: &usize| match some(number) {
        Some(path) if fs::symlink_metadata(&path).unwrap().is_dir() => path,
        Some(path) => path.parent().unwrap().to_owned(),
        None => root.to_owned(),
    };
    let new = |number: &usize, name: &u8| {
        directory(number).join(os(NAMES[usize::from(*name) % NAMES.len()]))
    };
    let is = |path: &Option<PathBuf>, wanted: fn(&fs::Metadata) -> bool| {
        path.clone().filter(|path| wanted(&fs::symlink_metadata(path).unwrap()))
    };
    let file = |number: &usize| is(&some(number), fs::Metadata::is_file);
    let write = |path: &Path, content: &[u8], append: bool| {
        let mut options = File::options();
        options.write(true).append(append);
        std::io::Write::write_all(&mut options.open(path).unwrap(), content).unwrap();
    };
    // What cannot be done is part of the game.
    match op {
        Op::Write(at, name, content) => {
            let path = new(at, name);
            if fs::symlink_metadata(&path).is_err() {
                fs::write(path, content).unwrap();
            }
        }
        Op::Append(at, content) => drop(file(at).map(|path| write(&path, content, true))),
        Op::Overwrite(at, content) => drop(file(at).map(|path| fs::write(path, content))),
        Op::Truncate(at, length) => drop(file(at).map(|path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(u64::from(*length)).unwrap();
        })),
        Op::Touch(at) => drop(file(at).map(|path| fs::write(&path, fs::read(&path).unwrap()))),
        Op::Remove(at) => drop(some(at).map(|path| remove(&path))),
        Op::Rename(from, to, name) => drop(some(from).map(|path| fs::rename(path, new(to, name)))),
        Op::Exchange(one, two) => {
            if let (Some(one), Some(two)) = (some(one), some(two)) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(CWD, one, CWD, two, flags);
            }
        }
        Op::MakeDirectory(at, name) => drop(fs::create_dir(new(at, name))),
        Op::Chmod(at, mode) => drop(some(at).map(|path| {
            if !path.is_symlink() {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
        })),
        Op::Chown(at) => drop(some(at).map(|path| {
            std::os::unix::fs::lchown(path, Some(7), Some(8)).unwrap();
        })),
        Op::Symlink(at, name, target) => {
            drop(std::os::unix::fs::symlink(os(target), new(at, name)));
        }
        Op::HardLink(from, to, name) => {
            drop(file(from).map(|path| fs::hard_link(path, new(to, name))));
        }
        Op::Copy(from, to, name) => drop(file(from).map(|path| {
            let to = new(to, name);
            if fs::symlink_metadata(&to).is_err() {
                fs::copy(path, to).unwrap();
            }
        })),
        Op::Fifo(at, name) => {
            let _ = mknodat(CWD, new(at, name), FileType::Fifo, Mode::RUSR, 0);
        }
        Op::Device(at, name) => {
            let device = rustix::fs::makedev(1, 3);
            let _ = mknodat(CWD, new(at, name), FileType::CharacterDevice, Mode::RUSR, device);
        }
        Op::Xattr(at, like_a_mark) => drop(some(at).map(|path| {
            let name = if *like_a_mark { "trusted.overlay.opaque" } else { "trusted.other" };
            rustix::fs::lsetxattr(path, name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        })),
        Op::FileForDirectory(at, content) => {
            if let Some(path) = is(&some(at), fs::Metadata::is_dir) {
                remove(&path);
                fs::write(path, content).unwrap();
            }
        }
        Op::DirectoryForFile(at) => drop(file(at).map(|path| {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        })),
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}
