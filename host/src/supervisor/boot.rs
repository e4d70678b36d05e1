//! From an assignment to a guest that serves calls.

use super::console::Console;
use super::proof::prove;
use super::secrets::hand_over;
use super::trunk::{Trunk, broken};
use super::way::Way;
use super::{Assignment, Came, Endpoint, Guest, LAST_BREATH, Purpose, Ready};
use crate::egress::gateway::wire::Cable;
use crate::error::{Error, ErrorKind, Result};
use crate::id::fill_random;
use crate::secret::{SecretStore, Secrets};
use crate::store::lock::{Lock, Mode};
use crate::vmm::{Beginning, Link, Place, Vmm};
use futures::future::pending;
use pyro_protocol::channel::{Before, ChannelError};
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::inspect::Inspect;
use pyro_protocol::power::{Activate, ENTROPY_LEN};
use pyro_protocol::{ByteString, FrameKind, FrameReader};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a boot that only has to explain itself may take.
const VERBOSE_DEADLINE: Duration = Duration::from_secs(10);

/// A guest that is restored may take this part of what it may take to boot.
const RESTORES_PER_BOOT: u32 = 3;

/// Held by the VMM itself, until it is gone.
const VMM_LOCK: &str = "vmm.lock";

/// How long a killed VMM may take to be gone: the kernel frees the guest's memory.
const DYING_MAX: Duration = Duration::from_secs(10);

/// Waits until no VMM writes the disks in a workspace's directory any more, and
/// keeps it so: that of a supervisor that was killed may outlive it by a moment.
///
/// # Errors
/// `Conflict` when one does not end.
pub async fn without_vmm(directory: &Path) -> Result<Lock> {
    Lock::take(&directory.join(VMM_LOCK), Mode::Shared, DYING_MAX).await
}

/// What a guest that came up has besides its process.
pub(super) struct Up {
    pub endpoint: Endpoint,
    pub ready: Ready,
    pub way: Way,
}

/// Restores what there is to be restored, or boots. When a boot fails without a
/// word boots again with a kernel that tells all it does; should the second try
/// succeed, so much the better.
pub(super) async fn boot_or_explain(
    assignment: &Assignment,
    vmm: &dyn Vmm,
    directory: &File,
) -> Result<Guest> {
    // What cannot be unsealed is said before anything is started.
    let store = &assignment.directory;
    let store = SecretStore::new(assignment.secret_key.clone(), store, assignment.workspace);
    let secrets = store.read()?;
    let booted = match restore(assignment, &secrets, vmm, directory).await {
        Some(Ok(guest)) => return Ok(guest),
        Some(Err(failure)) => {
            let why = secrets.redactor().error(failure.error).chain();
            let mut instead = assignment.clone();
            instead.machine.beginning = Beginning::Boot;
            boot_twice(&instead, &secrets, vmm, directory).await.map(|mut guest| {
                guest.ready.came = Came::BootedInstead(why);
                guest
            })
        }
        None => boot_twice(assignment, &secrets, vmm, directory).await,
    };
    // What a guest says of its failure is the guest's.
    booted.map_err(|error| secrets.redactor().error(error))
}

/// Restores the template that there is, if there is one: that is quick, or it is
/// no use.
async fn restore(
    assignment: &Assignment,
    secrets: &Secrets,
    vmm: &dyn Vmm,
    directory: &File,
) -> Option<Result<Guest, BootFailure>> {
    let Beginning::Restore(_) = assignment.machine.beginning else { return None };
    let boot_deadline = assignment.boot_deadline / RESTORES_PER_BOOT;
    let assignment = Assignment { boot_deadline, ..assignment.clone() };
    Some(boot(&assignment, secrets, vmm, directory).await.map(|mut guest| {
        guest.ready.came = Came::Restored;
        guest
    }))
}

async fn boot_twice(
    assignment: &Assignment,
    secrets: &Secrets,
    vmm: &dyn Vmm,
    directory: &File,
) -> Result<Guest> {
    let failure = match boot(assignment, secrets, vmm, directory).await {
        Ok(guest) => return Ok(guest),
        Err(failure) => failure,
    };
    if !failure.silent || assignment.machine.verbose {
        return Err(failure.error);
    }
    let mut again = assignment.clone();
    again.machine.verbose = true;
    again.boot_deadline = again.boot_deadline.min(VERBOSE_DEADLINE);
    match boot(&again, secrets, vmm, directory).await {
        Ok(guest) => Ok(guest),
        Err(second) if second.silent => Err(failure.error),
        Err(second) => Err(second.error),
    }
}

