//! Hearing who opens or reads a file.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Files that are watched.
pub struct Watch(OwnedFd);

impl Watch {
    /// Hears of it when one of the files is opened.
    pub fn for_opening<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::over(files, WatchFlags::OPEN)
    }

    /// Hears of it when one of the files is read.
    pub fn for_reading<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::over(files, WatchFlags::ACCESS)
    }

    fn over<'a>(files: impl IntoIterator<Item = &'a Path>, what: WatchFlags) -> Self {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for file in files {
            inotify::add_watch(&watch, file, what).unwrap();
        }
        Self(watch)
    }

    /// Whether it has happened since the last time that this was asked.
    pub fn heard(&self) -> bool {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut room);
        let mut heard = false;
        loop {
            match events.next() {
                Ok(event) => heard |= !event.events().contains(ReadFlags::IGNORED),
                Err(Errno::AGAIN) => return heard,
                Err(errno) => panic!("{errno}"),
            }
        }
    }
}
