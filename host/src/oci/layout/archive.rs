//! An archive with an image in it, taken apart. Its members become files that are
//! named by numbers; what the archive calls them is only a key.

use super::{DOCKER, INDEX, MARK};
use crate::error::{Error, ErrorKind, Result};
use crate::oci::layer::{Layer, UNPACKED_MAX};
use crate::seed::archive::tar::MemberKind;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// The most members of an archive with images in it. What has more is a root file
/// system.
const MEMBERS_MAX: usize = 20_000;

/// The members of an archive.
#[derive(Debug)]
pub struct Extracted {
    dir: PathBuf,
    parts: HashMap<Vec<u8>, Part>,
}

#[derive(Debug)]
enum Part {
    /// The number that its file has.
    File(usize),
    /// Another name of something: which. Docker saved layers so that several
    /// images have.
    Link(Vec<u8>),
}

/// Takes an archive apart if there are images in it.
///
/// # Errors
/// When it cannot be read or is damaged, and when there is no room.
pub fn extract(
    whole: &Layer,
    scratch: &Path,
    cancel: &CancellationToken,
) -> Result<Option<Extracted>> {
    let mut beginnings = Vec::new();
    let mut count = 0;
    whole.each(UNPACKED_MAX, cancel, |_, member, _| {
        count += 1;
        let name = plain(&member.name);
        if [MARK, INDEX, DOCKER].iter().any(|known| known.as_bytes() == name) {
            beginnings.push(name);
        }
        Ok(())
    })?;
    let has = |name: &str| beginnings.iter().any(|known| known == name.as_bytes());
    if count > MEMBERS_MAX || !(has(DOCKER) || (has(MARK) && has(INDEX))) {
        return Ok(None);
    }
    let mut parts = HashMap::new();
    let mut files = 0;
    let mut room = UNPACKED_MAX;
    whole.each(UNPACKED_MAX, cancel, |_, member, content| {
        let name = plain(&member.name);
        let part = match &member.kind {
            MemberKind::File(size) => {
                // A few bytes can say that a file is large and all holes.
                room = room.checked_sub(*size).ok_or_else(|| {
                    let message =
                        format!("{} has more than {} GiB", whole.name, UNPACKED_MAX >> 30);
                    Error::new(ErrorKind::InvalidInput, message)
                })?;
                let number = files;
                files += 1;
                let path = scratch.join(number.to_string());
                let refused = |error| Error::io(format!("cannot write {}", path.display()), error);
                let mut file = File::options();
                let file = file.write(true).create_new(true).mode(0o600).open(&path);
                io::copy(content, &mut file.map_err(refused)?).map_err(refused)?;
                Part::File(number)
            }
            MemberKind::Symlink(target) => Part::Link(beside(&member.name, target)),
            MemberKind::HardLink(target) => Part::Link(plain(target)),
            MemberKind::Directory | MemberKind::Other(_) => return Ok(()),
        };
        parts.insert(name, part);
        Ok(())
    })?;
    Ok(Some(Extracted { dir: scratch.to_owned(), parts }))
}

impl Extracted {
    /// Whether there is a member of this name.
    pub fn has(&self, name: &str) -> bool {
        self.parts.contains_key(name.as_bytes())
    }

    /// Opens a member; `None` when there is none of the name.
    pub fn open(&self, name: &str) -> Result<Option<File>> {
        let part = match self.parts.get(&plain(name.as_bytes())) {
            Some(Part::Link(target)) => self.parts.get(target),
            part => part,
        };
        let Some(Part::File(number)) = part else { return Ok(None) };
        let path = self.dir.join(number.to_string());
        let opened = File::open(&path);
        opened
            .map(Some)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
    }
}

/// A name without what means nothing in it.
fn plain(name: &[u8]) -> Vec<u8> {
    let names = name.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.collect::<Vec<_>>().join(&b'/')
}

/// What a link means, by its letters alone.
fn beside(link: &[u8], target: &[u8]) -> Vec<u8> {
    let link = plain(link);
    let mut names: Vec<&[u8]> = link.split(|byte| *byte == b'/').collect();
    names.pop();
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_by_their_letters() {
        assert_eq!(beside(b"./b/layer.tar", b"../a/layer.tar"), b"a/layer.tar");
        assert_eq!(beside(b"x", b"../../../etc/passwd"), b"etc/passwd");
        assert_eq!(plain(b".//a/./b/"), b"a/b");
    }
}
