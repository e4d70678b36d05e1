//! A tar archive, made of a checked stream: POSIX.1-2001, which every tar reads.
//!
//! What the older headers cannot say (long and odd names, large files, fractions
//! of a second) stands in extended headers before them. Holes are zeros to
//! whoever reads the archive, and holes of the archive itself where it can have
//! them.

use super::stream::Sink;
use crate::disk::room::Room;
use crate::error::{Error, Result};
use pyro_protocol::export::{ExportEntry, ExportKind, Xattr};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

const BLOCK: usize = 512;

/// Written at a time.
const BUFFER: usize = 1 << 20;

/// The largest number of eleven octal digits.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// The largest user or group of seven of them.
const ID_MAX: u32 = 0o777_7777;

/// Zeros, for padding and short holes; the rest of a longer one is left out of
/// the file.
const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// As when a tree is made.
const MODE_KEPT: u32 = 0o1777;

/// An archive in the making.
pub(super) struct Tar<'a, W: Output> {
    file: BufWriter<W>,
    room: Room<'a>,
    /// What a single file is called.
    name: Vec<u8>,
    /// How many bytes the last file has.
    length: u64,
}

/// Where an archive goes.
pub(super) trait Output: Write {
    /// Passes over so many zeros. More comes after them.
    fn skip(&mut self, zeros: u64) -> io::Result<()>;
}

impl Output for File {
    fn skip(&mut self, zeros: u64) -> io::Result<()> {
        self.seek(SeekFrom::Current(zeros.cast_signed())).map(drop)
    }
}

impl<'a, W: Output> Tar<'a, W> {
    pub(super) fn new(file: W, room: Room<'a>, name: &[u8]) -> Self {
        let file = BufWriter::with_capacity(BUFFER, file);
        Self { file, room, name: name.to_vec(), length: 0 }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        // Two empty blocks end an archive.
        self.zeros(2 * BLOCK as u64).and_then(|()| self.file.flush()).map_err(refused)
    }

    fn member(&self, path: &[u8], is_directory: bool) -> Vec<u8> {
        match (path.is_empty(), is_directory) {
            (true, true) => b"./".to_vec(),
            (true, false) => self.name.clone(),
            (false, true) => [path, b"/"].concat(),
            (false, false) => path.to_vec(),
        }
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        let short = usize::try_from(count).ok().and_then(|count| ZEROS.get(..count));
        match short {
            Some(zeros) => self.file.write_all(zeros),
            None => {
                self.file.flush()?;
                self.file.get_mut().skip(count)
            }
        }
    }

    fn header(&mut self, entry: &ExportEntry) -> io::Result<()> {
        let (kind, size, link) = match &entry.kind {
            ExportKind::File { size_bytes } => (b'0', *size_bytes, Vec::new()),
            ExportKind::HardLink(first) => (b'1', 0, self.member(&first.0, false)),
            ExportKind::Symlink(target) => (b'2', 0, target.0.clone()),
            ExportKind::Directory => (b'5', 0, Vec::new()),
        };
        self.length = size;
        let name = self.member(&entry.path.0, entry.kind == ExportKind::Directory);
        let mut extended = Vec::new();
        if name.len() > 100 || !name.is_ascii() {
            extended.extend(record("path", &name));
        }
        if link.len() > 100 || !link.is_ascii() {
            extended.extend(record("linkpath", &link));
        }
        if size > OCTAL_MAX {
            extended.extend(record("size", size.to_string().as_bytes()));
        }
        let time = entry.modified;
        let whole = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= OCTAL_MAX);
        if whole.is_none() || time.nanoseconds > 0 {
            extended.extend(record("mtime", decimal(time.seconds, time.nanoseconds).as_bytes()));
        }
        let owner = entry.attributes.as_ref().map_or((0, 0), |of| (of.uid, of.gid));
        for (key, id) in [("uid", owner.0), ("gid", owner.1)] {
            if id > ID_MAX {
                extended.extend(record(key, id.to_string().as_bytes()));
            }
        }
        for Xattr { name, value } in entry.attributes.iter().flat_map(|of| &of.xattrs) {
            // What is before the first `=` is the key.
            if !name.0.contains(&b'=') {
                let key = [b"SCHILY.xattr.", name.0.as_slice()].concat();
                extended.extend(record(key, &value.0));
            }
        }
        if !extended.is_empty() {
            let length = extended.len() as u64;
            let block = block(b"pax_header", 0o644, (0, 0), length, 0, b'x', b"");
            self.file.write_all(&block)?;
            self.file.write_all(&extended)?;
            self.zeros(padding(extended.len() as u64))?;
        }
        let size = if size > OCTAL_MAX { 0 } else { size };
        let mode = match &entry.attributes {
            Some(_) => entry.mode & 0o7777,
            None => entry.mode & MODE_KEPT,
        };
        self.file.write_all(&block(&name, mode, owner, size, whole.unwrap_or(0), kind, &link))
    }
}

