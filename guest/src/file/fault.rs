//! What the kernel refuses, as errors that name the path.

use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::io::Errno;
use std::fmt::Display;

/// A system call on a path that was refused.
pub(crate) fn refused(path: impl Display, errno: Errno) -> AgentError {
    let kind = match errno {
        Errno::NOENT => AgentErrorKind::NotFound,
        Errno::EXIST => AgentErrorKind::AlreadyExists,
        Errno::XDEV => return out_of_tree(path),
        Errno::NOTDIR | Errno::ISDIR | Errno::NXIO => AgentErrorKind::WrongFileType,
        Errno::NOTEMPTY => AgentErrorKind::Conflict,
        Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::MLINK => {
            AgentErrorKind::OutOfResources
        }
        Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => AgentErrorKind::InvalidArgument,
        Errno::FBIG => AgentErrorKind::TooLarge,
        _ => AgentErrorKind::System,
    };
    AgentError::new(kind, format!("{path}: {}", reason(errno)))
}

/// The same with the error as the standard library has it.
pub(crate) fn refused_io(path: impl Display, error: &std::io::Error) -> AgentError {
    match Errno::from_io_error(error) {
        Some(errno) => refused(path, errno),
        None => AgentError::new(AgentErrorKind::System, format!("{path}: {error}")),
    }
}

/// A path that leads out of the workspace.
pub(crate) fn out_of_tree(path: impl Display) -> AgentError {
    AgentError::new(AgentErrorKind::OutOfTree, format!("{path} leads out of /workspace"))
}

/// A call that makes no sense.
pub(crate) fn invalid(text: impl Into<String>) -> AgentError {
    AgentError::new(AgentErrorKind::InvalidArgument, text)
}

/// Something that is of another type than the call needs.
pub(crate) fn wrong_type(text: impl Into<String>) -> AgentError {
    AgentError::new(AgentErrorKind::WrongFileType, text)
}

fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "no such file or directory",
        Errno::EXIST => "something is there already",
        Errno::NOTDIR => "a part of the path is not a directory",
        Errno::ISDIR => "it is a directory",
        Errno::NOTEMPTY => "the directory is not empty",
        Errno::NOSPC | Errno::DQUOT => "the workspace's disk is full",
        Errno::NOMEM => "the guest has no memory left",
        Errno::MFILE | Errno::NFILE => "too many files are open",
        Errno::LOOP => "too many symbolic links",
        Errno::NAMETOOLONG => "the name is too long",
        Errno::ROFS => "the file system is read-only",
        Errno::ACCESS | Errno::PERM => "permission denied",
        Errno::NXIO => "it is a socket or a device without a driver",
        Errno::IO => "the disk failed",
        Errno::BUSY => "it is in use",
        Errno::TXTBSY => "it is being executed",
        Errno::INVAL => "the kernel takes no such request",
        _ => "the guest's system refused",
    }
}
