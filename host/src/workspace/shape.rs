//! How large a guest is.

use crate::disk;
use crate::error::{Error, ErrorKind, Result};
use crate::vmm::RateLimit;

/// How many virtual processors a guest may have.
pub const VCPUS: std::ops::RangeInclusive<u32> = 1..=32;

/// The least memory that a guest boots with, in MiB.
pub const MEM_MIB_MIN: u32 = 128;

/// The memory of a guest that only has to prove that it boots.
const TRIAL_MEM_MIB: u32 = 256;

/// How large a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// See [`VCPUS`].
    pub vcpu_count: u32,
    /// See [`MEM_MIB_MIN`].
    pub mem_mib: u32,
    /// The size of its file system.
    pub disk_mib: u64,
    /// How fast it may use that.
    pub disk_limit: RateLimit,
}

impl Shape {
    /// One that is enough to prove that a guest boots.
    pub(super) const TRIAL: Self = Self {
        vcpu_count: 1,
        mem_mib: TRIAL_MEM_MIB,
        disk_mib: disk::DEFAULT_MIB,
        disk_limit: RateLimit::NONE,
    };

    /// Whether such a guest can be at all.
    pub(super) fn check(self) -> Result<()> {
        let Self { vcpu_count, mem_mib, disk_mib: _, disk_limit: _ } = self;
        if !VCPUS.contains(&vcpu_count) {
            let (min, max) = (VCPUS.start(), VCPUS.end());
            let message = format!("a guest cannot have {vcpu_count} virtual processors");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint(format!("choose between {min} and {max}")));
        }
        if mem_mib < MEM_MIB_MIN {
            let message = format!("a guest cannot live in {mem_mib} MiB of memory");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint(format!("give it at least {MEM_MIB_MIN} MiB")));
        }
        Ok(())
    }
}
