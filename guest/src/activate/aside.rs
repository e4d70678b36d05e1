//! A disk that may only be read, made writable: what is written to it is kept in
//! memory and read from there. So a file system can put itself right after a
//! crash while the disk stays as it was.
//!
//! ```text
//! /dev/dm-N ──reads──▶ chunks that were written ─▶ /dev/loopN ─▶ memory
//!     │  └─────────────all others────────────────▶ the disk
//!     └──writes──────────────────────────────────▶ /dev/loopN
//! ```

use rustix::fs::{MemfdFlags, ftruncate, major, memfd_create, minor, stat};
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::path::Path;

/// How much may be written: the disk's journal has 16 MiB, and what recovering it
/// and mounting the layers adds is less than that.
const WRITTEN_MAX: u64 = 64 << 20;

/// What is kept of a write at least: a block of the file system, in sectors.
const CHUNK_SECTORS: u64 = 8;

const SECTOR: u64 = 512;

const MAPPER: &str = "/dev/mapper/control";
const LOOPS: &str = "/dev/loop-control";

// <linux/loop.h>, <linux/fs.h>, <linux/dm-ioctl.h>
const LOOP_SET_FD: libc::Ioctl = 0x4c00;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
const DM_DEV_CREATE: libc::Ioctl = 0xc138_fd03_u32 as libc::Ioctl;
const DM_DEV_SUSPEND: libc::Ioctl = 0xc138_fd06_u32 as libc::Ioctl;
const DM_TABLE_LOAD: libc::Ioctl = 0xc138_fd09_u32 as libc::Ioctl;

/// The device's name for the mapper.
const NAME: &[u8] = b"inspected";

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

// The numbers of the calls have it.
const _: () = assert!(size_of::<Header>() == 0x138);

/// A table of one row: `struct dm_target_spec` and its parameters.
#[repr(C)]
struct Table {
    header: Header,
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
    parameters: [u8; 64],
}

/// Makes a device of a disk that can be written; gives its name.
///
/// # Errors
/// `Unsupported` when the kernel was built without what that takes.
pub(super) fn writable(disk: &Path) -> io::Result<String> {
    if let Some(missing) = [MAPPER, LOOPS].iter().find(|path| !Path::new(path).exists()) {
        let text = format!("the guest's kernel has no {missing}: it was built by an older pyro");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let length = length(disk).map_err(|error| named("the disk", error))?;
    let memory = memory().map_err(|error| named("memory for what is written", error))?;
    let parameters = format!("{} {memory} N {CHUNK_SECTORS}", number(disk)?);
    map(length / SECTOR, &parameters).map_err(|error| named("the device mapper", error))
}

/// A block device that is memory, by its numbers.
fn memory() -> io::Result<String> {
    let memory = memfd_create("written", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, WRITTEN_MAX)?;
    let control = File::options().read(true).write(true).open(LOOPS)?;
    // SAFETY: the ioctl takes no argument.
    let free = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    let path = format!("/dev/loop{free}");
    let device = File::options().read(true).write(true).open(&path)?;
    // SAFETY: the ioctl's argument is a descriptor, which is open.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, memory.as_raw_fd()) })?;
    number(Path::new(&path))
}

fn map(sectors: u64, parameters: &str) -> io::Result<String> {
    let control = File::options().read(true).write(true).open(MAPPER)?;
    let mut created = header(size_of::<Header>());
    // SAFETY: the ioctl reads and writes a dm_ioctl of the length it has.
    check(unsafe { libc::ioctl(control.as_raw_fd(), DM_DEV_CREATE, &raw mut created) })?;
    let mut table = Table {
        header: Header { target_count: 1, ..header(size_of::<Table>()) },
        sector_start: 0,
        length: sectors,
        status: 0,
        next: 0,
        target_type: padded(b"snapshot")?,
        parameters: padded(parameters.as_bytes())?,
    };
    // SAFETY: as above; its data are the row and the parameters, which end in NUL.
    check(unsafe { libc::ioctl(control.as_raw_fd(), DM_TABLE_LOAD, &raw mut table) })?;
    // Of a device that does not work yet this sets the table to work.
    let mut resumed = header(size_of::<Header>());
    // SAFETY: as for the first.
    check(unsafe { libc::ioctl(control.as_raw_fd(), DM_DEV_SUSPEND, &raw mut resumed) })?;
    // Device numbers as the kernel tells them: 20 bits of minor around 12 of major.
    let minor = (created.dev & 0xff) | ((created.dev >> 12) & 0xf_ff00);
    Ok(format!("/dev/dm-{minor}"))
}

fn header(length: usize) -> Header {
    let mut name = [0; 128];
    name[..NAME.len()].copy_from_slice(NAME);
    Header {
        version: [4, 0, 0],
        data_size: length as u32,
        data_start: size_of::<Header>() as u32,
        target_count: 0,
        open_count: 0,
        flags: 0,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name,
        uuid: [0; 129],
        data: [0; 7],
    }
}

/// A text with a NUL behind it.
fn padded<const N: usize>(text: &[u8]) -> io::Result<[u8; N]> {
    let mut padded = [0; N];
    if text.len() >= N {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    padded[..text.len()].copy_from_slice(text);
    Ok(padded)
}

/// A device's numbers, as the mapper takes them.
fn number(device: &Path) -> io::Result<String> {
    let number = stat(device)?.st_rdev;
    Ok(format!("{}:{}", major(number), minor(number)))
}

fn length(device: &Path) -> io::Result<u64> {
    let device = File::open(device)?;
    let mut length = 0_u64;
    // SAFETY: the ioctl writes a u64.
    check(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut length) })?;
    Ok(length)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
