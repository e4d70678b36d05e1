//! A layer: a tar archive, plain or compressed, read member by member.

use super::merge::{Applied, Merged, Misfit};
use crate::digest::Sha256;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::archive::compression::{self, Compression, MAGIC_BYTES};
use crate::seed::archive::header::BadHeader;
use crate::seed::archive::limited::Limited;
use crate::seed::archive::tar::{Member, Reader, TarError};
use crate::seed::entry::readable;
use crate::seed::walk::{FILE_BYTES_MAX, Warnings};
use sha2::Digest as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use tokio_util::sync::CancellationToken;

/// How much all layers of an image may unpack to. More does not go onto a guest's
/// device, and what never ends has to end somewhere.
pub const UNPACKED_MAX: u64 = 64 << 30;

/// What a layer is read through.
const READ_BUFFER: usize = 256 << 10;

/// A layer, open to be read as often as need be.
#[derive(Debug)]
pub struct Layer {
    /// What messages call it.
    pub name: String,
    /// It, or an archive with it.
    pub file: File,
    /// What it unpacks to, where that was told.
    pub diff_id: Option<Sha256>,
}

/// A layer that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// What it unpacks to.
    pub diff_id: Sha256,
    /// How many bytes that are.
    pub bytes: u64,
}

/// The content of the member that was shown last.
pub type Members<'a> = Reader<Limited<'a, Hashing<Box<dyn Read + 'a>>>>;

impl Layer {
    /// Shows every member with its number; its content is there to be read then.
    /// The layer is read to its end and hashed on the way.
    ///
    /// # Errors
    /// When it cannot be read, is no archive, is damaged, unpacks to more than
    /// `bytes_max` or to something else than was told; and what `show` says.
    pub fn each(
        &self,
        bytes_max: u64,
        cancel: &CancellationToken,
        mut show: impl FnMut(u64, &Member, &mut Members<'_>) -> Result<()>,
    ) -> Result<Passed> {
        let failed = |error| Error::io(format!("cannot read {}", self.name), error);
        let mut file = &self.file;
        file.rewind().map_err(failed)?;
        let mut input = BufReader::with_capacity(READ_BUFFER, file);
        let first = input.fill_buf().map_err(failed)?;
        let input: Box<dyn Read> = match Compression::of(&first[..first.len().min(MAGIC_BYTES)]) {
            Compression::None => Box::new(input),
            Compression::Gzip => compression::gzip(input),
            Compression::Zstd => compression::zstd(input),
            Compression::Other(name) => return Err(self.refused(&format!("{name} is not taken"))),
        };
        let input = Hashing { input, hasher: sha2::Sha256::new(), bytes: 0 };
        let mut members = Reader::new(Limited { input, left: bytes_max, cancel });
        let passed = self.pass(&mut members, &mut show);
        if cancel.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the image was not finished"));
        }
        passed?;
        let hashed = &members.input().input;
        let passed = Passed { diff_id: hashed.hasher.clone().into(), bytes: hashed.bytes };
        match self.diff_id {
            Some(told) if told != passed.diff_id => Err(Error::new(
                ErrorKind::Untrusted,
                format!("{} unpacks to {} and should to {told}", self.name, passed.diff_id),
            )
            .hint("whoever made the image is to make it again")),
            Some(_) | None => Ok(passed),
        }
    }

    fn pass(
        &self,
        members: &mut Members<'_>,
        show: &mut impl FnMut(u64, &Member, &mut Members<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut ordinal = 0;
        while let Some(member) = members.next().map_err(|error| self.broken(error, members))? {
            if let Err(error) = show(ordinal, &member, members) {
                return Err(match members.failed.take() {
                    Some(failed) => self.broken(failed, members),
                    None => error,
                });
            }
            ordinal += 1;
        }
        members.finish().map_err(|error| self.broken(error, members))
    }

    /// Lays the layer over others.
    ///
    /// # Errors
    /// As [`Layer::each`], and when a member cannot be in a tree.
    pub fn merge_into(
        &self,
        merged: &mut Merged,
        bytes_max: u64,
        warnings: &mut Warnings,
        cancel: &CancellationToken,
    ) -> Result<Passed> {
        merged.begin_layer();
        self.each(bytes_max, cancel, |ordinal, member, _| {
            let too_large = matches!(&member.kind, crate::seed::archive::tar::MemberKind::File(size) if *size > FILE_BYTES_MAX);
            if too_large {
                return Err(self.refused(&format!("`{}` is larger than 16 TiB", readable(&member.name))));
            }
            match merged.apply(member, ordinal) {
                Ok(Applied::Taken) => Ok(()),
                // Every guest's kernel makes its own of these.
                Ok(Applied::Skipped(_)) if is_in_dev(&member.name) => Ok(()),
                Ok(Applied::Skipped(what)) => {
                    warnings.push(|| format!("skipped `{}`: {what}", readable(&member.name)));
                    Ok(())
                }
                Err(misfit) => Err(self.misfit(member, misfit)),
            }
        })
    }

    fn misfit(&self, member: &Member, misfit: Misfit) -> Error {
        let name = readable(&member.name);
        self.refused(&format!("its member `{name}` cannot be in an image")).because(misfit)
    }

    fn broken(&self, error: TarError, members: &Members<'_>) -> Error {
        match error {
            TarError::Header(BadHeader::Checksum) | TarError::Truncated if members.members == 0 => {
                self.refused("it is no tar archive, or one cut short")
            }
            TarError::Io(_) if members.input().left == 0 => {
                let gib = UNPACKED_MAX >> 30;
                self.refused(&format!("the image unpacks to more than {gib} GiB"))
            }
            TarError::Io(error) if error.raw_os_error().is_some() => {
                Error::io(format!("cannot read {}", self.name), error)
            }
            TarError::Io(error) => self.refused("it is damaged").because(error),
            error @ (TarError::Header(_)
            | TarError::Records(_)
            | TarError::LargeExtension
            | TarError::Sparse(_)
            | TarError::Volumes
            | TarError::Truncated) => self.refused("it is damaged").because(error),
        }
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(ErrorKind::Untrusted, format!("cannot use {}: {why}", self.name))
    }
}

fn is_in_dev(name: &[u8]) -> bool {
    let mut names = name.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.next() == Some(b"dev")
}

/// Hashes what passes.
pub struct Hashing<R> {
    input: R,
    hasher: sha2::Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
