//! Records in a file without a name.

use super::system;
use crate::work::Stop;
use pyro_protocol::codec;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;

/// Records one after the other, to be read in the order they were written.
#[derive(Debug)]
pub(super) struct Log<T> {
    file: BufWriter<File>,
    record: PhantomData<fn() -> T>,
}

/// A log that is complete.
#[derive(Debug)]
pub(super) struct Records<T> {
    file: File,
    record: PhantomData<fn() -> T>,
}

/// A log that is being read.
pub(super) struct Reading<'a, T> {
    file: BufReader<At<'a>>,
    record: PhantomData<fn() -> T>,
}

/// A file read from a place of its own, however many others read it.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

impl<T: Serialize> Log<T> {
    pub(super) fn new(file: File) -> Self {
        Self { file: BufWriter::new(file), record: PhantomData }
    }

    pub(super) fn push(&mut self, record: &T) -> Result<(), Stop> {
        let bytes = codec::encode(record).unwrap_or_default();
        let length = u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes();
        let pushed = self.file.write_all(&length).and_then(|()| self.file.write_all(&bytes));
        pushed.map_err(|error| system("spooling", &error))
    }

    pub(super) fn finish(self) -> Result<Records<T>, Stop> {
        let file = self.file.into_inner().map_err(|error| system("spooling", error.error()))?;
        Ok(Records { file, record: PhantomData })
    }
}

impl<T: DeserializeOwned> Records<T> {
    pub(super) fn read(&self) -> Reading<'_, T> {
        let at = At { file: &self.file, offset: 0 };
        Reading { file: BufReader::new(at), record: PhantomData }
    }
}

impl<T: DeserializeOwned> Reading<'_, T> {
    /// The next record; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<T>, Stop> {
        let mut length = [0; 4];
        match self.file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(system("reading what was spooled", &error)),
        }
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        let read = self.file.read_exact(&mut bytes);
        let record = read.and_then(|()| codec::decode(&bytes).map_err(io::Error::other));
        record.map(Some).map_err(|error| system("reading what was spooled", &error))
    }
}

/// Numbers by their index; 0 where none was set.
#[derive(Debug)]
pub(super) struct Numbers {
    file: File,
}

impl Numbers {
    pub(super) fn new(file: File) -> Self {
        Self { file }
    }

    pub(super) fn set(&self, index: u64, number: u64) -> Result<(), Stop> {
        let set = self.file.write_all_at(&number.to_le_bytes(), index.saturating_mul(8));
        set.map_err(|error| system("spooling", &error))
    }

    pub(super) fn get(&self, index: u64) -> Result<u64, Stop> {
        let mut bytes = [0; 8];
        match self.file.read_exact_at(&mut bytes, index.saturating_mul(8)) {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(system("reading what was spooled", &error)),
        }
    }
}

/// Bytes that are sent on once they are complete.
#[derive(Debug)]
pub(super) struct Bytes {
    file: BufWriter<File>,
}

impl Bytes {
    pub(super) fn new(file: File) -> Self {
        Self { file: BufWriter::new(file) }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.file.write_all(bytes).map_err(|error| system("spooling", &error))
    }

    /// From their beginning.
    pub(super) fn finish(self) -> Result<File, Stop> {
        let finished = self.file.into_inner().map_err(io::IntoInnerError::into_error);
        let rewound = finished.and_then(|mut file| file.rewind().map(|()| file));
        rewound.map_err(|error| system("spooling", &error))
    }
}
