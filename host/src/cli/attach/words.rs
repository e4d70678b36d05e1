//! How the words ask for it.

use super::{Asked, Target};
use crate::cli::terminal::{DETACH_KEYS, DetachKeys};
use crate::operation::argument::{PathInGuest, ShellRef, Variable, WorkspaceRef};
use crate::secret::SecretVariable;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Sit down at a new shell of a workspace, with this terminal
///
/// The shell ends with `exit`, and its exit code is the command's. The detach
/// keys leave it running; `pyro workspace shell attach` comes back to it.
#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
struct New {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    workspace: WorkspaceRef,
    /// Where to open it in the guest, `/workspace` if not given.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathInGuest>,
    /// Variables for it, on top of the guest's own; NAME alone passes on the
    /// caller's value.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<Variable>,
    /// Secrets of the workspace for it, each as a variable; NAME alone gives it
    /// its own name.
    #[arg(long, value_name = "NAME[=VARIABLE]")]
    secret_env: Vec<SecretVariable>,
    /// The guest's user to run it as, `USER[:GROUP]`; root if not given.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    leaving: Leaving,
    /// A program and its arguments instead of a shell, passed on exactly as they
    /// are.
    #[arg(last = true, value_name = "ARG")]
    argv: Vec<OsString>,
}

const NEW_EXAMPLES: &str = "\
Examples:
  pyro workspace attach fix-parser
  pyro workspace attach fix-parser --cwd src --detach-keys 'ctrl-],q'
  pyro workspace attach fix-parser -- python3

Exit codes: the shell's own; 0 detached, 125 pyro failed, 128+N told to leave by
signal N.";

/// Sit down at a shell of a workspace, with this terminal
///
/// Several may sit at one shell, and see the same. The shell has the size of the
/// terminal that came or changed last. The detach keys leave it running.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct There {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    workspace: WorkspaceRef,
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: ShellRef,
    #[command(flatten)]
    leaving: Leaving,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell attach fix-parser 3f2a9c0d1e4b";

#[derive(Debug, Args)]
struct Leaving {
    /// The keys that leave the shell running, one after the other.
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: DetachKeys,
}

/// `workspace attach`.
pub(in crate::cli) fn new_command() -> Command {
    New::augment_args(Command::new("attach"))
}

/// `workspace shell attach`.
pub(in crate::cli) fn command() -> Command {
    There::augment_args(Command::new("attach"))
}

/// What the words of `workspace attach` ask for.
///
/// # Errors
/// When words that passed the parser do not fit together.
pub(in crate::cli) fn new_asked(matches: &ArgMatches) -> Result<Asked, clap::Error> {
    let New { workspace, cwd, env, secret_env, user, leaving, argv } =
        New::from_arg_matches(matches)?;
    let argv = argv.into_iter().map(OsString::into_vec).collect();
    let cwd = cwd.map(|PathInGuest(path)| path);
    let target = Target::New { argv, cwd, env, secret_env, user };
    Ok(Asked { workspace, target, keys: leaving.detach_keys })
}

/// What the words of `workspace shell attach` ask for.
///
/// # Errors
/// As [`new_asked`].
pub(in crate::cli) fn asked(matches: &ArgMatches) -> Result<Asked, clap::Error> {
    let There { workspace, shell, leaving } = There::from_arg_matches(matches)?;
    Ok(Asked { workspace, target: Target::Shell(shell), keys: leaving.detach_keys })
}
