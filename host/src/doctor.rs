//! What this host can do, found out by trying.

mod checks;
mod trials;

use crate::vmm::Rung;
use crate::{Context, Error, ErrorKind, Pyro, Result, workspace};
use serde::Serialize;

/// What this host can do.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Report {
    /// How pyro runs guests; null when no guest boots.
    pub chosen: Option<Rung>,
    /// Every way to run a guest, the best first.
    pub vmms: Vec<Tried>,
    /// Everything else that was looked at.
    pub checks: Vec<Check>,
}

/// One way to run a guest.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Tried {
    /// As `--vmm` and `PYRO_VMM` take it.
    pub name: Rung,
    /// The VMM.
    pub vmm: String,
    /// What runs the guest's instructions: `kvm` or `tcg`.
    pub accelerator: String,
    /// What came of trying.
    #[serde(flatten)]
    pub trial: Trial,
}

/// What came of booting a guest.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Trial {
    /// A guest booted and its agent answered.
    Proven {
        /// From starting the VMM to the agent's answer, in milliseconds.
        boot_ms: u64,
    },
    /// No guest boots this way.
    Failed {
        /// Why not.
        reason: String,
        /// What to do about it, if anybody knows.
        next_step: Option<String>,
    },
    /// It was not tried.
    Skipped {
        /// Why not.
        reason: String,
    },
}

/// Something that was looked at.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Check {
    /// What, in a word or two.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it; null when nothing needs to be done.
    pub next_step: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not as good as it could be; pyro works all the same.
    Warning,
    /// In the way of what pyro does.
    Failed,
    /// Not looked at.
    Skipped,
}

impl Report {
    /// Whether a guest boots at all.
    #[must_use]
    pub fn can_boot(&self) -> bool {
        self.chosen.is_some()
    }

    /// Whether no way to run a guest was tried at all.
    #[must_use]
    pub fn untried(&self) -> bool {
        self.vmms.iter().all(|one| matches!(one.trial, Trial::Skipped { .. }))
    }
}

/// Looks at everything and tries every way to run a guest. Whatever is broken
/// becomes a line of the report, never an error.
///
/// # Errors
/// `Cancelled`, and nothing else.
pub async fn examine(pyro: &Pyro, context: Context) -> Result<Report> {
    let mut checks = checks::all(pyro);
    let Context { events, cancel, .. } = context;
    let (vmms, confinement) = trials::all(pyro, &events, &cancel).await;
    if cancel.is_cancelled() {
        return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
    }
    checks.extend(confinement);
    let chosen = match workspace::choose(pyro) {
        // What runs will use counts, and only if a guest booted with it.
        Ok(wanted) => vmms
            .iter()
            .find(|one| one.name == wanted)
            .filter(|one| matches!(one.trial, Trial::Proven { .. }))
            .map(|one| one.name),
        Err(error) => {
            checks.push(Check {
                name: "choosing a VMM".into(),
                state: State::Failed,
                detail: error.chain(),
                next_step: error.next_step().map(str::to_owned),
            });
            None
        }
    };
    Ok(Report { chosen, vmms, checks })
}
