//! Fresh random numbers for a machine that may be one of many clones.

use pyro_protocol::power::ENTROPY_LEN;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

// <linux/random.h>; libc has neither.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info`.
#[repr(C)]
struct Pool {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; ENTROPY_LEN],
}

/// Every byte of the host's counts in full.
const CREDIT_BITS: libc::c_int = 8 * ENTROPY_LEN as libc::c_int;

// Less, and a generator that was initialised in the template would not take it.
const _: () = assert!(CREDIT_BITS >= 256);

/// Mixes the host's random bytes in and makes the kernel's generator start
/// over from them. A plain write to /dev/urandom does neither.
pub(crate) fn reseed(bytes: [u8; ENTROPY_LEN]) -> io::Result<()> {
    let urandom = File::options().read(true).write(true).open("/dev/urandom")?;
    let pool =
        Pool { entropy_count: CREDIT_BITS, buf_size: ENTROPY_LEN as libc::c_int, buf: bytes };
    // SAFETY: the ioctl reads a rand_pool_info whose buf_size bytes follow it,
    // and `pool` is just that.
    check(unsafe { libc::ioctl(urandom.as_raw_fd(), RNDADDENTROPY, &raw const pool) })?;
    // SAFETY: the ioctl takes no argument.
    check(unsafe { libc::ioctl(urandom.as_raw_fd(), RNDRESEEDCRNG) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
