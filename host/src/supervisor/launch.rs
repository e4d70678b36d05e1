//! Starting a supervisor, and holding its lease.

use super::{ARGUMENT, Assignment, Keep, Ready, Report, serve_lease};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::vmm::{Installed, Vmm};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a supervisor may take to let others find its guest: a few writes.
const KEEP_DEADLINE: Duration = Duration::from_secs(20);

/// How long a supervisor may take to end its VMM and remove a directory.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);

/// How supervisors come to be.
#[derive(Clone)]
pub enum Launcher {
    /// As detached processes.
    Process,
    /// As threads of this process, with a VMM of the caller's: for tests.
    InProcess(Arc<dyn Vmm>),
}

/// A supervisor that lives as long as this does.
pub struct Lease {
    reports: BufReader<OwnedReadHalf>,
    hold: OwnedWriteHalf,
    supervisor: Supervisor,
}

enum Supervisor {
    Process(Child),
    Thread(std::thread::JoinHandle<()>),
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Launcher::Process => "Process",
            Launcher::InProcess(_) => "InProcess",
        })
    }
}

impl Launcher {
    /// What will run machines that are to run with an installed VMM.
    #[must_use]
    pub fn vmm<'a>(&'a self, installed: &'a Installed) -> &'a dyn Vmm {
        match self {
            Self::Process => installed.as_ref(),
            Self::InProcess(vmm) => vmm.as_ref(),
        }
    }

    /// Starts a supervisor on an assignment. `lock` is the workspace's, held
    /// by the supervisor from now on.
    pub async fn launch(
        &self,
        config: &Config,
        assignment: &Assignment,
        lock: &File,
    ) -> Result<Lease> {
        let failed = |error| Error::io("cannot start a supervisor", error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        let supervisor = match self {
            Launcher::Process => {
                Supervisor::Process(spawn(config, assignment, theirs.into(), lock)?)
            }
            Launcher::InProcess(vmm) => {
                let (vmm, lock) = (Arc::clone(vmm), lock.try_clone().map_err(failed)?);
                Supervisor::Thread(std::thread::spawn(move || in_thread(theirs, vmm, lock)))
            }
        };
        ours.set_nonblocking(true).map_err(failed)?;
        let (read, mut hold) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        let mut line = serde_json::to_vec(assignment).map_err(|error| {
            Error::new(ErrorKind::Internal, "cannot encode an assignment").because(error)
        })?;
        line.push(b'\n');
        hold.write_all(&line).await.map_err(failed)?;
        Ok(Lease { reports: BufReader::new(read), hold, supervisor })
    }
}

fn spawn(config: &Config, assignment: &Assignment, lease: OwnedFd, lock: &File) -> Result<Child> {
    let log = File::create(assignment.directory.join("supervisor.log"))
        .map_err(|error| Error::io("cannot keep a supervisor's log", error))?;
    let errors =
        log.try_clone().map_err(|error| Error::io("cannot keep a supervisor's log", error))?;
    let lock = lock.as_fd().as_raw_fd();
    let mut command = Command::new(&config.executable);
    // Its file may be called anything, or /proc/self/exe.
    command.arg0("pyro");
    command.arg(ARGUMENT).env_clear().current_dir("/").stdin(lease).stdout(log).stderr(errors);
    // SAFETY: both calls are async-signal-safe. The lock is held for as long as
    // the descriptor is open in the supervisor, which need not know its number.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 || libc::fcntl(lock, libc::F_SETFD, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn().map_err(|error| {
        Error::io(format!("cannot start {} as a supervisor", config.executable.display()), error)
    })
}

fn in_thread(lease: std::os::unix::net::UnixStream, vmm: Arc<dyn Vmm>, lock: File) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.map(|runtime| {
        runtime.block_on(async {
            lease.set_nonblocking(true)?;
            // Whatever went wrong was reported on the lease.
            drop(serve_lease(UnixStream::from_std(lease)?, Some(vmm)).await);
            Ok::<_, std::io::Error>(())
        })
    });
    drop((served, lock));
}

