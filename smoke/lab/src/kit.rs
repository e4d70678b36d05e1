//! What an emulated host is made of. What is slow to get is kept in the user's
//! cache, what follows from the tree beside this program.

mod disk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the emulated host's kernel loads. The guests' kernels are pyro's.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "erofs",
    "ext4",
    "overlay",
    "tun",
    "kvm-amd",
];

/// The environments that the stories boot; Debian as the emulated host has it is
/// the second.
const ENVIRONMENTS: &[&str] = &["debian:12-base", "debian:12", "debian:12-build"];

/// Of the bare machine's programs, what stories start that Debian as the emulated
/// host has it lacks. The one is static, the other needs no library but libc.
const TOOLS: &[&str] = &["busybox", "docker-registry"];

/// All that QEMU is given, besides a disk to write on.
#[derive(Debug)]
pub struct Kit {
    /// The emulated host's kernel.
    pub kernel: PathBuf,
    /// Its modules, and this program as its first process.
    pub initrd: PathBuf,
    /// Debian.
    pub root_image: PathBuf,
    /// The stories, pyro, Firecracker.
    pub programs: PathBuf,
    /// What the stories take of the user's cache, on a disk of its own: it changes
    /// less often.
    pub cache: PathBuf,
}

impl Kit {
    /// Makes what is missing.
    pub fn make(programs: &[(String, PathBuf)], work: &Path) -> io::Result<Self> {
        fs::create_dir_all(work)?;
        let cache = pyro_smoke::user_cache().with_file_name("pyro-tests");
        let kernel = kernel(&cache)?;
        let initrd = work.join("initrd.cpio");
        let script = from_tree("images/kernel/initrd.sh");
        let program = std::env::current_exe()?;
        run(Command::new(script).arg(kernel.join("modules")).arg(program).arg(&initrd))?;
        let home = pyro_smoke::Home::new();
        let images: Vec<_> = ENVIRONMENTS.iter().map(|name| home.image_directory(name)).collect();
        let pyro = pyro_smoke::pyro_executable();
        let firecracker = firecracker(&cache)?;
        let mut contents: Vec<disk::Part> = Vec::new();
        for program in [
            &pyro,
            &pyro.with_file_name("pyro-agent"),
            &firecracker,
            &firecracker.with_file_name("jailer"),
        ] {
            let name = program.file_name().unwrap_or_default();
            contents.push(disk::Part::new(program, Path::new("bin").join(name)));
        }
        for name in TOOLS {
            let program = pyro_smoke::on_path(name).ok_or_else(|| {
                io::Error::other(format!("{name} is not on PATH: `make test` installs it"))
            })?;
            contents.push(disk::Part::new(program, Path::new("tools").join(name)));
        }
        for (name, path) in programs {
            contents.push(disk::Part::new(path, Path::new("stories").join(name)));
        }
        let cache = disk::borrowed(&pyro_smoke::user_cache(), &images)?;
        Ok(Self {
            kernel: kernel.join("vmlinux"),
            initrd,
            root_image: images[1].join("root.erofs"),
            programs: disk::make("programs", &contents, work)?,
            cache: disk::make("cache", &cache, work)?,
        })
    }
}

fn from_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub fn run(command: &mut Command) -> io::Result<()> {
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("{command:?} failed, {status}"))),
        Err(error) => Err(io::Error::new(error.kind(), format!("{command:?}: {error}"))),
    }
}

/// Debian's cloud kernel, taken apart.
fn kernel(cache: &Path) -> io::Result<PathBuf> {
    let script = from_tree("images/kernel/stock.sh");
    let recipe = format!("{}\n{}", fs::read_to_string(&script)?, MODULES.join(" "));
    made_once(&cache.join("emulated-host-kernel"), &recipe, |place| {
        run(Command::new(script).arg(place).args(MODULES))
    })
}

/// The test copy of Firecracker, or the one that the user named.
fn firecracker(cache: &Path) -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os("PYRO_FIRECRACKER").filter(|path| !path.is_empty()) {
        return Ok(named.into());
    }
    let script = from_tree("smoke/lab/firecracker.sh");
    let recipe = fs::read_to_string(&script)?;
    let place = made_once(&cache.join("firecracker"), &recipe, |place| {
        run(Command::new(script).arg(place))
    })?;
    Ok(place.join("firecracker"))
}

/// Makes a directory again only when its recipe, which is kept in it, changes.
fn made_once(
    place: &Path,
    recipe: &str,
    make: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let kept = place.join("recipe");
    if fs::read_to_string(&kept).is_ok_and(|kept| kept == recipe) {
        return Ok(place.to_owned());
    }
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)?;
    make(place)?;
    // The last thing: what has none is not finished.
    fs::write(kept, recipe)?;
    Ok(place.to_owned())
}
