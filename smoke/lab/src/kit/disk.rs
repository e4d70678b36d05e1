//! Read-only disks with what the stories need.

use super::run;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file on the disk.
#[derive(Debug)]
pub struct Part {
    from: PathBuf,
    to: PathBuf,
}

impl Part {
    /// The file at `from`, to be at `to` on the disk.
    pub fn new(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: from.into(), to: to.into() }
    }
}

/// What of the user's cache a story may need: records, the images of these
/// directories, and the kernels that the records name. What pyro has verified
/// it verifies again, for the files are others.
pub fn borrowed(cache: &Path, images: &[PathBuf]) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for directory in images {
        let digest = directory.file_name().unwrap_or_default();
        for name in ["manifest.json", "root.erofs"] {
            let to = Path::new("images").join(digest).join(name);
            parts.push(Part::new(directory.join(name), to));
        }
    }
    let mut records = String::new();
    for shelf in ["environments", "kernels"] {
        for path in sorted(&cache.join(shelf))? {
            if path.extension().is_some_and(|extension| extension == "json") {
                records += &fs::read_to_string(&path)?;
                parts.push(Part::new(&path, in_cache(cache, &path)));
            }
        }
    }
    for flavor in ["tuned", "stock", "initrd"] {
        let place = cache.join("kernels").join(flavor);
        for directory in sorted(&place)? {
            let digest = directory.file_name().unwrap_or_default().to_string_lossy();
            if !records.contains(&*digest) {
                continue;
            }
            for file in sorted(&directory)? {
                let stamp = file.extension().is_some_and(|extension| extension == "verified");
                if file.is_file() && !stamp {
                    parts.push(Part::new(&file, in_cache(cache, &file)));
                }
            }
        }
    }
    Ok(parts)
}

fn in_cache(cache: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(cache).unwrap_or(path).to_owned()
}

fn sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(|error| {
        let message = format!("{}: {error}: run `make kernel environments`", directory.display());
        io::Error::new(error.kind(), message)
    })?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Makes a disk unless the one that is there was made of the same files.
pub fn make(name: &str, parts: &[Part], work: &Path) -> io::Result<PathBuf> {
    let disk = work.join(name).with_extension("erofs");
    let recipe_path = disk.with_extension("recipe");
    let mut recipe = String::new();
    for part in parts {
        let meta = fs::metadata(&part.from).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", part.from.display()))
        })?;
        let (device, inode, length) = (meta.dev(), meta.ino(), meta.len());
        let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
        recipe += &format!("{} {device} {inode} {length} {seconds}.{nanos}\n", part.to.display());
    }
    if disk.exists() && fs::read_to_string(&recipe_path).is_ok_and(|kept| kept == recipe) {
        return Ok(disk);
    }
    eprintln!("==> fill the disk {name} for emulated hosts");
    let staging = work.join(name);
    for old in [&recipe_path, &disk] {
        remove(old)?;
    }
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    for part in parts {
        let to = staging.join(&part.to);
        fs::create_dir_all(to.parent().unwrap_or(&staging))?;
        // No link: that would change when the file was changed, by which pyro
        // knows what it has verified.
        fs::copy(&part.from, &to)?;
    }
    run(Command::new("mkfs.erofs").arg("-T0").arg(&disk).arg(&staging).stdout(Stdio::null()))?;
    fs::remove_dir_all(&staging)?;
    fs::write(&recipe_path, recipe)?;
    Ok(disk)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
