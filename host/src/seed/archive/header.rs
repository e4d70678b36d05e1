//! One block of 512 bytes that begins a member of a tar archive.

/// The size of a tar archive's block.
pub const BLOCK: usize = 512;

/// A header whose checksum is right.
pub struct Header(Box<[u8; BLOCK]>);

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Most likely this is no archive, or not the beginning of a member.
    #[error("the checksum of a header is wrong")]
    Checksum,
    /// A number that is none, or is too large.
    #[error("the {0} in a header is no number")]
    Number(&'static str),
}

impl Header {
    /// Takes a block; `None` is one that is all zeros and says: here it ends.
    ///
    /// # Errors
    /// When it is no header.
    pub fn new(block: Box<[u8; BLOCK]>) -> Result<Option<Self>, BadHeader> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Self(block);
        let said = header.number(148, 8, "checksum").map_err(|_| BadHeader::Checksum)?;
        // The checksum's own bytes count as blanks. Some old programs added
        // bytes up as signed.
        let bytes = || {
            let all = header.0.iter().enumerate();
            all.map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if said == unsigned || said == signed { Ok(Some(header)) } else { Err(BadHeader::Checksum) }
    }

    /// What kind of member it is.
    #[must_use]
    pub fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = self.text(345, 155);
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    /// What it links to.
    #[must_use]
    pub fn link_name(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    /// The permissions.
    ///
    /// # Errors
    /// When the field is no number.
    pub fn mode(&self) -> Result<u32, BadHeader> {
        // Twelve bits of it count.
        self.number(100, 8, "mode").map(|mode| (mode & 0o7777) as u32)
    }

    /// The user and the group; root where the field is no such number.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        let id = |at| self.number(at, 8, "owner").ok().and_then(|id| id.try_into().ok());
        (id(108).unwrap_or(0), id(116).unwrap_or(0))
    }

    /// Seconds since 1970.
    ///
    /// # Errors
    /// When the field is no number.
    pub fn mtime(&self) -> Result<i64, BadHeader> {
        self.number(136, 12, "time")
    }

    /// How many bytes follow.
    ///
    /// # Errors
    /// When the field is no such number.
    pub fn size(&self) -> Result<u64, BadHeader> {
        self.count(124, 12, "size")
    }

    /// The size of a file of GNU's sparse kind with its holes.
    ///
    /// # Errors
    /// When the field is no such number.
    pub fn sparse_size(&self) -> Result<u64, BadHeader> {
        self.count(483, 12, "size")
    }

    /// The pieces of a file of GNU's sparse kind that are in this header, and
    /// whether more follow in a block of their own.
    ///
    /// # Errors
    /// When a field is no such number.
    pub fn sparse_pieces(&self) -> Result<(Vec<(u64, u64)>, bool), BadHeader> {
        Ok((self.pieces(386, 4)?, self.0[482] != 0))
    }

    /// The same of a block that follows it.
    ///
    /// # Errors
    /// When a field is no such number.
    pub fn more_sparse_pieces(
        block: Box<[u8; BLOCK]>,
    ) -> Result<(Vec<(u64, u64)>, bool), BadHeader> {
        let block = Self(block);
        Ok((block.pieces(0, 21)?, block.0[504] != 0))
    }

    fn pieces(&self, at: usize, count: usize) -> Result<Vec<(u64, u64)>, BadHeader> {
        (0..count)
            .map(|index| at + 24 * index)
            .filter(|at| self.0[*at] != 0)
            .map(|at| Ok((self.count(at, 12, "offset")?, self.count(at + 12, 12, "size")?)))
            .collect()
    }

    fn text(&self, at: usize, length: usize) -> &[u8] {
        let field = &self.0[at..at + length];
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn count(&self, at: usize, length: usize, what: &'static str) -> Result<u64, BadHeader> {
        u64::try_from(self.number(at, length, what)?).map_err(|_| BadHeader::Number(what))
    }

    /// Octal digits, or GNU's way for those that need more: the first bit set,
    /// then a number of two's complement. An empty field is 0.
    fn number(&self, at: usize, length: usize, what: &'static str) -> Result<i64, BadHeader> {
        let field = &self.0[at..at + length];
        let bad = BadHeader::Number(what);
        if field[0] & 0x80 != 0 {
            // The bit below the mark is the sign.
            let first = i128::from(((field[0] << 1).cast_signed()) >> 1);
            let rest = field[1..].iter();
            let value = rest.fold(first, |value, byte| value << 8 | i128::from(*byte));
            return i64::try_from(value).map_err(|_| bad);
        }
        let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
        digits.iter().try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
            _ => Err(bad),
        })
    }
}
