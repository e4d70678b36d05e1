//! A `StartProcess` call, checked and made ready for the kernel: nothing is
//! left to decide or to allocate after the fork.

use super::environment::{self, Environment};
use super::user::{NoUser, Tables, User};
use crate::guest::{Guest, Machine};
use pyro_protocol::process::StartProcess;
use pyro_protocol::{AgentError, AgentErrorKind, ByteString};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

/// What to run, and as whom.
pub(crate) struct Command {
    /// What to try to execute, in this order.
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    pub(super) cwd: CString,
    /// `None` is to stay who we are.
    pub(super) identity: Option<User>,
    pub(super) stdin: bool,
}

impl Command {
    /// The program as the caller named it, for errors.
    pub(super) fn program(&self) -> String {
        self.argv.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned())
    }
}

/// Checks a call.
pub(crate) fn prepare(guest: &Guest, call: StartProcess) -> Result<Command, AgentError> {
    let StartProcess { argv, cwd, env, user, stdin, timeout_ms: _ } = call;
    let user = find_user(guest, user.as_deref())?;
    let mut environment = Environment::defaults(&user);
    environment.merge(env).map_err(|error| invalid(error.to_string()))?;
    let Some(ByteString(program)) = argv.first() else {
        return Err(invalid("there is no program to run"));
    };
    let candidates = candidates(program, environment.get(b"PATH").unwrap_or_default())?;
    let argv = argv.into_iter().map(|ByteString(word)| word);
    Ok(Command {
        candidates,
        argv: argv.map(|word| c_string(word, "an argument")).collect::<Result<_, _>>()?,
        envp: environment.to_strings(),
        cwd: c_string(guest.directory(cwd.as_ref()).as_os_str().as_bytes(), "the directory")?,
        identity: is_another(&user).then_some(user),
        stdin,
    })
}

/// In a machine nobody is root. In process nobody is whoever runs it.
fn find_user(guest: &Guest, who: Option<&str>) -> Result<User, AgentError> {
    let tables = Tables::read().map_err(|error| {
        AgentError::new(AgentErrorKind::System, format!("the table of users: {error}"))
    })?;
    match (who, &guest.machine) {
        (Some(who), _) => tables.find(who).map_err(|error: NoUser| {
            AgentError::new(AgentErrorKind::UserNotFound, error.to_string())
        }),
        (None, Machine::Virtual { .. }) => Ok(tables.by_id(0)),
        (None, Machine::InProcess { .. }) => Ok(tables.by_id(rustix::process::geteuid().as_raw())),
    }
}

/// Root always takes the identity on, for its groups; an ordinary user cannot
/// take on any, and need not take on its own.
fn is_another(user: &User) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || own.as_raw() != user.uid || rustix::process::getegid().as_raw() != user.gid
}

/// Where a program may be: as it is if its name has a slash, otherwise in each
/// directory of the path, an empty one being the current one.
fn candidates(program: &[u8], path: &[u8]) -> Result<Vec<CString>, AgentError> {
    if program.contains(&b'/') {
        return Ok(vec![c_string(program, "the program")?]);
    }
    if program.is_empty() {
        return Ok(Vec::new());
    }
    let directories = path.split(|byte| *byte == b':').take(environment::PATH_ENTRIES_MAX);
    directories
        .map(|directory| match directory {
            b"" => c_string([b"./", program].concat(), "the program"),
            _ => c_string([directory, b"/", program].concat(), "the program"),
        })
        .collect()
}

fn c_string(bytes: impl Into<Vec<u8>>, what: &str) -> Result<CString, AgentError> {
    CString::new(bytes).map_err(|_| invalid(format!("{what} contains a NUL byte")))
}

fn invalid(text: impl Into<String>) -> AgentError {
    AgentError::new(AgentErrorKind::InvalidArgument, text)
}