impl<W: Output> Sink for Tar<'_, W> {
    fn entry(&mut self, entry: &ExportEntry) -> Result<()> {
        self.room.made()?;
        self.header(entry).map_err(refused)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(refused)?;
        self.room.wrote(bytes.len() as u64)
    }

    fn hole(&mut self, length: u64) -> Result<()> {
        self.zeros(length).map_err(refused)
    }

    fn end(&mut self, missing: u64) -> Result<()> {
        // The header has promised them.
        self.zeros(missing + padding(self.length)).map_err(refused)
    }
}

pub(super) fn write_zeros(into: &mut impl Write, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let length = count.min(ZEROS.len() as u64);
        into.write_all(&ZEROS[..length as usize])?;
        count -= length;
    }
    Ok(())
}

fn padding(length: u64) -> u64 {
    length.next_multiple_of(BLOCK as u64) - length
}

fn block(
    name: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
    size: u64,
    mtime: u64,
    kind: u8,
    link: &[u8],
) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{mode:07o}\0").as_bytes());
    // Unless owners go along, the caller's, wherever it is unpacked.
    put(108, format!("{:07o}\0", uid.min(ID_MAX)).as_bytes());
    put(116, format!("{:07o}\0", gid.min(ID_MAX)).as_bytes());
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{mtime:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself too.
fn record(key: impl AsRef<[u8]>, value: &[u8]) -> Vec<u8> {
    let key = key.as_ref();
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

/// A time with its fraction, which counts away from zero as the sign does.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn refused(error: io::Error) -> Error {
    Error::io("cannot write the archive", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::room::tests::room_for;
    use pyro_protocol::ByteString;
    use pyro_protocol::file::FileTime;
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;

    fn file(path: &str, size_bytes: u64) -> ExportEntry {
        let (path, modified) = (ByteString(path.into()), FileTime { seconds: 5, nanoseconds: 5 });
        ExportEntry {
            path,
            mode: 0o644,
            modified,
            kind: ExportKind::File { size_bytes },
            attributes: None,
        }
    }

    #[test]
    fn s4_what_is_not_there_takes_no_room_and_what_is_there_is_counted() {
        let archive = tempfile::tempfile().expect("a file");
        let looks = Cell::new(4);
        let mut tar = Tar::new(archive.try_clone().expect("cloned"), room_for(&looks), b"x");
        // A hole, and what a torn file is short of.
        tar.entry(&file("hole", 1 << 40)).expect("begun");
        tar.hole(1 << 39).expect("passed over");
        tar.end(1 << 39).expect("complete");
        tar.file.flush().expect("written");
        assert!(archive.metadata().expect("there").blocks() < 100);
        let content = vec![7; 1 << 20];
        let mut one = |number: u32| {
            tar.entry(&file(&number.to_string(), 1 << 20))?;
            tar.bytes(&content)?;
            tar.end(0)
        };
        let full = (0..100).find(|number| one(*number).is_err());
        assert!(full.is_some_and(|number| number < 30), "{full:?}");
    }
}
