use super::WorkspaceRef;
use crate::workspace::snapshot::{BadSnapshotName, SnapshotRef};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A workspace to begin with, as it is or as it was: `WORKSPACE` or
/// `WORKSPACE@SNAPSHOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkOf {
    /// The workspace.
    pub workspace: WorkspaceRef,
    /// What it was; as it is now if not said.
    pub snapshot: Option<SnapshotRef>,
}

/// A text that says no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoForkOf {
    /// No workspace is named.
    #[error("a workspace's id or name is needed, such as `fix-parser` or `fix-parser@tested`")]
    Nameless,
    /// What is behind the `@` is no snapshot's name.
    #[error(transparent)]
    Snapshot(#[from] BadSnapshotName),
}

impl FromStr for ForkOf {
    type Err = NoForkOf;

    fn from_str(text: &str) -> Result<Self, NoForkOf> {
        // No name of a workspace has an `@`.
        let (workspace, snapshot) = match text.split_once('@') {
            None => (text, None),
            Some((workspace, snapshot)) => (workspace, Some(snapshot.parse()?)),
        };
        let workspace = workspace.parse().map_err(|_| NoForkOf::Nameless)?;
        Ok(Self { workspace, snapshot })
    }
}

impl fmt::Display for ForkOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            None => write!(f, "{}", self.workspace),
            Some(snapshot) => write!(f, "{}@{snapshot}", self.workspace),
        }
    }
}

impl<'de> Deserialize<'de> for ForkOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ForkOf {
    fn schema_name() -> Cow<'static, str> {
        "ForkOf".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_as_it_is_or_as_it_was() {
        let parsed = |text: &str| text.parse::<ForkOf>();
        let as_it_is = parsed("fix-parser").expect("a workspace");
        assert_eq!((as_it_is.workspace.as_str(), as_it_is.snapshot), ("fix-parser", None));
        let baseline = parsed("ab12@baseline").expect("its seed");
        assert_eq!(baseline.snapshot, Some(SnapshotRef::Baseline));
        assert_eq!(parsed("a@v1.2").expect("a snapshot").to_string(), "a@v1.2");
        assert_eq!(parsed(""), Err(NoForkOf::Nameless));
        assert_eq!(parsed("@tested"), Err(NoForkOf::Nameless));
        for bad in ["a@", "a@b@c", "a@../b"] {
            assert!(matches!(parsed(bad), Err(NoForkOf::Snapshot(_))), "{bad}");
        }
    }
}
