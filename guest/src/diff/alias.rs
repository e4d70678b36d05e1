//! Names that changed without being touched.
//!
//! When a program writes through one of several names of a lower file, the
//! overlay copies the file into its index and links only that name to the copy.
//! The other names stay out of the upper layer and show the copy all the same.
//! The index names its files by the handles of the lower ones.

use super::layers::{Found, Layers, Place, join};
use crate::beneath;
use crate::file::names::{self, Page};
use crate::work::Cancel;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What the names in question may take: a diff of more linked files than that
/// is refused rather than wrong.
const BYTES_MAX: usize = 6 * 1024 * 1024;

/// The bytes of a name in the index before the handle's own: version, magic,
/// length, flags, type, and the file system's id.
const PREFIX: usize = 21;

/// Where among them the type is.
const TYPE_AT: usize = 4;

/// Reading names from the index or the lower layer goes by so many bytes.
const LISTING: usize = 256 * 1024;

/// Lower paths, as [`key`] makes them, whose files were copied into the index,
/// with the names there.
#[derive(Debug, Default)]
pub(super) struct Aliases(BTreeMap<Vec<u8>, Vec<u8>>);

impl Aliases {
    /// Finds them. Costs next to nothing when nothing was written through a
    /// hard link.
    pub(super) fn find(layers: &Layers, cancel: &Cancel) -> io::Result<Self> {
        let copies = copies(layers, cancel)?;
        let mut search = Search { layers, cancel, copies, found: Self::default(), room: BYTES_MAX };
        if search.copies.is_empty() {
            return Ok(search.found);
        }
        match &layers.hard_links {
            Some(table) => search.in_table(table)?,
            None => search.in_tree()?,
        }
        Ok(search.found)
    }

    /// The name in the index of what a lower path shows.
    pub(super) fn of(&self, lower: &[u8]) -> Option<&Vec<u8>> {
        self.0.get(&key(lower))
    }

    /// Whether there are any below a lower directory.
    pub(super) fn any_below(&self, lower: &[u8]) -> bool {
        self.child_after(lower, None).is_some()
    }

    /// The next name in a lower directory, after another, that is one or leads
    /// to one.
    pub(super) fn child_after(&self, lower: &[u8], after: Option<&[u8]>) -> Option<Vec<u8>> {
        let prefix = if lower.is_empty() { Vec::new() } else { key(&join(lower, b"")) };
        // Everything at or below `after` comes before what follows it with a 1.
        let start = after
            .map_or_else(|| prefix.clone(), |after| [prefix.as_slice(), after, b"\x01"].concat());
        let (path, _) = self.0.range(start..).next()?;
        let rest = path.strip_prefix(prefix.as_slice())?;
        rest.split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
    }
}

/// A path whose order is that of its names, one after the other.
fn key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

/// A file's handle: its type and bytes.
type Handle = (u8, Vec<u8>);

struct Search<'a> {
    layers: &'a Layers,
    cancel: &'a Cancel,
    copies: HashMap<Handle, Vec<u8>>,
    found: Aliases,
    room: usize,
}

impl Search<'_> {
    fn in_table(&mut self, table: &OwnedFd) -> io::Result<()> {
        let table = beneath_again(table)?;
        let mut reader = BufReader::new(File::from(table)).take(u64::MAX);
        // The copy that the group at hand has in the index, once it is known.
        let mut group: Option<Option<Vec<u8>>> = None;
        loop {
            self.cancel.check_errno()?;
            let mut name = Vec::new();
            if reader.read_until(0, &mut name)? == 0 {
                return Ok(());
            }
            if name.last() == Some(&0) {
                name.pop();
            }
            if name.is_empty() {
                group = None;
                continue;
            }
            if group.is_none() {
                group = Some(self.copy_of(&name)?);
            }
            if let Some(Some(copy)) = &group {
                let copy = copy.clone();
                self.add(name, copy)?;
            }
        }
    }

    /// Looks at every file of the lower layer that has several names.
    fn in_tree(&mut self) -> io::Result<()> {
        let mut pending = vec![(Vec::new(), None::<Vec<u8>>)];
        while let Some((path, after)) = pending.pop() {
            let directory = self.layers.directory(&Place::Lower(path.clone()))?;
            let after = after.unwrap_or_default();
            let Page { names, more } = names::page(directory.as_fd(), &after, LISTING)?;
            if more {
                pending.push((path.clone(), names.last().cloned()));
            }
            for name in names {
                self.cancel.check_errno()?;
                let child = join(&path, &name);
                let Found::Node(node) = self.layers.node(Place::Lower(child.clone()))? else {
                    continue;
                };
                if node.is_directory() {
                    pending.push((child, None));
                } else if node.links > 1
                    && let Some(copy) = self.copy_of(&child)?
                {
                    self.add(child, copy)?;
                }
            }
        }
        Ok(())
    }

    fn copy_of(&self, lower: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self.layers.path(&Place::Lower(lower.to_vec())) {
            Ok(opened) => Ok(self.copies.get(&handle(&opened)?).cloned()),
            // A table that names what is not there is of no harm.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn add(&mut self, lower: Vec<u8>, copy: Vec<u8>) -> io::Result<()> {
        let left = self.room.checked_sub(lower.len() + copy.len() + 64);
        self.room = left.ok_or_else(too_many)?;
        self.found.0.insert(key(&lower), copy);
        Ok(())
    }
}

