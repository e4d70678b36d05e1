//! PAX records: what the next member's header had no room for.

use crate::seed::entry::Mtime;

/// What is wrong with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an extended header is damaged")]
pub struct BadRecords;

/// What records say, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub mtime: Option<Mtime>,
    pub sparse: Sparse,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Extended attributes, by their whole names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What they say of a file of GNU's sparse kinds 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sparse {
    /// Its name; that of the header is made up then.
    pub name: Option<Vec<u8>>,
    /// Its size with its holes.
    pub size: Option<u64>,
    /// Offsets and sizes in turn, of the kinds that have them here.
    pub map: Vec<u64>,
    /// Kind 1.0: they come before the content.
    pub map_in_content: bool,
}

impl Records {
    /// Reads all records of a header.
    ///
    /// # Errors
    /// When they are not of the form.
    pub fn new(mut bytes: &[u8]) -> Result<Self, BadRecords> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = first(bytes).ok_or(BadRecords)?;
            records.note(key, value).ok_or(BadRecords)?;
            bytes = rest;
        }
        Ok(records)
    }

    /// These, and those where these say nothing.
    #[must_use]
    pub fn or(self, defaults: &Records) -> Self {
        Self {
            path: self.path.or_else(|| defaults.path.clone()),
            link_path: self.link_path.or_else(|| defaults.link_path.clone()),
            mtime: self.mtime.or(defaults.mtime),
            ..self
        }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value takes a record of a global header back.
        if value.is_empty() {
            return Some(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link_path = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            // Nobody fails for an owner that cannot be.
            b"uid" => self.uid = number(value).and_then(|uid| uid.try_into().ok()),
            b"gid" => self.gid = number(value).and_then(|gid| gid.try_into().ok()),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(number(value)?),
            b"GNU.sparse.map" => {
                self.sparse.map =
                    value.split(|byte| *byte == b',').map(number).collect::<Option<_>>()?;
            }
            b"GNU.sparse.major" => self.sparse.map_in_content = value == b"1",
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// The first record: its length, a blank, key, `=`, value, newline.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..blank])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// A decimal number.
pub fn number(digits: &[u8]) -> Option<u64> {
    // The standard's own takes a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds, with as many digits behind the point as there may be.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |byte| *byte == b'.');
    let secs = i64::try_from(number(halves.next()?)?).ok()?;
    let digits = halves.next().unwrap_or_default();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nine = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = nine.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Mtime { secs, nanos },
        (true, 0) => Mtime { secs: -secs, nanos },
        // Nanoseconds count forwards from the second before.
        (true, _) => Mtime { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let records =
            Records::new(b"12 path=abc\n12 path=a\nb\n18 mtime=-1.25000\n").expect("three");
        assert_eq!(records.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(records.mtime, Some(Mtime { secs: -2, nanos: 750_000_000 }));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bytes in [
            &b"x"[..],
            b"99 path=a\n",
            b"0 path=a\n",
            b"2 path=a\n",
            b"+9 path=a\n",
            b"9 path=ab",
            b"8 path a\n",
            b"11 size=-1\n",
            b"18446744073709551616 path=a\n",
            b"13 mtime=1.x\n",
            b"\xff\xff\xff\xff",
        ] {
            assert_eq!(Records::new(bytes), Err(BadRecords), "{bytes:?}");
        }
    }
}
