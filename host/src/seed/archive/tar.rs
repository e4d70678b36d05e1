//! Reads the members of a tar archive: v7, ustar, GNU and PAX, with long names
//! and files with holes.
//!
//! It keeps no more than one header's worth in memory, whatever an archive
//! says: see [`EXTENSION_BYTES_MAX`] and [`PIECES_MAX`].

use super::extension::{BadRecords, Records, number};
use super::header::{BLOCK, BadHeader, Header};
use crate::seed::entry::{Content, Mtime};
use std::io::{self, Read};

/// The largest extended header or long name.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// How many pieces of data a file with holes may have.
pub const PIECES_MAX: usize = 1 << 16;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// See [`BadHeader`].
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// See [`BadRecords`].
    #[error(transparent)]
    Records(#[from] BadRecords),
    /// See [`EXTENSION_BYTES_MAX`].
    #[error("an extended header has more than 1 MiB")]
    LargeExtension,
    /// The pieces of a file with holes do not add up, or are too many.
    #[error("the map of the sparse file `{0}` is damaged or too large")]
    Sparse(String),
    /// The beginning is in another archive.
    #[error("it goes on in another archive: archives of several volumes are not taken")]
    Volumes,
    /// It ends before it says that it does.
    #[error("it is cut short")]
    Truncated,
    /// The host's system refuses, or the compression is damaged.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A member.
#[derive(Debug)]
pub struct Member {
    /// As the archive has it.
    pub name: Vec<u8>,
    pub mode: u32,
    pub mtime: Mtime,
    /// The user and the group.
    pub owner: (u32, u32),
    /// Extended attributes, by their whole names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub kind: MemberKind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    Directory,
    /// A file, its size with its holes.
    File(u64),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// Something else: what.
    Other(&'static str),
}

/// An archive that is being read.
pub struct Reader<R> {
    input: R,
    globals: Records,
    /// Of the member that was given last: data that was not read yet, and the
    /// zeros that fill its last block up.
    stored: u64,
    padding: u64,
    /// Where its data belongs; empty for a file without holes.
    pieces: Pieces,
    /// What there is to give of it.
    size: u64,
    at: u64,
    /// How many members were given.
    pub members: u64,
    /// Why content could not be read.
    pub failed: Option<TarError>,
}

/// Pieces of data: offset and size, in order.
type Pieces = std::collections::VecDeque<(u64, u64)>;

impl<R: Read> Reader<R> {
    /// Begins at an archive's beginning.
    pub fn new(input: R) -> Self {
        let globals = Records::default();
        let pieces = Pieces::new();
        let (stored, padding, size, at, members, failed) = (0, 0, 0, 0, 0, None);
        Self { input, globals, stored, padding, pieces, size, at, members, failed }
    }

    /// What it reads from.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// The next member; its content is this reader's until the one after.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.pass()?;
            let Some(header) = Header::new(self.block()?)? else { return Ok(None) };
            match header.type_flag() {
                b'x' | b'X' => records = Records::new(&self.extension(&header)?)?,
                b'g' => {
                    let more = Records::new(&self.extension(&header)?)?;
                    self.globals = more.or(&self.globals);
                }
                b'L' => long_name = Some(until_nul(self.extension(&header)?)),
                b'K' => long_link = Some(until_nul(self.extension(&header)?)),
                // A name for the whole archive.
                b'V' => self.set_stored(header.size()?),
                b'M' => return Err(TarError::Volumes),
                flag => {
                    let records = records.or(&self.globals);
                    let member = self.member(&header, flag, records, long_name, long_link)?;
                    self.members += 1;
                    return Ok(Some(member));
                }
            }
        }
    }

    /// Reads what is behind the last member: what it was compressed with knows
    /// only at its end whether all of it was right.
    ///
    /// # Errors
    /// When it was not.
    pub fn finish(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.input, &mut io::sink()).map(drop).map_err(cut_short)
    }

    fn member(
        &mut self,
        header: &Header,
        flag: u8,
        records: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, TarError> {
        let Records { path, link_path, size, mtime, sparse, uid, gid, xattrs } = records;
        let name = sparse.name.clone().or(path).or(long_name).unwrap_or_else(|| header.name());
        let link = || link_path.or(long_link).unwrap_or_else(|| header.link_name());
        let mtime = match mtime {
            Some(mtime) => mtime,
            None => Mtime { secs: header.mtime()?, nanos: 0 },
        };
        let stored = match size {
            Some(size) => size,
            None => header.size()?,
        };
        let bad_map = || TarError::Sparse(crate::seed::entry::readable(&name));
        // Links and the like have no data, whatever their size says.
        let kind = match flag {
            b'0' | 0 | b'7' | b'S' => {
                self.set_stored(stored);
                self.size = stored;
                if flag == b'S' {
                    self.size = header.sparse_size()?;
                    self.pieces = self.gnu_pieces(header, bad_map)?;
                } else if let Some(size) = sparse.size {
                    self.size = size;
                    let map = if sparse.map_in_content {
                        self.map_in_content(bad_map)?
                    } else {
                        sparse.map
                    };
                    let (pairs, []) = map.as_chunks() else { return Err(bad_map()) };
                    self.pieces = pairs.iter().map(|[offset, size]| (*offset, *size)).collect();
                }
                self.check_pieces().ok_or_else(bad_map)?;
                if name.ends_with(b"/") && flag != b'S' {
                    MemberKind::Directory
                } else {
                    MemberKind::File(self.size)
                }
            }
            b'1' => MemberKind::HardLink(link()),
            b'2' => MemberKind::Symlink(link()),
            b'3' | b'4' => MemberKind::Other("it is a device"),
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Other("it is a FIFO"),
            b'D' => {
                // The names in it come first: for incremental backups.
                self.set_stored(stored);
                MemberKind::Directory
            }
            _ => {
                self.set_stored(stored);
                MemberKind::Other("nobody knows what it is")
            }
        };
        let (header_uid, header_gid) = header.owner();
        let owner = (uid.unwrap_or(header_uid), gid.unwrap_or(header_gid));
        Ok(Member { name, mode: header.mode()?, mtime, owner, xattrs, kind })
    }

    fn set_stored(&mut self, stored: u64) {
        self.stored = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
    }

    /// Passes over what is left of the last member.
    fn pass(&mut self) -> Result<(), TarError> {
        for left in [self.stored, self.padding] {
            let passed = io::copy(&mut (&mut self.input).take(left), &mut io::sink());
            if passed.map_err(cut_short)? < left {
                return Err(TarError::Truncated);
            }
        }
        (self.stored, self.padding, self.size, self.at) = (0, 0, 0, 0);
        self.pieces.clear();
        Ok(())
    }

    fn block(&mut self) -> Result<Box<[u8; BLOCK]>, TarError> {
        let mut block = Box::new([0; BLOCK]);
        self.input.read_exact(&mut block[..]).map_err(cut_short)?;
        Ok(block)
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > EXTENSION_BYTES_MAX {
            return Err(TarError::LargeExtension);
        }
        self.set_stored(size);
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(size).read_to_end(&mut bytes).map_err(cut_short)?;
        self.stored -= read as u64;
        if self.stored > 0 { Err(TarError::Truncated) } else { Ok(bytes) }
    }

    fn gnu_pieces(
        &mut self,
        header: &Header,
        bad_map: impl Fn() -> TarError,
    ) -> Result<Pieces, TarError> {
        let (pieces, mut more) = header.sparse_pieces()?;
        let mut pieces = Pieces::from(pieces);
        while more {
            let next = Header::more_sparse_pieces(self.block()?)?;
            more = next.1;
            pieces.extend(next.0);
            if pieces.len() > PIECES_MAX {
                return Err(bad_map());
            }
        }
        Ok(pieces)
    }

    /// The map of kind 1.0: how many pieces, then offsets and sizes, a decimal
    /// number each on a line, filled up to whole blocks.
    fn map_in_content(&mut self, bad_map: impl Fn() -> TarError) -> Result<Vec<u64>, TarError> {
        let mut numbers = Vec::new();
        let mut digits = Vec::new();
        let mut wanted = 1;
        while numbers.len() < wanted {
            self.stored = self.stored.checked_sub(BLOCK as u64).ok_or_else(&bad_map)?;
            for byte in *self.block()? {
                if numbers.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let value = number(&digits).ok_or_else(&bad_map)?;
                digits.clear();
                if numbers.is_empty() {
                    let pieces = usize::try_from(value).ok().filter(|count| *count <= PIECES_MAX);
                    wanted = 1 + 2 * pieces.ok_or_else(&bad_map)?;
                }
                numbers.push(value);
            }
            if digits.len() > 20 {
                return Err(bad_map());
            }
        }
        numbers.remove(0);
        Ok(numbers)
    }

    /// Whether the pieces are in order, within the file, and all that is stored.
    fn check_pieces(&mut self) -> Option<()> {
        if self.size == self.stored && self.pieces.is_empty() {
            return Some(());
        }
        let (mut end, mut stored) = (0, 0_u64);
        for (offset, size) in &self.pieces {
            if *offset < end {
                return None;
            }
            end = offset.checked_add(*size)?;
            stored = stored.checked_add(*size)?;
        }
        // GNU marks the end with an empty piece.
        self.pieces.retain(|(_, size)| *size > 0);
        if self.pieces.is_empty() {
            // All hole: so that what follows is none of it.
            self.pieces.push_back((self.size, 0));
        }
        (end <= self.size && stored == self.stored).then_some(())
    }
}

