//! Operations on workspaces.

mod create;
mod delete;
mod events;
mod list;
mod reset;
mod start;
mod status;
mod stop;
mod summary;
mod update;

pub use create::WorkspaceCreate;
pub use delete::{WorkspaceDelete, WorkspaceDeleted};
pub use events::{WorkspaceEvents, WorkspaceHistory};
pub use list::{WorkspaceList, WorkspaceListAnswer};
pub use reset::WorkspaceReset;
pub use start::WorkspaceStart;
pub use status::WorkspaceStatus;
pub use stop::WorkspaceStop;
pub use summary::WorkspaceSummary;
pub use update::WorkspaceUpdate;
