//! Operations on a workspace's secrets. None of them tells a value.

mod delete;
mod list;
mod set;

pub use delete::{SecretDelete, SecretDeleteAnswer};
pub use list::{ListedSecret, SecretList, SecretListAnswer};
pub use set::{SecretSet, SecretSetAnswer};

use crate::Context;
use crate::event::Event;
use crate::secret::{SecretName, SecretValue};

/// Says that a value is not left out of what is told, if it is not.
pub(super) async fn warn_of_short(name: &SecretName, value: &SecretValue, context: &Context) {
    if let Some(warning) = value.warning() {
        context.events.emit(Event::Warning(format!("secret {name}: {warning}"))).await;
    }
}
