use serde::{Deserialize, Serialize};

/// What kind of thing went wrong in the guest, for programs to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AgentErrorKind {
    /// The call itself makes no sense.
    InvalidArgument,
    /// The call needs an activated guest, or one that is not yet activated.
    WrongState,
    /// The program to run is not there. It never ran.
    ProgramNotFound,
    /// The program to run is there and cannot be executed. It never ran.
    ProgramNotExecutable,
    /// The directory to run in is not there.
    DirectoryNotFound,
    /// The user to run as is not there.
    UserNotFound,
    /// The guest has no memory, disk, process or descriptor left.
    OutOfResources,
    /// The agent is too old for the call.
    Unsupported,
    /// The peer broke the protocol.
    Protocol,
    /// The guest's system refused.
    System,
    /// The file, directory or process that the call names is not there.
    NotFound,
    /// What the call would make is there already.
    AlreadyExists,
    /// What is there is not of the type that the call needs, such as a
    /// directory where a file is read.
    WrongFileType,
    /// The path leads out of the tree that the call is confined to.
    OutOfTree,
    /// What is there is not what the call builds on: a patch that does not
    /// apply, an edit whose text is not found.
    Conflict,
    /// More than the call's limit.
    TooLarge,
}

/// The most bytes of text in an [`AgentError`].
pub const MESSAGE_MAX: usize = 2 * 1024;

/// A call's failure as the agent tells it. The text comes from the guest and is
/// to be shown as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct AgentError {
    /// What to act on.
    pub kind: AgentErrorKind,
    /// What to read: one sentence that names the thing.
    pub message: String,
}

impl AgentError {
    /// Makes an error, its message cut to [`MESSAGE_MAX`] bytes.
    pub fn new(kind: AgentErrorKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        Self { kind, message }
    }
}
