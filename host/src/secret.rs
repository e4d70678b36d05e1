//! Secrets of a workspace: what a program in it may know and nobody else is told.
//!
//! On the host their values lie sealed, each for itself, in the workspace's
//! directory ([`store`]); the key is the user's and lies elsewhere ([`key`]). In
//! the guest they are files in memory, which the supervisor puts there whenever
//! the guest comes up, and variables of the programs that ask for them. What
//! comes back from the guest passes a [`Redactor`] before it is told or written
//! down.

pub mod key;
pub mod redact;
pub mod store;

mod name;
mod value;
mod variable;

pub use name::{BadName, SecretName};
pub use redact::Redactor;
pub use store::{Listed, SecretStore, Secrets};
pub use value::{BadValue, SecretValue, VALUE_MAX};
pub use variable::SecretVariable;
