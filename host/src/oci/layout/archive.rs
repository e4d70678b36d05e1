//! An archive with an image in it, taken apart. Its members become files that are
//! named by numbers; what the archive calls them is only a key.

use super::{DOCKER, INDEX, MARK, Scratch};
use crate::error::{Error, ErrorKind, Result};
use crate::oci::layer::{Layer, UNPACKED_MAX};
use crate::seed::archive::tar::MemberKind;
use crate::seed::entry::Content;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// The most members of an archive with images in it. What has more is a root file
/// system.
const MEMBERS_MAX: usize = 20_000;

/// The longest name of a part, and of what a link of one leads to; those of images
/// have a digest and a few letters.
const NAME_MAX: usize = 1024;

/// The most that is copied at once.
const PIECE: usize = 256 << 10;

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
    scratch: Scratch<'_>,
    cancel: &CancellationToken,
) -> Result<Option<Extracted>> {
    let known = [MARK, INDEX, DOCKER].map(str::as_bytes);
    let mut beginnings: BTreeSet<&[u8]> = BTreeSet::new();
    let (mut count, mut needed) = (0, 0_u64);
    whole.each(UNPACKED_MAX, cancel, |_, member, _| {
        count += 1;
        if let MemberKind::File(size) = member.kind {
            needed = needed.saturating_add(size);
        }
        let name = plain(&member.name);
        beginnings.extend(known.iter().filter(|known| **known == name));
        Ok(())
    })?;
    let has = |name: &str| beginnings.contains(name.as_bytes());
    if count > MEMBERS_MAX || !(has(DOCKER) || (has(MARK) && has(INDEX))) {
        return Ok(None);
    }
    check_room(whole, needed, scratch)?;
    let mut parts = HashMap::new();
    let mut files = 0;
    whole.each(UNPACKED_MAX, cancel, |_, member, content| {
        let name = plain(&member.name);
        let part = match &member.kind {
            // Nobody asks for one.
            _ if name.len() > NAME_MAX => return Ok(()),
            MemberKind::File(_) => {
                let number = files;
                files += 1;
                let path = scratch.dir.join(number.to_string());
                let refused = |error| Error::io(format!("cannot write {}", path.display()), error);
                let mut file = File::options();
                let file = file.write(true).create_new(true).mode(0o600).open(&path);
                copy(content, &file.map_err(refused)?).map_err(refused)?;
                Part::File(number)
            }
            MemberKind::Symlink(target) | MemberKind::HardLink(target)
                if target.len() > NAME_MAX =>
            {
                return Ok(());
            }
            MemberKind::Symlink(target) => Part::Link(beside(&member.name, target)),
            MemberKind::HardLink(target) => Part::Link(plain(target)),
            MemberKind::Directory | MemberKind::Other(_) => return Ok(()),
        };
        parts.insert(name, part);
        Ok(())
    })?;
    Ok(Some(Extracted { dir: scratch.dir.to_owned(), parts }))
}

/// Before anything is written: a few bytes can say that a file is large and all
/// holes, or unpack to as much.
fn check_room(whole: &Layer, needed: u64, scratch: Scratch<'_>) -> Result<()> {
    let name = &whole.name;
    if needed > UNPACKED_MAX {
        let message = format!("{name} has more than {} GiB", UNPACKED_MAX >> 30);
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if needed > scratch.room {
        let (needed, room) = (needed.div_ceil(1 << 20), scratch.room >> 20);
        let message = format!("unpacking {name} needs {needed} MiB free, there are {room}");
        return Err(Error::new(ErrorKind::DiskFull, message)
            .hint("free some space; `pyro env prune` removes unused images"));
    }
    Ok(())
}

/// Copies content; holes stay holes.
fn copy(content: &mut impl Content, file: &File) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        let zeros = content.zeros()?;
        if zeros > 0 {
            content.skip_zeros(zeros);
            at += zeros;
            continue;
        }
        match content.read(&mut buffer)? {
            0 => return file.set_len(at),
            count => {
                file.write_all_at(&buffer[..count], at)?;
                at += count as u64;
            }
        }
    }
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
