use super::summary::shown_time;
use crate::agent::transfer::blocking;
use crate::event::{Event, Stream};
use crate::event_log::{EventLog, Follower, Happening, Line, StoppedBy};
use crate::operation::argument::{Number, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::published::{HOST, Published};
use crate::workspace::find::find;
use crate::{Error, ErrorKind, Pyro, Result};
use rustix::fs::inotify;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many events an answer has.
pub type EventLimit = Number<1, 100, 10_000>;

/// Show what happened to a workspace.
///
/// Every operation that changes it, waits in it or looks into its files, and
/// every start, stop and crash of its machine. To ask how it is, what runs and
/// what ran leaves no trace.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceEvents {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// How many of the newest events to show, 1 to 10000.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub limit: EventLimit,
    /// Then wait for more, until interrupted or the workspace is deleted.
    #[arg(long)]
    #[serde(default)]
    pub follow: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace events fix-parser
  pyro workspace events fix-parser --follow";

/// What happened to a workspace, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceHistory {
    /// The workspace.
    pub workspace_id: String,
    /// What happened.
    pub events: Vec<Line>,
}

impl Operation for WorkspaceEvents {
    const PATH: &'static [&'static str] = &["workspace", "events"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = WorkspaceHistory;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceHistory> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let log = EventLog::within(place.path());
        if self.follow && !context.takes_output {
            let message = "events can be followed as text only";
            return Err(Error::new(ErrorKind::InvalidInput, message).hint(format!(
                "leave out `--json`, or follow the file itself, a line of JSON for each: `tail -F {}`",
                log.path().display()
            )));
        }
        let mut follower = log.follow()?;
        let limit = self.limit.get() as usize;
        let reading = blocking({
            let log = log.clone();
            move || log.newest(limit)
        });
        let events = context.unless_cancelled(reading).await?;
        tell(&events, &context).await;
        if self.follow {
            tokio::select! {
                followed = follow(place.path(), &mut follower, &context) => followed?,
                () = context.cancel.cancelled() => {}
            }
        }
        Ok(WorkspaceHistory { workspace_id: place.id().to_string(), events })
    }
}

async fn tell(lines: &[Line], context: &Context) {
    for line in lines {
        let bytes = format!("{}\n", shown(line)).into_bytes();
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
    }
}

/// Tells what is appended, until the workspace is gone.
async fn follow(directory: &Path, follower: &mut Follower, context: &Context) -> Result<()> {
    let failed = |error| Error::io(format!("cannot watch {}", directory.display()), error);
    let watch = watch(directory).map_err(failed)?;
    loop {
        let news = follower.news()?;
        tell(&news, context).await;
        let mut ready = watch.readable().await.map_err(failed)?;
        // Taken before the next look, so that what comes after it is not missed.
        ready.clear_ready();
        if !drain(watch.get_ref()).map_err(failed)? {
            return Ok(());
        }
    }
}

fn watch(directory: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::MOVE_SELF;
    inotify::add_watch(&watch, directory, events)?;
    // SAFETY: an OwnedFd is open, always names the same descriptor, and is given
    // out by AsyncFd only by shared reference here.
    Ok(unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?)
}

/// Whether the directory is still where it was.
fn drain(watch: &OwnedFd) -> std::io::Result<bool> {
    let mut buffer = [const { MaybeUninit::uninit() }; 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(inotify::ReadFlags::MOVE_SELF) => {
                return Ok(false);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// An event in one line.
fn shown(line: &Line) -> String {
    let what = match &line.happening {
        Happening::Operation { operation, caller, what, result, duration_ms } => {
            let what = what.as_deref().map(|what| format!(" {what}")).unwrap_or_default();
            format!("{operation}{what}: {result} after {duration_ms} ms, by {caller}")
        }
        Happening::Created => "created".into(),
        Happening::Started { boot_ms, restored, template_failure } => {
            let from = match (restored, template_failure) {
                (true, _) => ", from a template".to_owned(),
                (false, Some(why)) => format!("; its template was of no use: {why}"),
                (false, None) => String::new(),
            };
            format!("started within {boot_ms} ms{from}")
        }
        Happening::Stopped { by, clean } => {
            let by = match by {
                StoppedBy::Request => "on request",
                StoppedBy::Ttl => "because its time was over",
                StoppedBy::Signal => "by a signal to its supervisor",
            };
            format!("{} {by}", if *clean { "stopped" } else { "killed" })
        }
        Happening::Crashed { how } => format!("went away unasked: the VMM {how}"),
        Happening::Paused => "paused".into(),
        Happening::Resumed => "resumed".into(),
        Happening::PortPublished(port) => whereabouts(port, "published"),
        Happening::PortUnpublished(port) => whereabouts(port, "no more"),
        Happening::Reset { snapshot: None } => "reset to the baseline".into(),
        Happening::Reset { snapshot: Some(name) } => format!("reset to snapshot {name}"),
        Happening::SnapshotCreated { snapshot, still_ms } => {
            format!("snapshot {snapshot} taken, stood still for {still_ms} ms")
        }
        Happening::SnapshotRenamed { snapshot, to } => format!("snapshot {snapshot} is {to} now"),
        Happening::SnapshotDeleted { snapshot } => format!("snapshot {snapshot} deleted"),
        Happening::Forked { workspace_id, snapshot: None } => {
            format!("workspace {workspace_id} made from it")
        }
        Happening::Forked { workspace_id, snapshot: Some(name) } => {
            format!("workspace {workspace_id} made from snapshot {name}")
        }
        Happening::Network { action, destination, names, allowed, rule } => {
            let known = match names.is_empty() {
                true => String::new(),
                false => format!(" ({})", names.join(", ")),
            };
            let may = if *allowed { "allowed" } else { "denied" };
            format!("network: {action} {destination}{known} {may} by {rule}")
        }
        Happening::NetworkOmitted { count } => {
            format!("network: {count} more decisions, too fast to be written down")
        }
        Happening::NetworkLost { why } => format!("network: lost: {why}"),
        Happening::NetworkReopened { why } => format!("network: opened again: {why}"),
        Happening::SecretUsed { secret, variable } => {
            format!("secret {secret} was given to a program as {variable}")
        }
    };
    format!("{} {what}", shown_time(line.at))
}

impl Answer for WorkspaceHistory {
    fn render(&self, page: &mut Page) -> fmt::Result {
        self.events.iter().try_for_each(|line| writeln!(page, "{}", shown(line)))
    }
}

fn whereabouts(published: &Published, what: &str) -> String {
    let Published { host_port, guest_port, service } = published;
    let service = service.as_ref().map(|name| format!(", for service {name}"));
    format!("port {guest_port} {what} on {HOST}:{host_port}{}", service.unwrap_or_default())
}
