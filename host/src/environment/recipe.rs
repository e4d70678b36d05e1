//! What an environment is made from: images/environments/*.toml.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::oci::Reference;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The recipes that come with pyro.
const BUILT_IN: [(&str, &str); 3] = [
    ("debian-12-base.toml", include_str!("../../../images/environments/debian-12-base.toml")),
    ("debian-12.toml", include_str!("../../../images/environments/debian-12.toml")),
    ("debian-12-build.toml", include_str!("../../../images/environments/debian-12-build.toml")),
];

/// The longest name that is not a reference, so that file names stay short.
const NAME_MAX: usize = 64;

/// The longest name: a reference with a tag and a digest.
const REFERENCE_MAX: usize = 512;

/// An environment's name, such as `debian:12-build`: two words of lower-case
/// letters, digits, dots and dashes with a colon between, or one; or the reference
/// of an image, such as `ghcr.io/org/app:1.2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as people write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as files are called. No two names share one: a plain name has no
    /// `_`, and the stem of a reference begins with it.
    #[must_use]
    pub fn file_stem(&self) -> String {
        if is_plain(&self.0) {
            self.0.replace(':', "_")
        } else {
            format!("_{}", Digest::of(self.0.as_bytes()).hex())
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_reference = || text.len() <= REFERENCE_MAX && text.parse::<Reference>().is_ok();
        if is_plain(&text) || is_reference() {
            Ok(Self(text))
        } else {
            Err("an environment's name is like `debian:12`")
        }
    }
}

fn is_plain(text: &str) -> bool {
    let words = text.split(':').collect::<Vec<_>>();
    text.len() <= NAME_MAX && words.len() <= 2 && words.iter().all(|word| is_word(word))
}

/// A letter or digit, then letters, digits, dots, dashes and pluses: Debian's
/// rule for package names, and never a path, an option or two words.
fn is_word(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().next().is_some_and(letter)
        && text.bytes().all(|byte| letter(byte) || b".-+".contains(&byte))
}

/// The declaration of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What it is called.
    pub name: Name,
    /// What it is for, in one line.
    pub description: String,
    /// The distribution, such as `debian`.
    pub distribution: String,
    /// Its release, such as `12`.
    pub distribution_version: String,
    /// The archive's name of that release, such as `bookworm`.
    pub suite: String,
    /// The latest time that a file in the image has, in seconds since 1970.
    pub source_date_epoch: u64,
    /// The packages on top of the essential ones.
    pub packages: Vec<String>,
    /// What a program gets that does not ask for anything else.
    #[serde(default)]
    pub defaults: Defaults,
}

/// What a program in the guest gets that does not ask for anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The directory it starts in.
    pub cwd: String,
    /// The user it runs as.
    pub user: String,
    /// Its variables, on top of the guest's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What runs when no command is named: its first words.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// What runs when no command is named: the rest.
    #[serde(default)]
    pub cmd: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            cwd: "/workspace".into(),
            user: "root".into(),
            env: BTreeMap::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
        }
    }
}

impl Defaults {
    /// The variables with a caller's own, which go before them.
    #[must_use]
    pub fn with(&self, own: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let bytes = |text: &String| text.clone().into_bytes();
        let all = self.env.iter().map(|(name, value)| (bytes(name), bytes(value)));
        all.chain(own).collect()
    }

    /// The command that runs when none is named; `None` if it does not say.
    #[must_use]
    pub fn command(&self) -> Option<Vec<Vec<u8>>> {
        let words: Vec<_> = self.entrypoint.iter().chain(&self.cmd).collect();
        let argv = words.into_iter().map(|word| word.clone().into_bytes()).collect::<Vec<_>>();
        (!argv.is_empty()).then_some(argv)
    }
}

impl Recipe {
    /// Reads a recipe; `origin` names its file in errors.
    ///
    /// # Errors
    /// When it is not TOML, lacks a field, has one too many, or a name in it is
    /// none.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let wrong = |problem: String| {
            Error::new(ErrorKind::InvalidInput, format!("{origin} is no recipe: {problem}"))
        };
        let recipe: Self = toml::from_str(text).map_err(|error| wrong(error.message().into()))?;
        if !is_word(&recipe.suite) {
            return Err(wrong(format!("'{}' is no suite", recipe.suite)));
        }
        if let Some(odd) = recipe.packages.iter().find(|package| !is_word(package)) {
            return Err(wrong(format!("'{odd}' is no package")));
        }
        if !recipe.defaults.cwd.starts_with('/') {
            return Err(wrong(format!("the directory '{}' is not absolute", recipe.defaults.cwd)));
        }
        Ok(recipe)
    }

    /// The recipes that come with pyro, the smallest first.
    ///
    /// # Panics
    /// When one of them is wrong; a test sees to it that none is.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        BUILT_IN
            .iter()
            .map(|(origin, text)| Self::parse(origin, text).expect("a built-in recipe is right"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn the_built_in_recipes_are_right_and_distinct() {
        let recipes = Recipe::built_in();
        let names: Vec<_> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
        assert_eq!(names, ["debian:12-base", "debian:12", "debian:12-build"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let right = toml::to_string(&Recipe::built_in()[1]).expect("it is TOML");
        for (from, to, says) in [
            ("debian:12\"", "../12\"", "is like `debian:12`"),
            ("suite = \"", "suite = \"--", "no suite"),
            ("\"git\"", "\"git,vim\"", "no package"),
            ("packages", "pakages", "unknown field"),
            ("cwd = \"/", "cwd = \"", "not absolute"),
        ] {
            let error = Recipe::parse("x.toml", &right.replacen(from, to, 1)).expect_err(to);
            assert!(error.message().contains(says), "{}", error.message());
        }
    }

    prop_compose! {
        fn recipe()(
            name in "[a-z0-9][a-z0-9.-]{0,20}(:[a-z0-9][a-z0-9.-]{0,20})?",
            description: String,
            suite in "[a-z]{1,12}",
            source_date_epoch in 0..i64::MAX as u64,
            packages in prop::collection::vec("[a-z0-9][a-z0-9.+-]{1,12}", 0..8),
            cwd in "/[a-z/]{0,8}",
        ) -> Recipe {
            Recipe {
                name: Name::try_from(name).expect("a name"),
                description, suite, source_date_epoch, packages,
                distribution: "debian".into(),
                distribution_version: "12".into(),
                defaults: Defaults { cwd, ..Defaults::default() },
            }
        }
    }

    proptest! {
        #[test]
        fn a_recipe_survives_its_text(recipe in recipe()) {
            let text = toml::to_string(&recipe).expect("it is TOML");
            prop_assert_eq!(Recipe::parse("x.toml", &text).expect("it was one"), recipe);
        }

        #[test]
        fn a_file_stem_is_one_plain_component(text in "\\PC{0,80}|[a-z.:/_-]{0,8}") {
            let Ok(name) = Name::try_from(text) else { return Ok(()) };
            let stem = name.file_stem();
            let components: Vec<_> = Path::new(&stem).components().collect();
            prop_assert!(matches!(components.as_slice(), [Component::Normal(_)]), "{}", stem);
            prop_assert!(!stem.starts_with('.') && stem.len() <= 80);
            match stem.strip_prefix('_') {
                Some(hex) => prop_assert_eq!(hex, Digest::of(name.as_str().as_bytes()).hex()),
                None => prop_assert_eq!(stem.replace('_', ":"), name.as_str()),
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Recipe::parse("x.toml", &text);
        }
    }
}
