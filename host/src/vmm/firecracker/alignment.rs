//! Where a guest's memory is in Firecracker's address space.
//!
//! KVM can give a guest pages of 2 MiB, each of which saves it 512 faults as it
//! boots and most misses of its translation cache ever after; but only where an
//! address of the guest's memory is the VMM's but for a multiple of 2 MiB. Since
//! Linux 6.7 all large memory is so aligned ("mm: align larger anonymous mappings
//! on THP boundaries"). Before, it is directly beneath what was mapped last:
//!
//! ```text
//! at a multiple of 2 MiB   the program, on most file systems
//! beneath it               its configuration, as it was read
//! beneath it               the stack of the API's thread
//! beneath it               the guest's memory
//! ```
//!
//! So the configuration's length decides. What is mapped before the guest's
//! memory and does not fit between the program and the top, which is at random,
//! spoils it: that is one boot in four. Nothing but speed depends on any of this.

/// The large page.
const HUGE: u64 = 2 << 20;

/// What musl maps for a thread of Rust's with the stack that all get: 2 MiB,
/// a page that guards it, and what the thread has for itself. As observed of
/// Firecracker 1.12.1.
const API_THREAD: u64 = HUGE + 0x3000;

/// More than this fits nowhere but beneath the program.
const LARGE: u64 = HUGE * 3 / 4;

/// For the allocator, which puts its own in front and takes whole pages.
const ALLOCATOR: u64 = 2048;

/// Which Linux needs no help, by its release's first two numbers.
const ALIGNS_BY_ITSELF: (u32, u32) = (6, 7);

/// How long a configuration is to be for a guest of this much memory; `None` if
/// it does not matter on this host.
pub(super) fn length(mem_mib: u32) -> Option<u64> {
    let release = rustix::system::uname();
    let help = !aligns_by_itself(release.release().to_str().unwrap_or_default());
    help.then(|| mapped(mem_mib) - ALLOCATOR)
}

/// How much the configuration is to take of the address space.
const fn mapped(mem_mib: u32) -> u64 {
    let above = API_THREAD + ((mem_mib as u64) << 20);
    let rest = HUGE - above % HUGE;
    if rest < LARGE { rest + HUGE } else { rest }
}

/// What does not look like a release is none.
fn aligns_by_itself(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= ALIGNS_BY_ITSELF,
        (_, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for new in ["6.7", "6.7.0-rc1", "6.12.9-cloud-amd64", "7.0"] {
            assert!(aligns_by_itself(new), "{new}");
        }
        for old in ["6.1.0-56-cloud-amd64", "5.10.0", "6.6.99", "", "x.y", "6"] {
            assert!(!aligns_by_itself(old), "{old}");
        }
    }

    #[test]
    fn memory_of_any_size_ends_up_aligned() {
        for mem_mib in (64..=65).chain([128, 255, 256, 1023, 4096]) {
            let configuration = mapped(mem_mib);
            let beneath = configuration + API_THREAD + (u64::from(mem_mib) << 20);
            assert_eq!(beneath % HUGE, 0, "{mem_mib}");
            assert!((LARGE..LARGE + HUGE).contains(&configuration), "{mem_mib}");
        }
    }
}
