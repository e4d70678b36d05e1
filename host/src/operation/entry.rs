//! A row of the table: an operation with its type erased.

use super::{AnyAnswer, Creates, Effect, Operation, Streams, schema};
use crate::{Context, Error, ErrorKind, Pyro, Result};
use clap::ArgMatches;
use clap::parser::ValueSource;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

/// An operation whose arguments are known and checked.
pub type Prepared =
    Box<dyn for<'a> FnOnce(&'a Pyro, Context) -> BoxFuture<'a, Result<Box<dyn AnyAnswer>>> + Send>;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// See [`Operation::PATH`].
    pub path: &'static [&'static str],
    /// See [`Operation::TOOL`].
    pub tool: Option<&'static str>,
    /// See [`Operation::EFFECT`].
    pub effect: Effect,
    /// See [`Operation::STREAMS`].
    pub streams: Streams,
    /// See [`Operation::CREATES`].
    pub creates: Creates,
    /// See [`Operation::REPEATABLE`].
    pub repeatable: bool,
    augment_args: fn(clap::Command) -> clap::Command,
    from_arg_matches: fn(&mut ArgMatches) -> Result<Prepared, clap::Error>,
    from_value: fn(Value) -> Result<Prepared, Misfit>,
    arguments: fn() -> Map<String, Value>,
    answer: fn() -> Map<String, Value>,
}

type Misfit = serde_path_to_error::Error<serde_json::Error>;

impl Entry {
    /// The row of this operation.
    #[must_use]
    pub const fn of<O: Operation>() -> Self {
        Self {
            path: O::PATH,
            tool: O::TOOL,
            effect: O::EFFECT,
            streams: O::STREAMS,
            creates: O::CREATES,
            repeatable: O::REPEATABLE,
            augment_args: O::augment_args,
            from_arg_matches: |matches| O::from_arg_matches_mut(matches).map(prepare),
            from_value: |value| serde_path_to_error::deserialize::<_, O>(value).map(prepare),
            arguments: schema::of_arguments::<O>,
            answer: schema::of_answer::<O::Output>,
        }
    }

    /// Its arguments and help, added to a command.
    #[must_use]
    pub fn augment_args(&self, command: clap::Command) -> clap::Command {
        (self.augment_args)(command)
    }

    /// The operation that the command line's words ask for.
    ///
    /// # Errors
    /// When words that passed the parser do not fit together.
    pub fn from_arg_matches(&self, matches: &mut ArgMatches) -> Result<Prepared, clap::Error> {
        (self.from_arg_matches)(matches)
    }

    /// The arguments as JSON that words of the command line stand for, as far as
    /// they are text, numbers and switches; `None` when the parser does not take
    /// the words.
    #[must_use]
    pub fn arguments_of_words(&self, words: &[&str]) -> Option<Map<String, Value>> {
        let command = self.augment_args(clap::Command::new("").no_binary_name(true));
        let matches = command.try_get_matches_from(words).ok()?;
        let schema = self.arguments_schema();
        let given = schema.get("properties")?.as_object()?.iter().filter_map(|(name, property)| {
            let source = matches.try_contains_id(name).ok().and(matches.value_source(name));
            let raw = matches.try_get_raw(name).ok()??.next()?.to_str()?;
            (source == Some(ValueSource::CommandLine))
                .then(|| spelled_in_json(property, raw))?
                .map(|value| (name.clone(), value))
        });
        Some(given.collect())
    }

    /// The argument that an option such as `--mem-mib` gives.
    #[must_use]
    pub fn argument_of_option(&self, option: &str) -> Option<String> {
        let long = option.strip_prefix("--")?;
        let command = self.augment_args(clap::Command::new(""));
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(long));
        argument.map(|argument| argument.get_id().to_string())
    }

    /// The operation that a JSON object asks for.
    ///
    /// # Errors
    /// `InvalidInput`, naming the argument that is unknown, missing or wrong.
    pub fn from_object(&self, object: Map<String, Value>) -> Result<Prepared> {
        let schema = self.arguments_schema();
        let known: Vec<&str> = match schema.get("properties") {
            Some(Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let missing = required.filter_map(Value::as_str).find(|name| !object.contains_key(*name));
        let complaint = match object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(stranger) => Some(format!("there is no argument `{stranger}`")),
            None => missing.map(|name| format!("the argument `{name}` is missing")),
        };
        if let Some(complaint) = complaint {
            return Err(Error::new(ErrorKind::InvalidInput, complaint)
                .hint(format!("the arguments are {}", known.join(", "))));
        }
        (self.from_value)(Value::Object(object)).map_err(|misfit| {
            let message = format!("argument `{}`: {}", misfit.path(), misfit.inner());
            Error::new(ErrorKind::InvalidInput, message)
                .hint("the input schema says what each argument may be")
        })
    }

    /// The schema of its arguments, always of one closed object.
    #[must_use]
    pub fn arguments_schema(&self) -> Map<String, Value> {
        (self.arguments)()
    }

    /// The schema of its answer.
    #[must_use]
    pub fn answer_schema(&self) -> Map<String, Value> {
        (self.answer)()
    }

    /// What it does, as its doc comment tells.
    #[must_use]
    pub fn description(&self) -> String {
        let schema = self.arguments_schema();
        schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// A word as a value of the type that a schema wants.
fn spelled_in_json(schema: &Value, word: &str) -> Option<Value> {
    match schema["type"].as_str()? {
        "string" => Some(word.into()),
        "boolean" | "integer" => serde_json::from_str(word).ok(),
        _ => None,
    }
}

fn prepare<O: Operation>(operation: O) -> Prepared {
    Box::new(move |pyro, context| {
        Box::pin(async move {
            let answer = super::perform(operation, pyro, context).await?;
            Ok(Box::new(answer) as Box<dyn AnyAnswer>)
        })
    })
}
