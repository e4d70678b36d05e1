//! Sockets in a directory that a VMM shares: it can put there what it likes, and
//! it may be taken over.

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

/// A socket that was found there.
#[derive(Debug)]
pub struct SharedSocket(OwnedFd);

impl SharedSocket {
    /// Finds one by its name. A link is not followed: it could lead to any
    /// socket of the host's that only pyro may connect to.
    ///
    /// # Errors
    /// `NotFound` when there is none, yet; `InvalidInput` when what has that
    /// name is none.
    pub fn find(directory: impl AsFd, name: &str) -> io::Result<Self> {
        if name.contains('/') || [".", ".."].contains(&name) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(directory, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Socket {
            let message = format!("what the VMM calls {name} is no socket");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self(found))
    }

    /// A path to connect to, good as long as this lives and short enough for an
    /// address whatever the directory's.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn s8_a_link_to_another_socket_is_none() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = File::open(place.path()).expect("it opens");
        let kind = |name: &str| SharedSocket::find(&directory, name).expect_err("none").kind();
        assert_eq!(kind("api.sock"), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(place.path().join("api.sock")).expect("bound");
        let found = SharedSocket::find(&directory, "api.sock").expect("it is there");
        let _stream = UnixStream::connect(found.path()).expect("it listens");
        listener.accept().expect("it was called");
        symlink("api.sock", place.path().join("link")).expect("linked");
        File::create(place.path().join("file")).expect("made");
        for bad in ["link", "file", ".", "..", "../api.sock", "/api.sock", ""] {
            assert!(SharedSocket::find(&directory, bad).is_err(), "{bad}");
        }
    }
}