impl Lease {
    /// Waits until the guest serves calls. The supervisor has deadlines of its
    /// own for everything on the way.
    pub async fn ready(&mut self) -> Result<Ready> {
        match self.next_report().await? {
            Some(Report::Ready(ready)) => Ok(ready),
            Some(Report::Failed(failure)) => Err(failure.into()),
            Some(Report::Ended { how }) => Err(ended(&how)),
            Some(Report::Kept) | None => Err(died()),
        }
    }

    /// Lets the guest live on without the lease. When this returns, others find
    /// it; should the caller die before, the guest ends.
    ///
    /// # Errors
    /// When the guest is lost; `TimedOut` when the supervisor does not say.
    pub async fn keep(self, keep: &Keep) -> Result<()> {
        timeout(KEEP_DEADLINE, self.kept(keep)).await.unwrap_or_else(|_| {
            let message =
                format!("the supervisor did not answer within {} s", KEEP_DEADLINE.as_secs());
            Err(Error::new(ErrorKind::TimedOut, message))
        })
    }

    async fn kept(mut self, keep: &Keep) -> Result<()> {
        let mut line = serde_json::to_vec(keep).map_err(|error| {
            Error::new(ErrorKind::Internal, "cannot encode a word to a supervisor").because(error)
        })?;
        line.push(b'\n');
        self.hold.write_all(&line).await.map_err(|error| {
            Error::new(ErrorKind::GuestLost, "the supervisor is lost").because(error)
        })?;
        match self.next_report().await? {
            Some(Report::Kept) => Ok(()),
            Some(Report::Failed(failure)) => Err(failure.into()),
            Some(Report::Ended { how }) => Err(ended(&how)),
            Some(Report::Ready(_)) | None => Err(died()),
        }
    }

    /// Waits until the VMM has ended by itself, and says why the guest is lost.
    pub async fn lost(&mut self) -> Error {
        match self.next_report().await {
            Ok(Some(Report::Ended { how })) => ended(&how),
            Ok(Some(Report::Failed(failure))) => Error::new(ErrorKind::GuestLost, failure.message),
            Ok(Some(Report::Ready(_) | Report::Kept) | None) => died(),
            Err(error) => error,
        }
    }

    async fn next_report(&mut self) -> Result<Option<Report>> {
        let mut line = Vec::new();
        (&mut self.reports).take(super::LINE_MAX).read_until(b'\n', &mut line).await.map_err(
            |error| Error::new(ErrorKind::GuestLost, "the supervisor is lost").because(error),
        )?;
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            Error::new(ErrorKind::Internal, "a supervisor's report is malformed").because(error)
        })
    }

    /// Ends the machine, and returns when nothing of it is left.
    pub async fn release(self) -> Result<()> {
        let Self { mut reports, hold, supervisor } = self;
        // Half of the socket is enough: the supervisor reads the end of it.
        drop(hold);
        let ending = async {
            // Reports still underway are of no interest; the end of them is.
            drop(tokio::io::copy(&mut reports, &mut tokio::io::sink()).await);
            match supervisor {
                Supervisor::Process(mut child) => child.wait().await.map(drop),
                Supervisor::Thread(thread) => {
                    thread.join().map_err(|_| std::io::Error::other("its thread panicked"))
                }
            }
        };
        match timeout(RELEASE_DEADLINE, ending).await {
            Ok(ended) => ended.map_err(|error| Error::io("cannot wait for the supervisor", error)),
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!("the supervisor did not end within {} s", RELEASE_DEADLINE.as_secs()),
            )),
        }
    }
}

fn died() -> Error {
    Error::new(ErrorKind::GuestLost, "the supervisor died")
}

fn ended(how: &str) -> Error {
    Error::new(ErrorKind::GuestLost, format!("the guest is gone: the VMM {how}"))
}
