//! A walk through a source: who looks, what ends it early, what was odd.

use super::entry::{Content, Entry, Kind, Mtime, RelPath, TARGET_BYTES_MAX};
use crate::error::{Error, ErrorKind, Result};
use std::io::{self, Read};
use tokio_util::sync::CancellationToken;

/// How many entries a tree may have. Each costs about 200 bytes of the host's
/// memory while the tree is being walked, so this many cost some 200 MB, and
/// their names besides: see [`NAME_BYTES_MAX`].
pub const ENTRIES_MAX: u64 = 1_000_000;

/// How many bytes the paths and targets of a tree may have in all. They are in
/// memory two or three times while it is being walked: many long names need
/// more than many entries do.
pub const NAME_BYTES_MAX: u64 = 256 << 20;

/// The largest file: ext4, on which the guest's changes are, takes no larger.
pub const FILE_BYTES_MAX: u64 = 16 << 40;

/// How many warnings are kept word for word; of the rest only the number.
pub const WARNINGS_MAX: usize = 20;

/// Who is shown what a source holds.
///
/// Parents come before what is in them and a hard link after its target. A path
/// that comes again replaces what it was before.
pub trait Visitor {
    /// The directory that everything else is in. It may come again.
    ///
    /// # Errors
    /// End the walk.
    fn root(&mut self, mode: u32, mtime: Mtime) -> Result<()>;

    /// One entry, and its content to read now or never.
    ///
    /// # Errors
    /// End the walk.
    fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()>;
}

/// What was odd, in bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    said: Vec<String>,
    more: usize,
}

impl Warnings {
    /// Notes one more.
    pub fn push(&mut self, warning: impl FnOnce() -> String) {
        if self.said.len() < WARNINGS_MAX {
            self.said.push(warning());
        } else {
            self.more += 1;
        }
    }

    /// A line each, and one for those that are only counted.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.said.clone();
        if self.more > 0 {
            lines.push(format!("{} more of this kind", self.more));
        }
        lines
    }
}

/// One walk.
pub struct Walk<'a> {
    visitor: &'a mut dyn Visitor,
    cancel: &'a CancellationToken,
    entry_count: u64,
    name_bytes: u64,
    warnings: Warnings,
}

impl<'a> Walk<'a> {
    /// A walk on which nothing was seen yet.
    pub fn new(visitor: &'a mut dyn Visitor, cancel: &'a CancellationToken) -> Self {
        Self { visitor, cancel, entry_count: 0, name_bytes: 0, warnings: Warnings::default() }
    }

    /// What was seen, once the walk is over.
    #[must_use]
    pub fn finish(self) -> (u64, Warnings) {
        (self.entry_count, self.warnings)
    }

    /// What was odd.
    pub fn warnings(&mut self) -> &mut Warnings {
        &mut self.warnings
    }

    /// How the caller says that they have changed their mind.
    #[must_use]
    pub fn cancel(&self) -> &'a CancellationToken {
        self.cancel
    }

    /// # Errors
    /// `Cancelled` once the caller has changed their mind.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the seed was not finished"));
        }
        Ok(())
    }

    /// Shows the root.
    pub fn root(&mut self, mode: u32, mtime: Mtime) -> Result<()> {
        self.visitor.root(mode, mtime)
    }

    /// Shows one entry.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        self.check_cancelled()?;
        self.entry_count += 1;
        if self.entry_count > ENTRIES_MAX {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the seed has more than {ENTRIES_MAX} entries"),
            )
            .hint("leave out what the guest does not need, such as caches"));
        }
        let target = match &entry.kind {
            Kind::Symlink(target) => target.len(),
            Kind::HardLink(target) => target.as_bytes().len(),
            Kind::Directory | Kind::File { .. } => 0,
        };
        self.name_bytes += (entry.path.as_bytes().len() + target) as u64;
        if self.name_bytes > NAME_BYTES_MAX {
            let mib = NAME_BYTES_MAX >> 20;
            let message = format!("the seed's names and links have more than {mib} MiB in all");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint("leave out what the guest does not need, such as caches"));
        }
        match &entry.kind {
            Kind::File { size } if *size > FILE_BYTES_MAX => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("`{}` is larger than 16 TiB", entry.path),
            )),
            Kind::Symlink(target) if target.is_empty() || target.len() > TARGET_BYTES_MAX => {
                Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "the target of the symbolic link `{}` has {} bytes; Linux takes 1 to {TARGET_BYTES_MAX}",
                        entry.path,
                        target.len()
                    ),
                ))
            }
            Kind::Symlink(target) if target.contains(&0) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the target of the symbolic link `{}` has a NUL byte in it", entry.path),
            )),
            Kind::Directory | Kind::File { .. } | Kind::Symlink(_) | Kind::HardLink(_) => {
                let mut content = Watched { content, cancel: self.cancel };
                let shown = self.visitor.entry(entry, &mut content);
                // A large file ended early for no other reason.
                self.check_cancelled().and(shown)
            }
        }
    }

    /// Notes that what was shown last is gone before it could be read.
    pub fn vanished(&mut self, path: &RelPath) {
        self.entry_count -= 1;
        self.warnings.push(|| format!("`{path}` vanished"));
    }

    /// Notes that something is left out, and why.
    pub fn skip(&mut self, path: &RelPath, what: &str) {
        self.warnings.push(|| format!("skipped `{path}`: {what}"));
    }
}

/// Content that ends in an error once the caller has changed their mind.
struct Watched<'a> {
    content: &'a mut dyn Content,
    cancel: &'a CancellationToken,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.content.read(buffer)
    }
}

impl Content for Watched<'_> {
    fn begin(&mut self) -> io::Result<()> {
        self.content.begin()
    }

    fn zeros(&mut self) -> io::Result<u64> {
        self.content.zeros()
    }

    fn skip_zeros(&mut self, count: u64) {
        self.content.skip_zeros(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::entry::Nothing;

    struct Nobody;

    impl Visitor for Nobody {
        fn root(&mut self, _: u32, _: Mtime) -> Result<()> {
            Ok(())
        }

        fn entry(&mut self, _: &Entry, _: &mut dyn Content) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn s4_long_names_and_targets_are_bounded_in_all() {
        let path = RelPath::new(["n".repeat(200).as_str(); 20].join("/")).expect("a path");
        let symlink = Kind::Symlink(vec![b'x'; TARGET_BYTES_MAX]);
        for kind in [Kind::Directory, symlink, Kind::HardLink(path.clone())] {
            let each = match kind {
                Kind::Directory | Kind::File { .. } => 4019,
                Kind::Symlink(_) => 4019 + TARGET_BYTES_MAX as u64,
                Kind::HardLink(_) => 2 * 4019,
            };
            let entry = Entry { path: path.clone(), mode: 0, mtime: Mtime::default(), kind };
            let (mut nobody, cancel) = (Nobody, CancellationToken::new());
            let mut walk = Walk::new(&mut nobody, &cancel);
            let shown = (0..ENTRIES_MAX).take_while(|_| walk.entry(&entry, &mut Nothing).is_ok());
            assert_eq!(shown.count() as u64, NAME_BYTES_MAX / each);
        }
    }
}
