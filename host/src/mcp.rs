//! Stub.

use crate::{Pyro, Result};
use clap::{Arg, ArgMatches};

/// Which tools a server offers.
#[derive(Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Its tools; `None` is all there are.
    pub tools: Option<&'static [&'static str]>,
}

/// Every profile, the default first.
pub const PROFILES: &[Profile] = &[
    Profile { name: "workspace-full", tools: None },
    Profile { name: "vm-run", tools: Some(&["vm_run"]) },
];

impl Profile {
    /// The argument that chooses one.
    #[must_use]
    pub fn arg() -> Arg {
        Arg::new("profile")
            .long("profile")
            .value_name("PROFILE")
            .help("Which tools to offer")
            .value_parser(PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>())
            .default_value(PROFILES[0].name)
    }

    /// The one that was chosen.
    #[must_use]
    pub fn of(matches: &ArgMatches) -> &'static Self {
        let name = matches.get_one::<String>("profile").map(String::as_str).unwrap_or_default();
        PROFILES.iter().find(|profile| profile.name == name).unwrap_or(&PROFILES[0])
    }
}

/// Serves.
///
/// # Errors
/// Never, in this stub.
pub async fn serve<S>(
    _pyro: Pyro,
    _profile: &'static Profile,
    _stop: impl Future<Output = S>,
) -> Result<Option<S>> {
    Ok(None)
}
