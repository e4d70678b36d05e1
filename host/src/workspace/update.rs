//! Changing what is written down of a workspace.

use super::create::refuse_taken_name;
use super::label;
use super::place::Place;
use super::record::{Record, Ttl, TtlAction};
use crate::error::{Error, ErrorKind, Result};
use crate::pyro::Pyro;
use crate::supervisor::control::give;
use crate::supervisor::order::ReadTtl;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a supervisor may take to hear of a new time to live.
const RENEWAL_DEADLINE: Duration = Duration::from_secs(5);

/// What is to be different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Another name, or none.
    pub name: Option<Option<String>>,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Keys of labels to take away.
    pub clear_labels: Vec<String>,
    /// Another time to live, in seconds from now, or none.
    pub ttl: Option<Option<u32>>,
    /// What happens then.
    pub ttl_action: Option<TtlAction>,
}

/// Changes what is written down; a running workspace goes on.
///
/// # Errors
/// `InvalidInput` when nothing is to be changed or what is asked for cannot be,
/// `Conflict` when the name is another's.
pub async fn update(pyro: &Pyro, place: &Place, changes: Changes) -> Result<Record> {
    if changes == Changes::default() {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing is to be changed")
            .hint("name what to change, such as `--label KEY=VALUE`"));
    }
    if let Some(Some(name)) = &changes.name {
        label::check_name(name)?;
        let keeps = place.record()?.name.as_ref() == Some(name);
        refuse_taken_name(pyro, (!keeps).then_some(name))?;
    }
    let times = changes.ttl.is_some() || changes.ttl_action.is_some();
    let record = place.change(|record| changes.apply(record)).await?;
    if times {
        // One that does not run, or comes up, reads it when it starts.
        give(ReadTtl, place.path(), RENEWAL_DEADLINE).await?;
    }
    Ok(record)
}

impl Changes {
    fn apply(self, record: &mut Record) -> Result<()> {
        if let Some(name) = self.name {
            record.name = name;
        }
        for key in self.clear_labels {
            if record.labels.remove(&key).is_none() {
                let message = format!("workspace {} has no label {key:?}", record.workspace_id);
                let hint =
                    format!("`pyro workspace status {}` shows those it has", record.workspace_id);
                return Err(Error::new(ErrorKind::NotFound, message).hint(hint));
            }
        }
        record.labels.extend(self.labels);
        label::check_labels(&record.labels)?;
        match (self.ttl, self.ttl_action, &mut record.ttl) {
            (None, None, _) => {}
            (Some(None), _, ttl) => *ttl = None,
            (Some(Some(seconds)), action, ttl) => {
                let action = action.or(ttl.map(|ttl| ttl.action)).unwrap_or_default();
                *ttl = Some(Ttl::from_now(seconds, action));
            }
            (None, Some(action), Some(ttl)) => ttl.action = action,
            (None, Some(_), None) => {
                let message = format!("workspace {} has no time to live", record.workspace_id);
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .hint("give it one with `--ttl-seconds N`"));
            }
        }
        Ok(())
    }
}
