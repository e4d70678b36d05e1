//! Contents as they are, in git's binary patches: each side whole, so that the
//! patch can be taken back.

use super::compare::fill;
use super::content::Content;
use crate::git::base85::{LINE_BYTES, write_line};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::{self, Seek, Write};

/// What is compressed at a time.
const CHUNK: usize = 64 * 1024;

/// Writes both sides; `None` is an empty one.
pub(super) fn write(
    old: Option<&mut Content>,
    new: Option<&mut Content>,
    to: &mut impl Write,
) -> io::Result<()> {
    to.write_all(b"GIT binary patch\n")?;
    literal(new, to)?;
    literal(old, to)
}

fn literal(content: Option<&mut Content>, to: &mut impl Write) -> io::Result<()> {
    match content {
        None | Some(Content::Unread) => {
            writeln!(to, "literal 0")?;
            let encoder = ZlibEncoder::new(Lines::new(&mut *to), Compression::default());
            encoder.finish()?.finish()?;
        }
        Some(Content::Held(bytes, _)) => {
            writeln!(to, "literal {}", bytes.len())?;
            let mut encoder = ZlibEncoder::new(Lines::new(&mut *to), Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()?.finish()?;
        }
        Some(Content::Large(file, size, _)) => {
            writeln!(to, "literal {size}")?;
            let mut encoder = ZlibEncoder::new(Lines::new(&mut *to), Compression::default());
            file.rewind()?;
            let mut chunk = vec![0; CHUNK];
            loop {
                match fill(file, &mut chunk)? {
                    0 => break,
                    filled => encoder.write_all(&chunk[..filled])?,
                }
            }
            encoder.finish()?.finish()?;
        }
    }
    to.write_all(b"\n")
}

/// Makes lines of base 85 of the bytes that it is given.
struct Lines<'a, W> {
    to: &'a mut W,
    pending: Vec<u8>,
}

impl<'a, W: Write> Lines<'a, W> {
    fn new(to: &'a mut W) -> Self {
        Self { to, pending: Vec::new() }
    }

    fn finish(self) -> io::Result<()> {
        let mut line = Vec::new();
        if !self.pending.is_empty() {
            write_line(&self.pending, &mut line);
        }
        self.to.write_all(&line)
    }
}

impl<W: Write> Write for Lines<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() / LINE_BYTES * LINE_BYTES;
        let mut lines = Vec::with_capacity(whole * 4 / 3);
        for line in self.pending[..whole].chunks(LINE_BYTES) {
            write_line(line, &mut lines);
        }
        self.pending.drain(..whole);
        self.to.write_all(&lines)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
