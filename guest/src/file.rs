//! The calls for files of the workspace. Each resolves its paths by
//! [`root::Root`], beneath the descriptor of the workspace's directory: whatever
//! symlinks there are and however they change meanwhile, nothing outside it is
//! reached.

mod delete;
mod draft;
mod edit;
pub(crate) mod fault;
mod list;
mod move_;
pub(crate) mod names;
mod read;
pub(crate) mod root;
mod search;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod walk;
mod write;

use crate::guest::Guest;
use crate::server::Connection;
use crate::work::{self, Stop};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::file::{
    FileDelete, FileEdit, FileList, FileMove, FileRead, FileReading, FileSearch, FileStat,
    FileWrite, FileWritten,
};
use pyro_protocol::{AgentError, Lost};
use root::{Root, Top};

/// The tree, if there is one.
pub(crate) fn root(guest: &Guest) -> Result<Root, AgentError> {
    let commits = guest.commits()?;
    match guest.inspected() {
        Some(top) => Root::open(Top::Whole, &top, commits),
        None => Root::open(Top::Workspace, &guest.directory(None), commits),
    }
}

/// Answers a call that is one piece of work on the tree.
macro_rules! answered {
    ($($(#[$doc:meta])* $name:ident($call:ident) by $work:path;)*) => {$(
        $(#[$doc])*
        pub(crate) async fn $name<R: Fetch, W: Carry>(
            guest: &Guest,
            call: $call,
            connection: &mut Connection<R, W>,
        ) -> Result<(), Lost> {
            let root = root(guest);
            work::answer(connection, move |cancel| $work(&root?, &call, cancel)).await
        }
    )*};
}

answered! {
    /// Answers `FileStat`.
    stat(FileStat) by status::run;
    /// Answers `FileList`.
    list(FileList) by list::run;
    /// Answers `FileEdit`.
    edit(FileEdit) by edit::run;
    /// Answers `FileDelete`.
    delete(FileDelete) by delete::run;
    /// Answers `FileMove`.
    move_(FileMove) by move_::run;
    /// Answers `FileSearch`.
    search(FileSearch) by search::run;
}

/// Answers `FileRead`: the reply, the bytes, the end.
pub(crate) async fn read<R: Fetch, W: Carry>(
    guest: &Guest,
    call: FileRead,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let root = root(guest);
    let opened = work::run(connection, move |_| Ok(read::open(&root?, &call)?)).await?;
    match opened {
        Err(error) => connection.reply::<FileReading>(Err(error)).await,
        Ok(file) => {
            connection.reply(Ok(file.reading())).await?;
            work::send(connection, move |outgoing, cancel| file.send(outgoing, cancel)).await
        }
    }
}

/// Answers `FileWrite`: takes the bytes, then replies.
pub(crate) async fn write<R: Fetch, W: Carry>(
    guest: &Guest,
    call: FileWrite,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let root = root(guest);
    let written: Result<FileWritten, AgentError> =
        work::receive(connection, move |content, _| -> Result<_, Stop> {
            write::run(&root?, &call, content)
        })
        .await?;
    connection.reply(written).await
}
