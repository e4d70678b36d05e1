use super::profile::{Answers, Offer};
use super::{Profile, outline};
use crate::operation::Effect;
use crate::operation::Entry;
use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The tools of a profile, each with the row of the table it is made from.
#[derive(Debug)]
pub struct Tools {
    table: &'static [Entry],
    offered: Vec<(Tool, &'static Entry)>,
}

impl Tools {
    /// The tools of a table that this profile offers.
    #[must_use]
    pub fn of(table: &'static [Entry], profile: &Profile) -> Self {
        let offered = table.iter().filter_map(|entry| {
            let offer = profile.offer(entry.tool?)?;
            Some((tool(offer, entry, profile.answers), entry))
        });
        Self { table, offered: offered.collect() }
    }

    /// As `tools/list` tells them.
    #[must_use]
    pub fn list(&self) -> Vec<Tool> {
        self.offered.iter().map(|(tool, _)| tool.clone()).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<&'static Entry> {
        self.offered.iter().find(|(tool, _)| tool.name == name).map(|(_, entry)| *entry)
    }

    /// The operation that words of the command line ask for, and the words after
    /// its path.
    pub(super) fn of_words<'w>(&self, words: &'w [&'w str]) -> Option<(&Entry, &'w [&'w str])> {
        let mut rows = self.table.iter();
        rows.find_map(|entry| Some((entry, words.strip_prefix(entry.path)?)))
    }
}

fn tool(offer: Offer, entry: &Entry, answers: Answers) -> Tool {
    let mut arguments = entry.arguments_schema();
    // The tool itself says it.
    arguments.remove("description");
    if let Some(Value::Object(properties)) = arguments.get_mut("properties") {
        properties.retain(|name, _| !offer.without.contains(&name.as_str()));
    }
    let answer: Map<_, _> = match answers {
        Answers::Typed => outline::typed(entry.answer_schema()),
        Answers::Named => outline::named(entry.answer_schema()),
    };
    Tool::new(offer.tool, entry.description(), Arc::new(arguments))
        .with_title(title(entry.path))
        .with_raw_output_schema(Arc::new(answer))
        .with_annotations(annotations(entry))
}

/// The words of the command, as the beginning of a sentence.
fn title(path: &[&str]) -> String {
    let words = path.join(" ");
    let (first, rest) = words.split_at(words.len().min(1));
    first.to_uppercase() + rest
}

/// No tool reaches out of the machine it makes. What a client takes for granted
/// of a tool that only reads goes without saying.
fn annotations(entry: &Entry) -> ToolAnnotations {
    let annotations = ToolAnnotations::new().open_world(false);
    let annotations = match entry.effect {
        Effect::Reads => return annotations.read_only(true),
        Effect::Changes => annotations.read_only(false).destructive(false),
        Effect::Destroys => annotations.read_only(false).destructive(true),
    };
    if entry.repeatable { annotations.idempotent(true) } else { annotations }
}
