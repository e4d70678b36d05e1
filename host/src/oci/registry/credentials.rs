//! What the user logs in with, from where `docker login` keeps it: the file
//! `config.json`, or a program that it names.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The largest file.
const FILE_MAX: u64 = 1 << 20;

/// The longest answer of a program.
const ANSWER_MAX: u64 = 64 << 10;

/// How long a program may take: it may have to ask a person.
const PROGRAM_MAX: Duration = Duration::from_secs(120);

/// By what Docker has kept its own registry's login from the beginning.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The user's name by which a program says that it gives a token.
const TOKEN_USER: &str = "<token>";

/// What the user logs in with. It is never shown.
pub enum Credentials {
    /// A name and a password.
    Login {
        /// The name.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token that tokens are asked for with.
    Identity(Zeroizing<String>),
    /// A token for the registry itself.
    Token(Zeroizing<String>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Login { .. } => "a login",
            Self::Identity(_) => "an identity",
            Self::Token(_) => "a token",
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Auth>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    #[serde(alias = "identityToken")]
    identitytoken: Option<Secret>,
    #[serde(alias = "registryToken")]
    registrytoken: Option<Secret>,
}

/// A text that is wiped when it is dropped.
#[derive(Default, Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// What a program answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(default)]
    username: String,
    secret: Secret,
}

/// What there is for a registry.
///
/// # Errors
/// When the file cannot be read or is damaged, or the program that it names does
/// not answer. What is in them is not told.
pub async fn find(config: &Config, registry: &str) -> Result<Option<Credentials>> {
    let Some(file) = &config.network.docker_config else { return Ok(None) };
    let Some(docker) = load(file)? else { return Ok(None) };
    let key = if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { registry };
    let helpers = docker.cred_helpers.unwrap_or_default();
    let helper = helpers.iter().find(|(name, _)| is_for(name, registry)).map(|(_, helper)| helper);
    if let Some(helper) = helper.or(docker.creds_store.as_ref()).filter(|name| !name.is_empty())
        && let Some(given) = ask(config, helper, key).await?
    {
        return Ok(Some(given));
    }
    let auths = docker.auths.unwrap_or_default();
    let exact = auths.get(key);
    let found = exact
        .or_else(|| auths.iter().find(|(name, _)| is_for(name, registry)).map(|(_, auth)| auth));
    match found {
        Some(auth) => read(auth).map_err(|()| damaged(file)),
        None => Ok(None),
    }
}

/// Whether a key of the file, which may be a URL, is for a registry.
fn is_for(key: &str, registry: &str) -> bool {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = key.split('/').next().unwrap_or_default();
    let hub = ["index.docker.io", "registry-1.docker.io"];
    host == registry || (registry == DOCKER_HUB && hub.contains(&host))
}

fn load(file: &Path) -> Result<Option<DockerConfig>> {
    let unreadable = |error| Error::io(format!("cannot read {}", file.display()), error);
    let opened = match std::fs::File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    let mut text = Zeroizing::new(Vec::new());
    opened.take(FILE_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_MAX {
        return Err(damaged(file));
    }
    // What the reader of JSON says of it may hold what is in it.
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("{}:{line}:{column} is not what Docker writes", file.display());
        Error::new(ErrorKind::InvalidInput, message).hint("mend it, or `docker login` anew")
    })
}

fn damaged(file: &Path) -> Error {
    let message = format!("{} is not what Docker writes", file.display());
    Error::new(ErrorKind::InvalidInput, message).hint("mend it, or `docker login` anew")
}

fn read(auth: &Auth) -> Result<Option<Credentials>, ()> {
    let filled = |text: &Option<Secret>| {
        text.as_ref().map(|Secret(text)| text.clone()).filter(|text| !text.is_empty())
    };
    if let Some(token) = filled(&auth.registrytoken) {
        return Ok(Some(Credentials::Token(token)));
    }
    if let Some(token) = filled(&auth.identitytoken) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let Some(auth) = filled(&auth.auth) {
        let encoded = auth.trim_end_matches('=');
        let pair = STANDARD_NO_PAD.decode(encoded).or_else(|_| STANDARD.decode(auth.as_bytes()));
        let pair = Zeroizing::new(pair.map_err(drop)?);
        let pair = std::str::from_utf8(&pair).map_err(drop)?;
        let (user, password) = pair.split_once(':').ok_or(())?;
        let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
        return Ok(Some(Credentials::Login { user: user.to_owned(), password }));
    }
    let Some(user) = auth.username.clone().filter(|user| !user.is_empty()) else {
        return Ok(None);
    };
    Ok(filled(&auth.password).map(|password| Credentials::Login { user, password }))
}

/// Asks a program that keeps logins; `None` when it has none.
async fn ask(config: &Config, helper: &str, key: &str) -> Result<Option<Credentials>> {
    let failed = |why: &str| {
        let message = format!("docker-credential-{helper} {why}");
        Error::new(ErrorKind::HostRequirement, message)
            .hint("Docker's config.json names it for this registry")
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !helper.bytes().all(is_name) {
        let message = "Docker's config.json names a program that cannot be";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let program = config
        .find_program(&format!("docker-credential-{helper}"))
        .ok_or_else(|| failed("is not on PATH"))?;
    let asking = async {
        let mut child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that has heard enough may have closed it.
            drop(stdin.write_all(key.as_bytes()).await);
        }
        let mut said = Zeroizing::new(Vec::new());
        if let Some(stdout) = child.stdout.take() {
            stdout.take(ANSWER_MAX).read_to_end(&mut said).await?;
        }
        Ok((child.wait().await?, said))
    };
    let asked = timeout(PROGRAM_MAX, asking).await.map_err(|_| failed("does not answer"))?;
    let (status, said) =
        asked.map_err(|error: std::io::Error| failed("cannot be run").because(error))?;
    if !status.success() {
        let unknown = std::str::from_utf8(&said).is_ok_and(|said| said.contains("not found"));
        return if unknown { Ok(None) } else { Err(failed("fails")) };
    }
    let given: Given = serde_json::from_slice(&said).map_err(|_| failed("answers nonsense"))?;
    let Given { username, secret: Secret(secret) } = given;
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match username.as_str() {
        TOKEN_USER => Credentials::Identity(secret),
        _ => Credentials::Login { user: username, password: secret },
    }))
}

#[cfg(test)]
mod tests;