/// A boot that came to nothing.
struct BootFailure {
    error: Error,
    /// Whether guest and VMM left no word of why.
    silent: bool,
}

impl From<Error> for BootFailure {
    /// What fails before there is a console has said all there is to say.
    fn from(error: Error) -> Self {
        Self { error, silent: false }
    }
}

/// Starts the machine and brings its guest to the point where it serves calls.
async fn boot(
    assignment: &Assignment,
    secrets: &Secrets,
    vmm: &dyn Vmm,
    directory: &File,
) -> Result<Guest, BootFailure> {
    let console = Console::create(directory, secrets.redactor())?;
    // That of a supervisor that was killed may outlive it by a moment.
    let lock = assignment.directory.join(VMM_LOCK);
    let lock = Lock::take(&lock, Mode::Exclusive, DYING_MAX).await?;
    let started_at = Instant::now();
    let place = Place {
        workspace: assignment.workspace,
        directory: &assignment.directory,
        lock: lock.file(),
    };
    let started = vmm.start(&assignment.machine, place).await?;
    drop(lock);
    let mut process = started.process;
    let mut logging: Endpoint = Box::pin(console.keep(started.console)?);
    let deadline = assignment.boot_deadline;
    let cable = started.nic.map(Cable::new);
    let coming_up =
        timeout(deadline, come_up(assignment, secrets, directory, started.link, started_at));
    let booting = async {
        let failure = tokio::select! {
            biased;
            up = coming_up => match up {
                Ok(Ok(up)) => return Ok(up),
                Ok(Err(error)) => {
                    let ended = timeout(LAST_BREATH, process.wait()).await.ok();
                    explain_by_end(error, ended)
                }
                Err(_) => Error::new(
                    ErrorKind::BootFailed,
                    format!("the guest did not come up within {} s", deadline.as_secs()),
                ),
            },
            how = process.wait() => ended_early(&how),
        };
        process.kill();
        process.wait().await;
        // What it printed last may still be on its way.
        drop(timeout(LAST_BREATH, console.ended()).await);
        Err(failure)
    };
    let booted = tokio::select! {
        booted = booting => booted,
        () = &mut logging => Err(Error::new(ErrorKind::Internal, "the console's log ended")),
    };
    match booted {
        Ok(up) => {
            if assignment.purpose == Purpose::Template {
                // What it is from here on is what others are restored to.
                process.save().await?;
            }
            process.came_up();
            Ok(Guest::new(process, up, cable, logging, console.discretion()))
        }
        Err(failure) => {
            Err(BootFailure { silent: console.is_silent(), error: console.explain(failure) })
        }
    }
}

/// A VMM that ends breaks the channel first; how it ended tells more. But what
/// the guest did wrong before stays what it is.
fn explain_by_end(error: Error, ended: Option<String>) -> Error {
    let lost = matches!(error.kind(), ErrorKind::BootFailed | ErrorKind::GuestLost);
    match ended {
        Some(how) if lost => ended_early(&how).because(error),
        Some(_) | None => error,
    }
}

fn ended_early(how: &str) -> Error {
    Error::new(ErrorKind::BootFailed, format!("the VMM {how} while the guest booted"))
}

async fn come_up(
    assignment: &Assignment,
    secrets: &Secrets,
    directory: &File,
    link: Link,
    started_at: Instant,
) -> Result<Up> {
    match link {
        Link::Stream(stream) => {
            let place = directory.try_clone();
            let place = place.map_err(|error| Error::io("cannot keep a directory open", error))?;
            let (announced, mut announcement) = mpsc::channel(1);
            let announcement = async move {
                announcement.recv().await.ok_or_else(|| broken(ChannelError::Closed))
            };
            let (trunk, anew) = (Trunk::default(), assignment.deadlines.greeting);
            let way = Way::Trunk(trunk.clone());
            let before = match assignment.machine.beginning {
                Beginning::Boot | Beginning::BootToSave(_) => Before::Nothing,
                // Before it was saved; since then nothing was underway.
                Beginning::Restore(_) => Before::WholeFrames,
            };
            let carrying = trunk.clone().carry(place, stream, before, announced, anew);
            let mut carrying = Box::pin(carrying);
            let ready = tokio::select! {
                ready = greet_and_activate(assignment, secrets, &way, announcement, started_at) => ready?,
                reason = &mut carrying => return Err(reason),
            };
            trunk.came_up();
            let endpoint: Endpoint = Box::pin(async move { drop(carrying.await) });
            Ok(Up { endpoint, ready, way })
        }
        Link::Endpoint(_) if matches!(assignment.machine.beginning, Beginning::Restore(_)) => {
            // It announced itself before it was saved.
            let way = Way::endpoint(directory)?;
            let proven = prove(&way);
            let ready = activate_after(assignment, secrets, &way, proven, started_at).await?;
            Ok(Up { endpoint: Box::pin(pending()), ready, way })
        }
        Link::Endpoint(listener) => {
            let announcement = listener.accept().await.map(|(stream, _)| stream);
            let announcement = announcement
                .map_err(|error| Error::io("cannot hear the guest announce itself", error));
            // Since the guest speaks, there is an endpoint.
            let way = Way::endpoint(directory)?;
            let ready =
                greet_and_activate(assignment, secrets, &way, async { announcement }, started_at)
                    .await?;
            // It is served for as long as the VMM lives.
            Ok(Up { endpoint: Box::pin(pending()), ready, way })
        }
    }
}

