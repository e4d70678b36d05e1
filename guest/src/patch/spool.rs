//! A patch on its way in, kept out of the agent's memory.

use super::tree;
use crate::commit::Commits;
use pyro_protocol::diff::PATCH_MAX;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write};
use std::ptr;

/// What has arrived, in a file without a name.
pub(super) struct Spool {
    file: File,
    length: u64,
}

/// All that arrived, readable like memory; the kernel may drop pages of it.
pub(super) struct Mapped {
    at: *mut c_void,
    length: usize,
    /// The file is ours alone, so it never gets shorter beneath the mapping.
    _file: File,
}

impl Spool {
    pub(super) fn new(commits: &Commits) -> io::Result<Self> {
        Ok(Self { file: commits.spool()?, length: 0 })
    }

    /// Takes the next bytes. They go to the page cache; what waits for the disk
    /// is a moment.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        self.length += bytes.len() as u64;
        if self.length > PATCH_MAX {
            let text = format!("the patch is longer than {PATCH_MAX} bytes");
            return Err(AgentError::new(AgentErrorKind::TooLarge, text));
        }
        self.file.write_all(bytes).map_err(|error| tree::fault(b"the patch", &error))
    }

    pub(super) fn map(self) -> io::Result<Mapped> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(Mapped { at: ptr::null_mut(), length, _file: self.file });
        }
        // SAFETY: a new mapping touches no memory that is in use.
        let at = unsafe {
            mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, &self.file, 0)?
        };
        Ok(Mapped { at, length, _file: self.file })
    }
}

impl Mapped {
    pub(super) fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `at` is a readable mapping of `length` bytes for as long as
        // `self` lives, and nobody else has the file, so nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: `bytes` borrows `self`, so nobody reads from it any more.
            // A mapping that stays is lost address space, no more.
            let _ = unsafe { munmap(self.at, self.length) };
        }
    }
}
