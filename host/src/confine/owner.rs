//! Whom the VMM runs as, and what of the host's is made its own.

use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The user and group that a VMM runs as when pyro runs as root: "pyro" in
/// ASCII, far from any range that a host hands out.
pub const VMM_UID: u32 = 0x7079_726f;

/// Root in a container often is an ordinary user of the host, with few other
/// ids or none.
pub(super) fn has_user_for_vmm() -> bool {
    let maps = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|map| {
            map.lines().any(|line| {
                let mut numbers = line.split_whitespace().map(str::parse::<u64>);
                let (Some(Ok(first)), _, Some(Ok(count))) =
                    (numbers.next(), numbers.next(), numbers.next())
                else {
                    return false;
                };
                (first..first + count).contains(&VMM_UID.into())
            })
        })
    };
    rustix::process::geteuid().is_root() && maps("/proc/self/uid_map") && maps("/proc/self/gid_map")
}

/// Makes something in a private directory the VMM's own, if the VMM runs as
/// somebody else than pyro. A link is not followed.
///
/// # Errors
/// When there is no such thing, or the host's system refuses.
pub fn give(path: &Path) -> Result<()> {
    give_if(path, |_| Ok(()))
}

/// As [`give`], for an ordinary file only.
pub(super) fn give_file(path: &Path) -> Result<()> {
    give_if(path, |kind| {
        if kind == FileType::RegularFile {
            Ok(())
        } else {
            let message = format!("{} is no ordinary file", path.display());
            Err(Error::new(ErrorKind::HostRequirement, message))
        }
    })
}

fn give_if(path: &Path, allowed: impl FnOnce(FileType) -> Result<()>) -> Result<()> {
    let refused = |errno: rustix::io::Errno| {
        Error::io(format!("cannot make {} the VMM's", path.display()), errno.into())
    };
    // What is looked at is what is given, whatever the path leads to meanwhile.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::open(path, flags, Mode::empty()).map_err(refused)?;
    let stat = rustix::fs::fstat(&found).map_err(refused)?;
    allowed(FileType::from_raw_mode(stat.st_mode))?;
    if !has_user_for_vmm() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(VMM_UID), Gid::from_raw(VMM_UID));
    rustix::fs::chownat(&found, "", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(refused)
}

/// Refuses what the VMM could not open, before it says so in words of its own.
pub(super) fn readable_by_vmm(path: &Path, execute: bool) -> Result<()> {
    let Ok(meta) = path.metadata() else { return Ok(()) };
    if !meta.is_file() || !has_user_for_vmm() {
        return Ok(());
    }
    let wanted = if execute { 0o5 } else { 0o4 };
    let granted = if meta.uid() == VMM_UID { meta.mode() >> 6 } else { meta.mode() };
    if granted & wanted == wanted {
        return Ok(());
    }
    let message = format!(
        "{} is not for the user that the VMM runs as (its mode is {:o})",
        path.display(),
        meta.mode() & 0o7777
    );
    let letters = if execute { "rx" } else { "r" };
    Err(Error::new(ErrorKind::HostRequirement, message)
        .hint(format!("let all read it: `chmod a+{letters} {}`", path.display())))
}
