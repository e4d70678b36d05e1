//! The one table of what can be asked of pyro.
//!
//! A row is a struct in a file of its own. Its fields are the arguments, its
//! doc comment is the help text, its [`Operation`] impl says where it stands
//! and what it does. The command line, the MCP server and the library all
//! derive from [`OPERATIONS`]; none of them knows any operation by name.

pub mod argument;
pub mod demo;
pub mod doctor;
pub mod environment;
pub mod run;
pub mod setup;
pub mod workspace;

mod answer;
mod entry;
mod long;
mod missing;
mod output;
mod schema;

pub use crate::context::{Context, Input};
pub use answer::{Answer, AnyAnswer, Ink, Page};
pub use demo::Demo;
pub use doctor::Doctor;
pub use entry::{Entry, Prepared};
pub use environment::{EnvBuild, EnvImport, EnvInspect, EnvList, EnvPrune, EnvPull};
pub use output::{Encoding, Output};
pub use run::Run;
pub use setup::Setup;
pub use workspace::{
    DiskExport, DiskList, DiskRead, FileDelete, FileEdit, FileList, FileMove, FileRead, FileSearch,
    FileStat, FileWrite, NetworkAllow, NetworkDeny, NetworkExplain, NetworkRemove, NetworkStatus,
    PatchApply, PortList, PortPublish, PortUnpublish, ProcessList, ProcessPoll, ProcessSignal,
    ProcessWait, ProcessWrite, SecretDelete, SecretList, SecretSet, ServiceList, ServiceLogs,
    ServiceRemove, ServiceRestart, ServiceStart, ServiceStatus, ServiceStop, ShellClose, ShellList,
    ShellOpen, ShellRead, ShellResize, ShellSignal, ShellWrite, SnapshotCreate, SnapshotDelete,
    SnapshotList, SnapshotRename, WorkspaceCreate, WorkspaceDelete, WorkspaceDiff, WorkspaceEvents,
    WorkspaceExec, WorkspaceExport, WorkspaceList, WorkspaceLogs, WorkspacePause, WorkspaceReset,
    WorkspaceResume, WorkspaceStart, WorkspaceStatus, WorkspaceStop, WorkspaceSyncPush,
    WorkspaceUpdate,
};

use crate::event_log::{self, Happening};
use crate::secret::Redactor;
use crate::{Pyro, Result, workspace as noun};
use pyro_protocol::GuestPath;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::time::Instant;

/// Everything that can be asked, in the order in which help lists it.
pub const OPERATIONS: &[Entry] = &[
    Entry::of::<Run>(),
    Entry::of::<WorkspaceCreate>(),
    Entry::of::<WorkspaceList>(),
    Entry::of::<WorkspaceStatus>(),
    Entry::of::<WorkspaceUpdate>(),
    Entry::of::<WorkspaceStart>(),
    Entry::of::<WorkspaceStop>(),
    Entry::of::<WorkspacePause>(),
    Entry::of::<WorkspaceResume>(),
    Entry::of::<WorkspaceExec>(),
    Entry::of::<WorkspaceLogs>(),
    Entry::of::<ProcessList>(),
    Entry::of::<ProcessPoll>(),
    Entry::of::<ProcessWrite>(),
    Entry::of::<ProcessSignal>(),
    Entry::of::<ProcessWait>(),
    Entry::of::<ServiceStart>(),
    Entry::of::<ServiceList>(),
    Entry::of::<ServiceStatus>(),
    Entry::of::<ServiceLogs>(),
    Entry::of::<ServiceStop>(),
    Entry::of::<ServiceRestart>(),
    Entry::of::<ServiceRemove>(),
    Entry::of::<PortPublish>(),
    Entry::of::<PortList>(),
    Entry::of::<PortUnpublish>(),
    Entry::of::<ShellOpen>(),
    Entry::of::<ShellList>(),
    Entry::of::<ShellRead>(),
    Entry::of::<ShellWrite>(),
    Entry::of::<ShellSignal>(),
    Entry::of::<ShellResize>(),
    Entry::of::<ShellClose>(),
    Entry::of::<FileList>(),
    Entry::of::<FileRead>(),
    Entry::of::<FileWrite>(),
    Entry::of::<FileEdit>(),
    Entry::of::<FileDelete>(),
    Entry::of::<FileMove>(),
    Entry::of::<FileSearch>(),
    Entry::of::<FileStat>(),
    Entry::of::<WorkspaceSyncPush>(),
    Entry::of::<WorkspaceExport>(),
    Entry::of::<WorkspaceDiff>(),
    Entry::of::<PatchApply>(),
    Entry::of::<DiskList>(),
    Entry::of::<DiskRead>(),
    Entry::of::<DiskExport>(),
    Entry::of::<NetworkStatus>(),
    Entry::of::<NetworkAllow>(),
    Entry::of::<NetworkDeny>(),
    Entry::of::<NetworkRemove>(),
    Entry::of::<NetworkExplain>(),
    Entry::of::<SecretSet>(),
    Entry::of::<SecretList>(),
    Entry::of::<SecretDelete>(),
    Entry::of::<SnapshotCreate>(),
    Entry::of::<SnapshotList>(),
    Entry::of::<SnapshotRename>(),
    Entry::of::<SnapshotDelete>(),
    Entry::of::<WorkspaceReset>(),
    Entry::of::<WorkspaceDelete>(),
    Entry::of::<WorkspaceEvents>(),
    Entry::of::<Setup>(),
    Entry::of::<Doctor>(),
    Entry::of::<Demo>(),
    Entry::of::<EnvList>(),
    Entry::of::<EnvInspect>(),
    Entry::of::<EnvBuild>(),
    Entry::of::<EnvPull>(),
    Entry::of::<EnvImport>(),
    Entry::of::<EnvPrune>(),
];

