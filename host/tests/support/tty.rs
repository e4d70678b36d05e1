//! A terminal for a program to sit at, and one who sits there.

#![allow(dead_code, reason = "each who shares it uses a part")]

use pyro::workspace::screen::look;
use pyro_protocol::shell::TerminalSize;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Nothing here takes long; what takes this long hangs.
const DEADLINE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A program at a terminal.
pub struct Tty {
    outer: OwnedFd,
    pub child: Child,
    size: TerminalSize,
    seen: Vec<u8>,
}

impl Tty {
    /// Starts it there.
    pub fn start(command: Command, cols: u16, rows: u16) -> Self {
        Self::start_writing_to(None, command, cols, rows)
    }

    /// Starts it there, with another place for its standard output.
    pub fn start_writing_to(
        stdout: Option<OwnedFd>,
        mut command: Command,
        cols: u16,
        rows: u16,
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let outer = openpt(flags).unwrap();
        unlockpt(&outer).unwrap();
        let inner = ioctl_tiocgptpeer(&outer, flags).unwrap();
        resize(&outer, cols, rows);
        let end = || inner.try_clone().unwrap();
        command.stdin(end()).stdout(stdout.unwrap_or_else(end)).stderr(end());
        // SAFETY: both are plain system calls.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            })
        };
        let child = command.spawn().unwrap();
        Self { outer, child, size: TerminalSize { cols, rows }, seen: Vec::new() }
    }

    /// Presses keys.
    pub fn types(&self, keys: &[u8]) {
        let mut rest = keys;
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&self.outer, rest).unwrap()..];
        }
    }

    /// Makes the window larger or smaller.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        resize(&self.outer, cols, rows);
        self.size = TerminalSize { cols, rows };
    }

    /// Whether keys are handed over as they are pressed.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.outer).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits until keys are not handed over any more, and reads nothing meanwhile.
    pub fn is_left(&self) {
        let begun = Instant::now();
        while self.is_raw() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it still has the terminal");
            std::thread::yield_now();
        }
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        look(&self.seen, 0, self.size, usize::MAX).text
    }

    /// Waits until these words are on the screen.
    pub fn sees(&mut self, words: &str) {
        while !self.screen().contains(words) {
            assert!(self.read(), "the end, and only this is seen:\n{}", self.screen());
        }
    }

    /// Waits until something comes.
    pub fn reads(&mut self) {
        assert!(self.read(), "the end");
    }

    /// Waits for the program's end.
    pub fn ends(&mut self) -> ExitStatus {
        while self.read() {}
        self.child.wait().unwrap()
    }

    /// False once the program has let go of the terminal.
    fn read(&mut self) -> bool {
        let mut ready = [PollFd::new(&self.outer, PollFlags::IN)];
        let count = poll(&mut ready, Some(&DEADLINE)).unwrap();
        assert!(count > 0, "nothing comes, and only this is seen:\n{}", self.screen());
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.outer, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => false,
            Ok(length) => {
                self.seen.extend(&buffer[..length]);
                true
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // A test that fails leaves nothing either; one that has ended is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn resize(outer: &OwnedFd, cols: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(outer, size).unwrap();
}
