//! Sockets in a directory that a VMM can change.

use super::DIRECTORY;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use tokio::net::UnixStream;

/// A socket that was found in the VMM's directory: that very one, whatever comes
/// in its place.
#[derive(Debug, Clone)]
pub struct Socket(Arc<File>);

impl Socket {
    /// Finds the socket of a name in the VMM's place in a workspace's directory.
    ///
    /// A VMM that its guest has taken over could have put a link there, to a socket
    /// of the host's: no link is followed.
    ///
    /// # Errors
    /// `NotFound` when there is none, and whatever is wrong with what there is.
    pub fn open(directory: impl AsFd, name: &str) -> io::Result<Self> {
        let path = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let place = openat(directory, DIRECTORY, path | OFlags::DIRECTORY, Mode::empty())?;
        let socket = openat(place, name, path, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
            let message = format!("{DIRECTORY}/{name} is no socket");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(Arc::new(socket.into())))
    }

    /// Connects to it, and to nothing else.
    ///
    /// # Errors
    /// Whatever the socket gives.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn s1_no_link_leads_out_of_the_vmms_directory() {
        let (home, other) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("another"));
        let directory = File::open(home.path()).expect("there");
        let outside = other.path().join("host.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&outside).expect("bound");
        let vmm = home.path().join(DIRECTORY);
        symlink(other.path(), &vmm).expect("linked");
        assert!(Socket::open(&directory, "host.sock").is_err(), "by a linked directory");
        std::fs::remove_file(&vmm).expect("removed");
        std::fs::create_dir(&vmm).expect("made");
        symlink(&outside, vmm.join("a.sock")).expect("linked");
        assert!(Socket::open(&directory, "a.sock").is_err(), "by a linked socket");
        std::fs::write(vmm.join("b.sock"), "").expect("written");
        assert!(Socket::open(&directory, "b.sock").is_err(), "by a file");
        let honest = std::os::unix::net::UnixListener::bind(vmm.join("c.sock")).expect("bound");
        let socket = Socket::open(&directory, "c.sock").expect("found");
        std::fs::remove_file(vmm.join("c.sock")).expect("removed");
        symlink(&outside, vmm.join("c.sock")).expect("linked");
        socket.connect().await.expect("the one that was found");
        honest.accept().expect("and no other");
    }
}
