//! What was promised, against what is there now.

use serde_json::{Map, Value};

/// Who gives a value that a schema describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Giver {
    /// The caller: what was taken is still taken.
    Caller,
    /// pyro: what was answered is still answered.
    Pyro,
}

/// What is promised in the first and not kept in the second, each named by where
/// it stands.
pub fn broken(frozen: &Value, now: &Value) -> Vec<String> {
    let mut all = Breaches(Vec::new());
    for (path, was) in fields(&frozen["commands"]) {
        let at = format!("commands.{path}");
        if let Some(is) = all.still(&at, &now["commands"], path) {
            all.command(&at, was, is);
        }
    }
    for (path, was) in fields(&frozen["operations"]) {
        let at = format!("operations.{path}");
        let Some(is) = all.still(&at, &now["operations"], path) else { continue };
        // What was no tool may become one.
        if !was["tool"].is_null() {
            all.same(&format!("{at}.tool"), &was["tool"], &is["tool"]);
        }
        all.same(&format!("{at}.effect"), &was["effect"], &is["effect"]);
        let sides = [("arguments", Giver::Caller), ("answer", Giver::Pyro)];
        for (side, giver) in sides {
            all.schema(&format!("{at}.{side}"), &was[side], &is[side], giver);
        }
    }
    for part in ["errors", "profiles_with_every_tool"] {
        for (name, was) in fields(&frozen[part]) {
            let at = format!("{part}.{name}");
            if let Some(is) = all.still(&at, &now[part], name) {
                all.same(&at, was, is);
            }
        }
    }
    all.0
}

struct Breaches(Vec<String>);

impl Breaches {
    fn add(&mut self, at: &str, what: impl std::fmt::Display) {
        self.0.push(format!("{at}: {what}"));
    }

