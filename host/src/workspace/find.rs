//! From what a caller calls a workspace to where it is.

use super::place::Place;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;

/// The least that a prefix of an id may be.
const PREFIX_MIN: usize = 2;

/// How many candidates an error names.
const CANDIDATES_SHOWN: usize = 5;

/// The workspace that is meant: by its id, else its name, else a prefix of its
/// id that no other shares. Only the last two read other workspaces' records,
/// and a damaged one is in nobody's way.
///
/// # Errors
/// `NotFound`, and `Conflict` when several are meant.
pub fn find(config: &Config, reference: &str) -> Result<Place> {
    if let Ok(id) = reference.parse::<WorkspaceId>() {
        let place = Place::of(config, id);
        if place.is_there() {
            return Ok(place);
        }
    }
    let places = Place::all(config)?;
    let named = places.iter().filter(|place| {
        place.record().is_ok_and(|record| record.name.as_deref() == Some(reference))
    });
    let mut found: Vec<_> = named.collect();
    if found.is_empty() && reference.len() >= PREFIX_MIN {
        let begins = |place: &&Place| place.id().to_string().starts_with(reference);
        found = places.iter().filter(begins).collect();
    }
    match found[..] {
        [place] => Ok(place.clone()),
        [] => Err(Error::new(ErrorKind::NotFound, format!("there is no workspace {reference:?}"))
            .hint("`pyro workspace list` shows those there are")),
        _ => {
            let mut ids: Vec<_> = found.iter().map(|place| place.id().to_string()).collect();
            ids.sort_unstable();
            let count = ids.len();
            ids.truncate(CANDIDATES_SHOWN);
            let more = if count > ids.len() { ", ..." } else { "" };
            let message =
                format!("{count} workspaces are called {reference:?}: {}{more}", ids.join(", "));
            Err(Error::new(ErrorKind::Conflict, message).hint("use the whole id"))
        }
    }
}