/// One thing that can be asked of pyro.
pub trait Operation: clap::Args + DeserializeOwned + JsonSchema + Send + 'static {
    /// Where it stands on the command line: `["env", "list"]`.
    const PATH: &'static [&'static str];
    /// Its name as an MCP tool, when it is one.
    const TOOL: Option<&'static str>;
    /// What it does to what is there.
    const EFFECT: Effect;
    /// What passes through it beside arguments and answer.
    const STREAMS: Streams = Streams::None;
    /// Whether it makes something that has an id; the command line can then be
    /// asked for that alone.
    const CREATES: Creates = Creates::Nothing;
    /// Whether doing it once more with the same arguments changes nothing more.
    const REPEATABLE: bool = false;
    /// What it answers.
    type Output: Answer;

    /// The workspace that it is about, for the event log of that workspace.
    fn subject(&self) -> Option<&argument::WorkspaceRef> {
        None
    }

    /// What in particular is asked, such as a command or a path; never anything
    /// that might be secret.
    fn about(&self) -> Option<String> {
        None
    }

    /// The path in the guest that it is about, for saying what to do when it is
    /// not there.
    fn guest_path(&self) -> Option<&GuestPath> {
        None
    }

    /// Does it.
    fn run(
        self,
        pyro: &Pyro,
        context: Context,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// What an operation does to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// It adds or alters.
    Changes,
    /// It takes something away for good, or can when it is asked to.
    Destroys,
}

/// Whether an operation makes something that has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creates {
    /// It does not.
    Nothing,
    /// It does.
    Something,
    /// It does with this argument.
    With(&'static str),
}

/// What passes through an operation beside its arguments and its answer. Where
/// anything does, the command line passes its own standard input in and what
/// comes out on, and keeps the rendered answer to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Nothing.
    None,
    /// The answer itself, as raw bytes. What else there is to say of it goes to
    /// standard error.
    Answer,
    /// What a guest's program reads and writes. Between its bytes pyro says
    /// nothing of its own, unless to a person at a terminal.
    Program,
}

impl Pyro {
    /// Asks for something, without listening to events and without input.
    ///
    /// # Errors
    /// Those of the operation.
    pub async fn call<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.call_with(operation, Context::default()).await
    }

    /// Asks for something with events, input, signals and cancellation.
    ///
    /// # Errors
    /// Those of the operation.
    pub async fn call_with<O: Operation>(
        &self,
        operation: O,
        context: Context,
    ) -> Result<O::Output> {
        perform(operation, self, context).await
    }
}

/// Does it, and writes down in the event log of the workspace it is about, or
/// has made, that it was done.
async fn perform<O: Operation>(operation: O, pyro: &Pyro, context: Context) -> Result<O::Output> {
    let find = |reference: &str| noun::find::find(&pyro.config, reference).ok();
    // What is not there has no log, and the operation says so itself.
    let known = operation.subject().and_then(|reference| find(reference.as_str()));
    let (caller, what, started) = (context.caller, operation.about(), Instant::now());
    let path = operation.guest_path().cloned();
    let discretion = context.discretion.clone();
    let mut done = operation.run(pyro, context).await;
    // Whoever did not open the workspace has not been told anything by its guest,
    // but what was asked may still hold a secret.
    let redactor = match (discretion.redactor(), &known) {
        (Some(redactor), _) => Some(redactor),
        (None, Some(place)) => place.redactor().ok(),
        (None, None) => Some(Redactor::default()),
    };
    // What cannot be looked through is not written down.
    let what = redactor.as_ref().and_then(|redactor| Some(redactor.string(what?)));
    if let Some(redactor) = &redactor {
        done = done.map_err(|error| redactor.error(error));
    }
    if let (Err(error), Some(place), Some(path)) = (&mut done, &known, path) {
        missing::point_out(error, place.id(), &path);
    }
    let made = || match (O::CREATES, &done) {
        (Creates::Something, Ok(answer)) => find(&Answer::id(answer)?),
        (Creates::Something | Creates::Nothing | Creates::With(_), _) => None,
    };
    if let Some(place) = known.or_else(made) {
        let result = match &done {
            Ok(_) => "ok".into(),
            Err(error) => error.kind().to_string(),
        };
        place.note(
            Happening::Operation {
                operation: O::PATH.join(" "),
                caller: caller.as_str().into(),
                what: what.map(|what| event_log::shown(&what)),
                result,
                duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
            O::EFFECT != Effect::Reads,
        );
    }
    done
}