impl<R: Read> Reader<R> {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let zeros = self.zeros()?;
        let within = |bytes: u64| {
            usize::try_from(bytes).map_or(buffer.len(), |bytes| bytes.min(buffer.len()))
        };
        if zeros > 0 {
            let count = within(zeros);
            buffer[..count].fill(0);
            self.at += count as u64;
            return Ok(count);
        }
        let piece = self.pieces.front().map_or(self.size, |(offset, size)| offset + size);
        let wanted = within(piece - self.at);
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.stored -= count as u64;
        if self.pieces.front().is_some_and(|(offset, size)| self.at >= offset + size) {
            self.pieces.pop_front();
            if self.pieces.is_empty() {
                self.pieces.push_back((self.size, 0));
            }
        }
        Ok(count)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(cut_short(error));
            }
            kind.into()
        })
    }
}

impl<R: Read> Content for Reader<R> {
    fn zeros(&mut self) -> io::Result<u64> {
        Ok(self.pieces.front().map_or(0, |(offset, _)| offset.saturating_sub(self.at)))
    }

    fn skip_zeros(&mut self, count: u64) {
        self.at += count;
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn cut_short(error: io::Error) -> TarError {
    if error.kind() == io::ErrorKind::UnexpectedEof { TarError::Truncated } else { error.into() }
}