/// Hears the guest announce itself, and gives it its workspace.
async fn greet_and_activate<S: AsyncRead + Unpin>(
    assignment: &Assignment,
    secrets: &Secrets,
    way: &Way,
    announcement: impl Future<Output = Result<S>>,
    started_at: Instant,
) -> Result<Ready> {
    let heard = async {
        let announced: Announcement = FrameReader::new(announcement.await?)
            .expect(FrameKind::Announcement)
            .await
            .map_err(|error| {
                let message = "the guest announced itself wrongly";
                Error::new(ErrorKind::Protocol, message).because(error)
            })?;
        if announced.magic == MAGIC {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Protocol, "what runs in the guest is no pyro agent"))
    };
    activate_after(assignment, secrets, way, heard, started_at).await
}

/// Gives the guest its workspace, once it is known to be there.
async fn activate_after(
    assignment: &Assignment,
    secrets: &Secrets,
    way: &Way,
    there: impl Future<Output = Result<()>>,
    started_at: Instant,
) -> Result<Ready> {
    there.await?;
    let boot = started_at.elapsed();
    if assignment.purpose != Purpose::Template {
        activate(way, assignment, secrets).await?;
    }
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let activated = started_at.elapsed().saturating_sub(boot);
    let (boot_us, activate_us) = (micros(boot), micros(activated));
    Ok(Ready { vmm_pid: None, came: Came::Booted, boot_us, activate_us })
}

/// Gives the guest its workspace, with all that it keeps to itself: whoever finds
/// it finds it complete.
async fn activate(way: &Way, assignment: &Assignment, secrets: &Secrets) -> Result<()> {
    let activating = async {
        let mut connection = way.read_clock().await?;
        let mut entropy = vec![0; ENTROPY_LEN];
        fill_random(&mut entropy);
        let (entropy, seeded) = (ByteString(entropy), assignment.seeded);
        // The guest may claim to live at the end of all time.
        let clock_offset_ns = connection.clock.ahead_ns.saturating_neg();
        let (hostname, machine_id) =
            (assignment.workspace.hostname(), assignment.workspace.machine_id());
        // All of this has a deadline together.
        match assignment.purpose {
            Purpose::Work => {
                let request = Activate { entropy, clock_offset_ns, hostname, machine_id, seeded };
                connection.call(request, Duration::MAX).await.map_err(unfit)?;
            }
            Purpose::Template => {}
            Purpose::Inspection => {
                let request = Inspect { entropy, clock_offset_ns, seeded };
                let inspecting = connection.call(request, Duration::MAX).await;
                inspecting.map_err(|error| outdated(unfit(error), assignment))?;
            }
        }
        if !secrets.is_empty() {
            hand_over(way, secrets).await.map_err(unfit)?;
        }
        Ok(())
    };
    let deadline = assignment.deadlines.activation;
    timeout(deadline, activating).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::BootFailed,
            format!("the guest did not mount its disks within {} s", deadline.as_secs()),
        ))
    })
}

/// What to do about a kernel that is older than what is asked of it.
fn outdated(error: Error, assignment: &Assignment) -> Error {
    if error.kind() != ErrorKind::Unsupported {
        return error;
    }
    let flavor = assignment.machine.kernel_flavor;
    error.hint(format!("make it again: `pyro env build debian:12 --kernel {flavor} --force`"))
}

/// What an agent says to refuse its workspace was not asked for by the caller,
/// whose program, for one, has not even been looked for.
fn unfit(error: Error) -> Error {
    let own = [ErrorKind::GuestLost, ErrorKind::Protocol, ErrorKind::Unsupported];
    if own.contains(&error.kind()) {
        return error;
    }
    Error::new(ErrorKind::BootFailed, "the guest refused its workspace").because(error)
}
