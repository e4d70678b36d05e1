//! The outer end of a pseudo-terminal.

use crate::readiness::watch;
use pyro_protocol::shell::TerminalSize;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A terminal, seen from where its keyboard and its screen would be.
pub(super) struct Terminal {
    outer: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// Opens one of this size; also gives the end that programs use. A terminal
    /// is taken by what the kernel gives, never by a name in the guest's `/dev`.
    pub(super) fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // Whatever a guest has put in its place keeps nobody waiting.
        let outer = openpt(flags | OpenptFlags::from_bits_retain(nonblocking()))?;
        unlockpt(&outer)?;
        let inner = ioctl_tiocgptpeer(&outer, flags)?;
        let mut modes = rustix::termios::tcgetattr(&inner)?;
        // So that rubbing out takes whole characters away.
        modes.input_modes |= InputModes::IUTF8;
        rustix::termios::tcsetattr(&inner, OptionalActions::Now, &modes)?;
        let terminal = Self { outer: watch(outer, Interest::READABLE | Interest::WRITABLE)? };
        terminal.resize(size)?;
        Ok((terminal, inner))
    }

    /// Waits for something to come out; nothing is left once it is hung up.
    /// Cancelled, it has read nothing.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.outer.readable().await?;
            match ready.try_io(|outer| read(outer.get_ref(), buffer)) {
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    /// The same, of what has come out by now.
    pub(super) fn read_present(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match read(self.outer.get_ref(), buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }

    /// Waits until it takes some input. Cancelled, it has taken nothing.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // The runtime may not have heard yet that there is room.
        match rustix::io::write(self.outer.get_ref(), bytes) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            written => return Ok(written?),
        }
        loop {
            let mut ready = self.outer.writable().await?;
            match ready.try_io(|outer| Ok(rustix::io::write(outer.get_ref(), bytes)?)) {
                Ok(written) => return written,
                Err(_would_block) => {}
            }
        }
    }

    /// Makes it so large; the kernel tells the foreground job.
    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let TerminalSize { cols, rows } = size;
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.outer.get_ref(), size)?)
    }

    /// The process group that its keyboard's signals reach, if there is one.
    pub(super) fn foreground(&self) -> Option<Pid> {
        rustix::termios::tcgetpgrp(self.outer.get_ref()).ok()
    }
}

fn nonblocking() -> u32 {
    rustix::fs::OFlags::NONBLOCK.bits()
}

fn read(outer: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(outer, buffer) {
        // Nobody has the other end open any more.
        Err(Errno::IO) => Ok(0),
        read => Ok(read?),
    }
}
