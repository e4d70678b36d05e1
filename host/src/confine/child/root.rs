//! The things in the VMM's root, and how they get there.

use super::step::{Outcome, Step, existing, step};
use crate::confine::owner::readable_by_vmm;
use crate::confine::{Access, c_string};
use crate::error::{Error, ErrorKind, Result};
use std::ffi::{CStr, CString, c_uint, c_ulong};
use std::path::Path;
use std::ptr::null;

/// One thing in the private root.
pub struct Entry {
    /// Directories to make first, outermost first.
    parents: Vec<CString>,
    target: CString,
    what: What,
}

enum What {
    Directory { source: CString, attributes: u64 },
    File { source: CString, attributes: u64 },
    Link { points_to: CString },
}

const BARE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Nothing can be written there.
pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | BARE;

/// What a device is shown with.
pub const DEVICE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

impl Access {
    /// What it means for a mount.
    pub fn attributes(self) -> u64 {
        match self {
            Self::Execute => READ_ONLY,
            Self::Read => READ_ONLY | libc::MOUNT_ATTR_NOEXEC,
            Self::Write => BARE | libc::MOUNT_ATTR_NOEXEC,
        }
    }
}

impl Entry {
    /// Shows `source` as `target` below `stage`. `None` when the host does not
    /// have it.
    pub fn new(
        stage: &Path,
        source: &Path,
        target: &Path,
        attributes: u64,
    ) -> Result<Option<Self>> {
        let Ok(meta) = source.symlink_metadata() else { return Ok(None) };
        let relative = target.strip_prefix("/").map_err(|_| {
            Error::new(
                ErrorKind::HostRequirement,
                format!("{} is not an absolute path", target.display()),
            )
        })?;
        let mut parents = relative
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
            .map(|parent| c_string(stage.join(parent)))
            .collect::<Result<Vec<_>>>()?;
        parents.reverse();
        // /lib and the like are links on most hosts; a link to where the
        // program lies is followed, for a root that is as small as it can be.
        let what = if meta.is_symlink() && source == target && !source.is_file() {
            let points_to = source
                .read_link()
                .map_err(|error| Error::io(format!("cannot read {}", source.display()), error))?;
            What::Link { points_to: c_string(&points_to)? }
        } else if source.is_dir() {
            What::Directory { source: c_string(source)?, attributes }
        } else {
            What::File { source: c_string(source)?, attributes }
        };
        Ok(Some(Self { parents, target: c_string(stage.join(relative))?, what }))
    }

    /// As [`Entry::new`], for what the VMM opens by itself.
    pub fn seen(
        stage: &Path,
        source: &Path,
        target: &Path,
        access: Access,
    ) -> Result<Option<Self>> {
        match access {
            Access::Read => readable_by_vmm(source, false)?,
            Access::Execute | Access::Write => {}
        }
        Self::new(stage, source, target, access.attributes())
    }

    /// Puts it there.
    ///
    /// # Safety
    /// In the child, which is alone in its mount namespace; allocates nothing.
    pub unsafe fn show(&self) -> Outcome {
        let target = self.target.as_ptr();
        // SAFETY: pointers into `self`, NUL-terminated.
        unsafe {
            for parent in &self.parents {
                existing(Step::MakingRoot, libc::mkdir(parent.as_ptr(), 0o755))?;
            }
            let (source, attributes) = match &self.what {
                What::Link { points_to } => {
                    return existing(Step::MakingRoot, libc::symlink(points_to.as_ptr(), target));
                }
                What::Directory { source, attributes } => {
                    existing(Step::MakingRoot, libc::mkdir(target, 0o755))?;
                    (source, *attributes)
                }
                What::File { source, attributes } => {
                    existing(Step::MakingRoot, libc::mknod(target, libc::S_IFREG | 0o644, 0))?;
                    (source, *attributes)
                }
            };
            let flags = libc::MS_BIND | libc::MS_REC;
            step(Step::Showing, libc::mount(source.as_ptr(), target, null(), flags, null()))?;
            set_attributes(Step::Showing, &self.target, attributes, libc::AT_RECURSIVE as c_uint)
        }
    }
}

/// Changes a mount.
///
/// # Safety
/// As [`Entry::show`].
pub unsafe fn set_attributes(at: Step, path: &CStr, set: u64, flags: c_uint) -> Outcome {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: `path` and `attributes` outlive the call, and the size is right.
    unsafe {
        let size = size_of_val(&attributes);
        step(
            at,
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                path.as_ptr(),
                flags,
                &raw const attributes,
                size,
            ),
        )
    }
}

/// Mounts an empty file system in memory, in this mount namespace only.
/// `propagation` says what the namespace still learns of the host's mounts.
///
/// # Safety
/// As [`Entry::show`].
pub unsafe fn mount_stage(
    propagation: c_ulong,
    stage: &CStr,
    flags: c_ulong,
    options: &CStr,
) -> Outcome {
    // SAFETY: NUL-terminated strings that outlive the calls.
    unsafe {
        let (at, all) = (Step::Mounting, libc::MS_REC | propagation);
        step(at, libc::mount(null(), c"/".as_ptr(), null(), all, null()))?;
        let (nothing, tmpfs) = (c"none".as_ptr(), c"tmpfs".as_ptr());
        step(at, libc::mount(nothing, stage.as_ptr(), tmpfs, flags, options.as_ptr().cast()))
    }
}