/// What is in the index, by the handles of the lower files.
fn copies(layers: &Layers, cancel: &Cancel) -> io::Result<HashMap<Handle, Vec<u8>>> {
    let mut copies = HashMap::new();
    let Some(index) = &layers.index else { return Ok(copies) };
    let (mut room, mut after, mut more) = (BYTES_MAX, Vec::new(), true);
    while more {
        cancel.check_errno()?;
        let Page { names, more: rest } = names::page(index.as_fd(), &after, LISTING)?;
        (after, more) = (names.last().cloned().unwrap_or_default(), rest);
        for name in names {
            let Some(handle) = named(&name) else { continue };
            let left = room.checked_sub(2 * name.len() + 64);
            room = left.ok_or_else(too_many)?;
            copies.insert(handle, name);
        }
    }
    Ok(copies)
}

fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, "too many hard links were written through")
}

/// The handle that a name in the index stands for.
fn named(name: &[u8]) -> Option<Handle> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(name.len() / 2);
    for pair in name.chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    let kind = *bytes.get(TYPE_AT)?;
    Some((kind, bytes.get(PREFIX..)?.to_vec()))
}

/// struct file_handle, with room for the longest there is.
#[repr(C)]
struct FileHandle {
    length: u32,
    kind: c_int,
    bytes: [u8; HANDLE_MAX],
}

/// MAX_HANDLE_SZ of <linux/exportfs.h>.
const HANDLE_MAX: usize = 128;

/// What the kernel knows a file by.
fn handle(opened: &OwnedFd) -> io::Result<Handle> {
    let mut handle = FileHandle { length: HANDLE_MAX as u32, kind: 0, bytes: [0; HANDLE_MAX] };
    let mut mount: c_int = 0;
    // SAFETY: the path is a string, and both pointers are to values of the types
    // that the call fills in; `length` says how much room there is.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            opened.as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(handle.length).unwrap_or(HANDLE_MAX).min(HANDLE_MAX);
    let kind = u8::try_from(handle.kind).unwrap_or(0);
    Ok((kind, handle.bytes[..length].to_vec()))
}

/// The same file with a position of its own.
fn beneath_again(file: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
}

const _: () = assert!(beneath::PATH_MAX * 2 < BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_once_and_in_order() {
        let paths: [&[u8]; 7] = [b"a", b"a b/x", b"a!/y", b"a/b/c", b"a/b/d", b"b/e", b"c"];
        let aliases = Aliases(paths.iter().map(|path| (key(path), Vec::new())).collect());
        let children = |directory: &[u8]| {
            let mut children: Vec<Vec<u8>> = Vec::new();
            while let Some(child) = aliases.child_after(directory, children.last().map(|c| &c[..]))
            {
                children.push(child);
            }
            children
        };
        assert_eq!(children(b""), [&b"a"[..], b"a b", b"a!", b"b", b"c"]);
        assert_eq!(children(b"a"), [b"b"]);
        assert_eq!(children(b"a/b"), [b"c", b"d"]);
        assert!(aliases.any_below(b"a b"));
        assert!(!aliases.any_below(b"c"));
        assert!(!aliases.any_below(b"a "));
    }
}
