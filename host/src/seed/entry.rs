//! What a tree is made of, wherever it comes from.

use std::fmt;
use std::io::Read;

/// The longest path below a workspace's root: with `/workspace/` before it, it
/// still is one that Linux takes.
pub const PATH_BYTES_MAX: usize = 4095 - "/workspace/".len();

/// The longest name that Linux takes in a directory.
pub const NAME_BYTES_MAX: usize = 255;

/// The longest target of a symbolic link that Linux takes.
pub const TARGET_BYTES_MAX: usize = 4095;

/// Where an entry is, below the tree's root: names with `/` between them, as
/// bytes. No name is empty, `.` or `..`, or has a NUL in it.
///
/// It came from a directory listing or an archive. It is a name to write down,
/// never a path to open by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

/// Why bytes are no [`RelPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It is empty, or has an empty name in it.
    #[error("there is an empty name in it")]
    Empty,
    /// It begins with `/`.
    #[error("it is absolute")]
    Absolute,
    /// `.` or `..` is no name.
    #[error("`.` and `..` are no names of files")]
    Dots,
    /// Linux ends a path at a NUL.
    #[error("there is a NUL byte in it")]
    Nul,
    /// See [`NAME_BYTES_MAX`].
    #[error("a name in it is longer than {NAME_BYTES_MAX} bytes")]
    LongName,
    /// See [`PATH_BYTES_MAX`].
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

impl RelPath {
    /// Takes the bytes as they are, if they are such a path.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        if bytes.first() == Some(&b'/') {
            return Err(BadPath::Absolute);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(BadPath::TooLong);
        }
        bytes.split(|byte| *byte == b'/').try_for_each(check_name)?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The path of a name in this directory, or of a name in the root.
    ///
    /// # Errors
    /// When the name is none, or the path becomes too long.
    pub fn below(parent: Option<&RelPath>, name: &[u8]) -> Result<Self, BadPath> {
        check_name(name)?;
        let Some(parent) = parent else { return Ok(Self(name.into())) };
        if parent.0.len() + 1 + name.len() > PATH_BYTES_MAX {
            return Err(BadPath::TooLong);
        }
        Ok(Self([&parent.0, &b"/"[..], name].concat().into_boxed_slice()))
    }

    /// The whole path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its names, the outermost first.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The directory that it is in; `None` is the root.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// The last of its names.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

fn check_name(name: &[u8]) -> Result<(), BadPath> {
    match name {
        b"" => Err(BadPath::Empty),
        b"." | b".." => Err(BadPath::Dots),
        _ if name.contains(&0) => Err(BadPath::Nul),
        _ if name.len() > NAME_BYTES_MAX => Err(BadPath::LongName),
        _ => Ok(()),
    }
}

/// For people: control characters and what is no text are escaped.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&readable(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

/// Bytes of a name as one line of text.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// When something was last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Seconds since 1970, also before.
    pub secs: i64,
    /// Nanoseconds into that second, below 1,000,000,000.
    pub nanos: u32,
}

/// One thing in a tree. Its owner is the guest's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: RelPath,
    /// The permissions, with set-id and sticky bits: 07777.
    pub mode: u32,
    /// When its content was last changed.
    pub mtime: Mtime,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; what is in it comes later.
    Directory,
    /// A file, with as many bytes of content.
    File {
        /// How many.
        size: u64,
    },
    /// A symbolic link to whatever: it is data, and followed by nobody here.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry that is no directory. Mode and time are
    /// those of that entry.
    HardLink(RelPath),
}

/// The content of a file, exactly as many bytes as its entry says; empty for
/// what is no file. Whoever does not want it need not read it.
pub trait Content: Read {
    /// Makes sure that it is there to be read.
    ///
    /// # Errors
    /// When it is not, or not any more.
    fn begin(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    /// How many zeros follow, as far as that is known without reading them.
    ///
    /// # Errors
    /// When the host's system refuses.
    fn zeros(&mut self) -> std::io::Result<u64> {
        Ok(0)
    }

    /// Passes over some of the zeros that [`Content::zeros`] told of.
    fn skip_zeros(&mut self, count: u64);
}

/// The content of what has none.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}

impl Content for Nothing {
    fn skip_zeros(&mut self, _: u64) {}
}

/// Content that is in memory.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Content for Bytes<'_> {
    fn skip_zeros(&mut self, _: u64) {}
}