    fn still<'v>(&mut self, at: &str, now: &'v Value, name: &str) -> Option<&'v Value> {
        let found = now.get(name);
        if found.is_none() {
            self.add(at, "it is gone");
        }
        found
    }

    fn same(&mut self, at: &str, was: &Value, is: &Value) {
        if was != is {
            self.add(at, format_args!("it was {was} and is {is}"));
        }
    }

    fn command(&mut self, at: &str, was: &Value, is: &Value) {
        let (before, after) = (items(&was["positionals"]), items(&is["positionals"]));
        let kept = before.iter().zip(after).all(|(was, is)| {
            was["many"] == is["many"] && (was["required"] == true || is["required"] == false)
        });
        let added = after.iter().skip(before.len());
        if before.len() > after.len() || !kept || added.clone().any(|new| new["required"] == true) {
            let at = format!("{at}.positionals");
            self.add(&at, format_args!("{} became {}", was["positionals"], is["positionals"]));
        }
        for (name, was) in fields(&was["options"]) {
            let at = format!("{at} {name}");
            let Some(is) = self.still(&at, &is["options"], name) else { continue };
            for key in ["takes_value", "default"] {
                self.same(&format!("{at}.{key}"), &was[key], &is[key]);
            }
            if !was["short"].is_null() {
                self.same(&format!("{at}.short"), &was["short"], &is["short"]);
            }
            if (was["many"] == true && is["many"] == false)
                || (was["required"] == false && is["required"] == true)
            {
                self.add(&at, format_args!("{was} became {is}"));
            }
        }
        for (name, new) in fields(&is["options"]) {
            if was["options"].get(name).is_none() && new["required"] == true {
                self.add(&format!("{at} {name}"), "it is new and required");
            }
        }
    }

    fn schema(&mut self, at: &str, was: &Value, is: &Value, giver: Giver) {
        if was == is {
            return;
        }
        let (before, after) = (alternatives(was), alternatives(is));
        if before.len() > 1 || after.len() > 1 {
            // Each of what may come has to be one of what was expected.
            let (coming, expected) = match giver {
                Giver::Caller => (&before, &after),
                Giver::Pyro => (&after, &before),
            };
            for one in coming {
                let fits = expected.iter().any(|other| {
                    let (was, is) =
                        if giver == Giver::Caller { (*one, *other) } else { (*other, *one) };
                    let mut tried = Breaches(Vec::new());
                    tried.schema(at, was, is, giver);
                    tried.0.is_empty()
                });
                if !fits {
                    self.add(at, format_args!("{one} is not one of {}", shown(expected)));
                }
            }
            if giver == Giver::Caller {
                self.same(&format!("{at}.default"), &was["default"], &is["default"]);
            }
            return;
        }
        self.same(&format!("{at}.type"), &was["type"], &is["type"]);
        self.words(at, was, is);
        self.properties(at, was, is, giver);
        self.schema_of(at, "items", was, is, giver);
        self.schema_of(at, "additionalProperties", was, is, giver);
        if giver == Giver::Caller {
            self.limits(at, was, is);
        }
    }

    fn schema_of(&mut self, at: &str, key: &str, was: &Value, is: &Value, giver: Giver) {
        if was[key].is_object() && is[key].is_object() {
            self.schema(&format!("{at}.{key}"), &was[key], &is[key], giver);
        } else if was[key].is_object() {
            self.add(&format!("{at}.{key}"), "it is no schema any more");
        }
    }

    /// A choice of words grows, also that of an answer.
    fn words(&mut self, at: &str, was: &Value, is: &Value) {
        let after = words(is);
        let Some(before) = words(was) else {
            if after.is_some() {
                self.add(&format!("{at}.enum"), "it is new");
            }
            return;
        };
        let Some(after) = after else { return };
        for word in before.iter().filter(|word| !after.contains(word)) {
            self.add(&format!("{at}.enum"), format_args!("{word} is gone"));
        }
    }

    fn properties(&mut self, at: &str, was: &Value, is: &Value, giver: Giver) {
        for (name, was) in fields(&was["properties"]) {
            let at = format!("{at}.{name}");
            if let Some(is) = self.still(&at, &is["properties"], name) {
                self.schema(&at, was, is, giver);
            }
        }
        let (before, after) = (items(&was["required"]), items(&is["required"]));
        let (must, may) = match giver {
            Giver::Caller => (after, before),
            Giver::Pyro => (before, after),
        };
        let strangers = must.iter().filter(|name| !may.contains(name)).filter(|name| {
            // What is gone altogether is told of already.
            let name = name.as_str().unwrap_or_default();
            giver == Giver::Caller || is["properties"].get(name).is_some()
        });
        for name in strangers {
            let what =
                if giver == Giver::Caller { "is required now" } else { "may be missing now" };
            self.add(&format!("{at}.required"), format_args!("{name} {what}"));
        }
    }

    /// What a caller may give is no less than it was.
    fn limits(&mut self, at: &str, was: &Value, is: &Value) {
        const LOWER: &[&str] = &["minimum", "minLength", "minItems", "minProperties"];
        const UPPER: &[&str] = &["maximum", "maxLength", "maxItems", "maxProperties"];
        for key in LOWER.iter().chain(UPPER) {
            let stricter = match (was[*key].as_f64(), is[*key].as_f64()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(was), Some(is)) if LOWER.contains(key) => is > was,
                (Some(was), Some(is)) => is < was,
            };
            if stricter {
                let (was, is) = (&was[*key], &is[*key]);
                self.add(&format!("{at}.{key}"), format_args!("{was} became {is}"));
            }
        }
        if !is["pattern"].is_null() {
            self.same(&format!("{at}.pattern"), &was["pattern"], &is["pattern"]);
        }
        self.same(&format!("{at}.default"), &was["default"], &is["default"]);
    }
}

/// The schemas of which one holds; one alone is the only one.
fn alternatives(schema: &Value) -> Vec<&Value> {
    for key in ["anyOf", "oneOf"] {
        if let Some(alternatives) = schema[key].as_array() {
            return alternatives.iter().collect();
        }
    }
    vec![schema]
}

fn words(schema: &Value) -> Option<Vec<&Value>> {
    let word = schema.get("const").map(|word| vec![word]);
    word.or_else(|| schema["enum"].as_array().map(|words| words.iter().collect()))
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn shown(schemas: &[&Value]) -> String {
    schemas.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
