//! The one table of what can be asked of pyro.
//!
//! A row is a struct in a file of its own. Its fields are the arguments, its
//! doc comment is the help text, its [`Operation`] impl says where it stands
//! and what it does. The command line, the MCP server and the library all
//! derive from [`OPERATIONS`]; none of them knows any operation by name.

pub mod argument;
pub mod doctor;
pub mod environment;
pub mod run;

mod answer;
mod entry;
mod schema;

pub use crate::context::{Context, Input};
pub use answer::{Answer, AnyAnswer, Ink, Page};
pub use doctor::Doctor;
pub use entry::{Entry, Prepared};
pub use environment::{EnvBuild, EnvInspect, EnvList, EnvPrune};
pub use run::Run;

use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// Everything that can be asked, in the order in which help lists it.
pub const OPERATIONS: &[Entry] = &[
    Entry::of::<Run>(),
    Entry::of::<Doctor>(),
    Entry::of::<EnvList>(),
    Entry::of::<EnvInspect>(),
    Entry::of::<EnvBuild>(),
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
    /// Whether it carries the streams of a guest's program. Then the command
    /// line passes its own standard input in and the program's output out, and
    /// keeps the rendered answer to itself.
    const STREAMS: bool = false;
    /// What it answers.
    type Output: Answer;

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
    /// It takes something away for good.
    Destroys,
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
        operation.run(self, context).await
    }
}
