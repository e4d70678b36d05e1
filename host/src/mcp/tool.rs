use super::Profile;
use crate::operation::{Effect, Entry};
use rmcp::model::{Tool, ToolAnnotations};
use std::sync::Arc;

/// The tools of a profile, each with the row of the table it is made from.
#[derive(Debug)]
pub struct Tools(Vec<(Tool, &'static Entry)>);

impl Tools {
    /// The tools of a table that this profile offers.
    #[must_use]
    pub fn of(table: &'static [Entry], profile: &Profile) -> Self {
        let tools = table.iter().filter_map(|entry| {
            let name = entry.tool.filter(|name| profile.offers(name))?;
            Some((tool(name, entry), entry))
        });
        Self(tools.collect())
    }

    /// As `tools/list` tells them.
    #[must_use]
    pub fn list(&self) -> Vec<Tool> {
        self.0.iter().map(|(tool, _)| tool.clone()).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<&'static Entry> {
        self.0.iter().find(|(tool, _)| tool.name == name).map(|(_, entry)| *entry)
    }
}

fn tool(name: &'static str, entry: &Entry) -> Tool {
    let mut arguments = entry.arguments_schema();
    // The tool itself says it.
    arguments.remove("description");
    let mut answer = entry.answer_schema();
    answer.remove("description");
    Tool::new(name, entry.description(), Arc::new(arguments))
        .with_raw_output_schema(Arc::new(answer))
        .with_annotations(annotations(entry.effect))
}

/// No tool reaches out of the machine it makes.
fn annotations(effect: Effect) -> ToolAnnotations {
    let annotations = ToolAnnotations::new().open_world(false);
    match effect {
        Effect::Reads => annotations.read_only(true),
        Effect::Changes => annotations.read_only(false).destructive(false),
        Effect::Destroys => annotations.read_only(false).destructive(true),
    }
}
