//! What a guest's kernel and the VMM print: kept, within bounds, and shown when
//! a boot fails.

use crate::error::{Error, Result};
use crate::guest_text;
use crate::secret::Redactor;
use futures::future::{join_all, pending};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, openat, renameat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// The log's file name in a workspace's directory; the part before it has `.1`
/// appended.
pub const LOG_NAME: &str = "console.log";

/// The log's size before it becomes the part before; so a guest can fill twice
/// this and no more.
const LOG_MAX: u64 = 512 * 1024;

/// What is kept in memory to explain a failure with.
const TAIL_MAX: usize = 4 * 1024;

/// The last lines that an error shows.
const LINES_SHOWN: usize = 12;

/// The log of one guest.
pub struct Console {
    log: Rc<RefCell<Log>>,
    /// How many sources may still say something.
    open: watch::Sender<usize>,
    discretion: SharedRedactor,
}

/// What a guest's log must not tell, which may change.
pub(super) type SharedRedactor = Rc<RefCell<Redactor>>;

struct Log {
    directory: File,
    file: File,
    written: u64,
    tail: VecDeque<u8>,
}

impl Console {
    /// Starts a log in a workspace's directory.
    pub fn create(directory: &File, redactor: Redactor) -> Result<Self> {
        let directory =
            directory.try_clone().map_err(|error| Error::io("cannot keep a console log", error))?;
        let file =
            open(&directory).map_err(|error| Error::io("cannot keep a console log", error))?;
        // Another guest may have printed on it before.
        let written =
            file.metadata().map_err(|error| Error::io("cannot keep a console log", error))?.len();
        let log = Log { directory, file, written, tail: VecDeque::with_capacity(TAIL_MAX) };
        let discretion = Rc::new(RefCell::new(redactor));
        Ok(Self { log: Rc::new(RefCell::new(log)), open: watch::Sender::new(0), discretion })
    }

    /// For whoever knows better later what must not be told.
    pub fn discretion(&self) -> SharedRedactor {
        Rc::clone(&self.discretion)
    }

    /// Keeps what comes from these, for as long as the future is polled; it
    /// never ends.
    pub fn keep(&self, sources: Vec<OwnedFd>) -> Result<impl Future<Output = ()> + use<>> {
        let readers = sources
            .into_iter()
            .map(|source| {
                let flags = fcntl_getfl(&source)?;
                fcntl_setfl(&source, flags | OFlags::NONBLOCK)?;
                // SAFETY: the descriptor is owned and stays the same.
                let source = unsafe { AsyncFd::register(source) }.map_err(std::io::Error::from)?;
                let (log, open) = (Rc::clone(&self.log), self.open.clone());
                let discretion = self.discretion();
                open.send_modify(|count| *count += 1);
                Ok(async move {
                    read_all(&source, &log, &discretion).await;
                    open.send_modify(|count| *count -= 1);
                })
            })
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| Error::io("cannot watch the console", error))?;
        Ok(async move {
            join_all(readers).await;
            pending().await
        })
    }

    /// Whether nothing was printed so far.
    pub fn is_silent(&self) -> bool {
        self.log.borrow().tail.is_empty()
    }

    /// Returns once all that was ever printed is kept, if somebody polls what
    /// keeps it: when every source has ended.
    pub async fn ended(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.open.subscribe().wait_for(|count| *count == 0).await);
    }

    /// Adds the console's last lines to an error.
    pub fn explain(&self, error: Error) -> Error {
        let log = self.log.borrow();
        let tail: Vec<u8> = log.tail.iter().copied().collect();
        let tail = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
        let lines = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        let said = if lines.is_empty() {
            "; its console stayed silent".to_owned()
        } else {
            let lines: Vec<String> = lines.iter().map(|line| guest_text::bare(line)).collect();
            format!("; the last lines of its console:\n  {}", lines.join("\n  "))
        };
        Error::new(error.kind(), error.chain() + &said)
            .hint(error.next_step().unwrap_or("`pyro doctor` tries every way to boot a guest"))
    }
}

async fn read_all(source: &AsyncFd<OwnedFd>, log: &RefCell<Log>, discretion: &RefCell<Redactor>) {
    let mut redactor = discretion.borrow().clone();
    let mut discreet = redactor.stream();
    let mut buffer = [0; 4096];
    loop {
        let Ok(mut ready) = source.readable().await else { break };
        // A console that never falls silent must not starve the supervisor.
        tokio::task::consume_budget().await;
        let length = match rustix::io::read(source.get_ref(), &mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(_) => break,
        };
        if !discretion.borrow().is_same(&redactor) {
            log.borrow_mut().append(&discreet.finish());
            redactor = discretion.borrow().clone();
            discreet = redactor.stream();
        }
        log.borrow_mut().append(&discreet.push(buffer[..length].to_vec()));
    }
    log.borrow_mut().append(&discreet.finish());
}

impl Log {
    fn append(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..surplus);
        // A full disk must not stop the guest: then the log has a gap.
        if self.file.write_all(bytes).is_ok() {
            self.written += bytes.len() as u64;
        }
        if self.written >= LOG_MAX {
            // Then what there is goes: the bound holds whatever happens.
            if self.rotate().is_err() {
                drop(self.file.set_len(0));
            }
            self.written = 0;
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        renameat(&self.directory, LOG_NAME, &self.directory, format!("{LOG_NAME}.1"))?;
        self.file = open(&self.directory)?;
        Ok(())
    }
}

fn open(directory: &File) -> std::io::Result<File> {
    let flags =
        OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(openat(directory, LOG_NAME, flags, Mode::RUSR | Mode::WUSR)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_across_guests() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = File::open(home.path()).expect("ours");
        let part = vec![b'x'; usize::try_from(LOG_MAX / 3).expect("fits")];
        for _ in 0..20 {
            let console = Console::create(&directory, Redactor::default()).expect("a log");
            console.log.borrow_mut().append(&part);
        }
        for name in [LOG_NAME.to_owned(), format!("{LOG_NAME}.1")] {
            let length = home.path().join(&name).metadata().expect("there").len();
            assert!(length <= LOG_MAX + part.len() as u64, "{name} has {length} bytes");
        }
    }
}
