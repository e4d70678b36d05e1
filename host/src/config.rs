//! Where things are on this host. The only module that reads the environment.

mod agent;

pub use agent::AgentProgram;

use crate::error::{Error, ErrorKind, Result};
use etcetera::{BaseStrategy, base_strategy::Xdg};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The file that this process runs, wherever it is by now: also when it was
/// renamed, replaced or removed since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What the kernel adds to the name of a program that is no longer where it was.
const DELETED: &[u8] = b" (deleted)";

/// The agent that came with this program, if this program is `pyro`.
static THIS_IS_PYRO: OnceLock<&'static [u8]> = OnceLock::new();

/// Says that this program is `pyro` itself, whatever its file is called: it can
/// supervise workspaces. `agent` is the agent that was built into it, empty if
/// none was.
pub fn this_is_pyro(agent: &'static [u8]) {
    // Said twice, it is the same program.
    THIS_IS_PYRO.get_or_init(|| agent);
}

/// Every environment variable that pyro reads, and what it is for.
pub mod variables {
    /// One directory for everything pyro keeps; overrides the XDG directories.
    pub const PYRO_HOME: &str = "PYRO_HOME";
    /// The `qemu-system-x86_64` to use instead of the one on `PATH`.
    pub const PYRO_QEMU: &str = "PYRO_QEMU";
    /// The `firecracker` to use instead of the one that `pyro setup` fetched; its
    /// `jailer` lies beside it.
    pub const PYRO_FIRECRACKER: &str = "PYRO_FIRECRACKER";
    /// The static `pyro-agent` to bake into images instead of the one in `pyro`.
    pub const PYRO_AGENT: &str = "PYRO_AGENT";
    /// The `pyro` executable that supervises workspaces, for programs that use
    /// the library.
    pub const PYRO_EXECUTABLE: &str = "PYRO_EXECUTABLE";
    /// `tuned` or `stock`: boot this kernel instead of the best one there is.
    pub const PYRO_KERNEL: &str = "PYRO_KERNEL";
    /// `firecracker`, `qemu-kvm` or `qemu-tcg`: run guests this way instead of the
    /// best proven one. `--vmm` goes before it.
    pub const PYRO_VMM: &str = "PYRO_VMM";
    /// `off`: boot every guest's kernel instead of restoring a template. `--cold`
    /// does so once.
    pub const PYRO_TEMPLATES: &str = "PYRO_TEMPLATES";
    /// The DNS servers that resolve names for guests, `ADDRESS:PORT` with commas
    /// between them, instead of those of `/etc/resolv.conf`.
    pub const PYRO_RESOLVERS: &str = "PYRO_RESOLVERS";
    /// The proxy for `http://`. As with curl, only in lower case: a web server sets
    /// the other from what its client says.
    pub const HTTP_PROXY: &str = "http_proxy";
    /// The proxy for `https://`, in lower case or in upper.
    pub const HTTPS_PROXY: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
    /// The proxy where those say nothing, in lower case or in upper.
    pub const ALL_PROXY: [&str; 2] = ["all_proxy", "ALL_PROXY"];
    /// Hosts that are reached without a proxy, in lower case or in upper.
    pub const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];
    /// A file of the certificates to trust instead of the system's.
    pub const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
    /// A directory of such certificates.
    pub const SSL_CERT_DIR: &str = "SSL_CERT_DIR";
    /// Where Docker keeps its `config.json`, with what the user logs in to registries
    /// with, instead of `~/.docker`.
    pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
    /// Where Claude Code keeps its configuration, for `pyro mcp install`.
    pub const CLAUDE_CONFIG_DIR: &str = "CLAUDE_CONFIG_DIR";
    /// Where Codex keeps its configuration, for `pyro mcp install`.
    pub const CODEX_HOME: &str = "CODEX_HOME";
}

/// Where things are on this host.
#[derive(Debug, Clone)]
pub struct Config {
    /// What can be made again: kernels, images, facts about the host.
    pub cache_dir: PathBuf,
    /// What cannot: workspaces.
    pub state_dir: PathBuf,
    /// The user's settings, a TOML file that need not be there.
    pub settings: PathBuf,
    /// The QEMU to run, when the user named one.
    pub qemu: Option<PathBuf>,
    /// The Firecracker to run, when the user named one.
    pub firecracker: Option<PathBuf>,
    /// The agent to bake into images.
    pub agent: AgentProgram,
    /// The `pyro` executable that supervises workspaces.
    pub executable: PathBuf,
    /// The kernel to boot, when the user named one.
    pub kernel: Option<String>,
    /// How to run guests, when the user said so.
    pub vmm: Option<String>,
    /// Whether guests are restored from templates.
    pub templates: bool,
    /// `PATH`, to look programs up in.
    pub path: Vec<PathBuf>,
    /// How servers are reached.
    pub network: Network,
    /// Who resolves names for guests; the host's own servers if nobody is named.
    pub resolvers: Vec<SocketAddr>,
}

/// How servers are reached and whom to trust.
#[derive(Clone, Default)]
pub struct Network {
    /// The proxy for `http://`, a URL that may have a password in it.
    pub http_proxy: Option<String>,
    /// The proxy for `https://`, another such.
    pub https_proxy: Option<String>,
    /// Hosts, domains and networks that are reached without: `localhost,10.0.0.0/8`.
    pub no_proxy: Option<String>,
    /// A file of the certificates to trust instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// A directory of such certificates.
    pub ssl_cert_dir: Option<PathBuf>,
    /// Where Docker keeps what the user logs in to registries with.
    pub docker_config: Option<PathBuf>,
}

impl Network {
    fn from_environment() -> Self {
        let text = |name: &&str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let first = |names: &[&str]| names.iter().find_map(text);
        let all = first(&variables::ALL_PROXY);
        Self {
            http_proxy: first(&[variables::HTTP_PROXY]).or_else(|| all.clone()),
            https_proxy: first(&variables::HTTPS_PROXY).or(all),
            no_proxy: first(&variables::NO_PROXY),
            ssl_cert_file: variable(variables::SSL_CERT_FILE).map(PathBuf::from),
            ssl_cert_dir: variable(variables::SSL_CERT_DIR).map(PathBuf::from),
            docker_config: docker_config(),
        }
    }
}

/// Proxies are not shown: there may be passwords in them.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("http_proxy", &self.http_proxy.is_some())
            .field("https_proxy", &self.https_proxy.is_some())
            .field("no_proxy", &self.no_proxy)
            .field("ssl_cert_file", &self.ssl_cert_file)
            .field("ssl_cert_dir", &self.ssl_cert_dir)
            .field("docker_config", &self.docker_config)
            .finish()
    }
}

impl Config {
    /// The configuration that the process's environment describes.
    ///
    /// # Errors
    /// When there is neither `PYRO_HOME` nor a home directory.
    pub fn from_environment() -> Result<Self> {
        let (cache_dir, state_dir, config_dir) = match variable(variables::PYRO_HOME) {
            Some(home) => {
                let home = absolute(Path::new(&home))?;
                (home.join("cache"), home.join("state"), home.join("config"))
            }
            None => {
                let xdg = Xdg::new().map_err(|error| {
                    Error::new(ErrorKind::HostRequirement, "there is no home directory")
                        .hint("set HOME, or PYRO_HOME to a directory of your own")
                        .because(error)
                })?;
                let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir());
                let named = |directory: PathBuf| directory.join("pyro");
                (named(xdg.cache_dir()), named(state), named(xdg.config_dir()))
            }
        };
        let executable = variable(variables::PYRO_EXECUTABLE)
            .map_or_else(own_executable, |path| Ok(path.into()))?;
        let executable = absolute(&executable)?;
        for path in [&cache_dir, &state_dir, &executable] {
            if path.to_str().is_none() {
                let message = format!("the path {} is not UTF-8", path.display());
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .hint("set PYRO_HOME to a directory whose name is"));
            }
        }
        let agent = match (variable(variables::PYRO_AGENT), THIS_IS_PYRO.get()) {
            (Some(path), _) => AgentProgram::File(path.into()),
            (None, Some(&bytes)) if !bytes.is_empty() => AgentProgram::BuiltIn(bytes),
            (None, _) => AgentProgram::File(beside(&executable)?),
        };
        Ok(Self {
            cache_dir,
            state_dir,
            settings: config_dir.join("config.toml"),
            qemu: variable(variables::PYRO_QEMU).map(PathBuf::from),
            firecracker: variable(variables::PYRO_FIRECRACKER).map(PathBuf::from),
            agent,
            executable,
            kernel: variable(variables::PYRO_KERNEL)
                .map(|name| name.to_string_lossy().into_owned()),
            vmm: variable(variables::PYRO_VMM).map(|name| name.to_string_lossy().into_owned()),
            templates: templates()?,
            path: variable("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default(),
            network: Network::from_environment(),
            resolvers: resolvers()?,
        })
    }

    /// Where the process was started.
    ///
    /// # Errors
    /// When the directory is gone.
    pub fn working_directory() -> Result<PathBuf> {
        std::env::current_dir()
            .map_err(|error| Error::io("cannot tell the working directory", error))
    }

    /// A variable of the caller's own environment, to be handed to a guest
    /// because the caller named it.
    #[must_use]
    pub fn host_variable(&self, name: &OsStr) -> Option<OsString> {
        std::env::var_os(name)
    }

    /// Where `pyro` is installed, for others to start it: a path that will still
    /// name it when this process is gone.
    ///
    /// # Errors
    /// `HostRequirement` when there is none any more.
    pub fn installed_executable(&self) -> Result<PathBuf> {
        let path = match self.executable.as_path() {
            path if path == Path::new(THIS_PROGRAM) => running()?,
            path => path.to_owned(),
        };
        if path.is_file() {
            return Ok(path);
        }
        let message = format!("there is no pyro at {} any more", path.display());
        Err(Error::new(ErrorKind::HostRequirement, message).hint("install it, then try again"))
    }

    /// The first executable file of this name on `PATH`.
    #[must_use]
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        self.path.iter().map(|dir| dir.join(name)).find(|candidate| {
            candidate
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    }
}

/// Where other programs keep their configuration.
#[derive(Debug, Clone)]
pub struct Homes {
    /// The user's home directory.
    pub home: PathBuf,
    /// What XDG says is for configuration.
    pub config: PathBuf,
    /// Claude Code's directory.
    pub claude: PathBuf,
    /// Codex's directory.
    pub codex: PathBuf,
}

impl Homes {
    /// Those that the process's environment describes.
    ///
    /// # Errors
    /// When there is no home directory.
    pub fn from_environment() -> Result<Self> {
        let xdg = Xdg::new().map_err(|error| {
            Error::new(ErrorKind::HostRequirement, "there is no home directory")
                .hint("set HOME")
                .because(error)
        })?;
        let named = |name: &str| variable(name).map(PathBuf::from);
        let home = xdg.home_dir().to_owned();
        Ok(Self {
            config: xdg.config_dir(),
            claude: named(variables::CLAUDE_CONFIG_DIR).unwrap_or_else(|| home.clone()),
            codex: named(variables::CODEX_HOME).unwrap_or_else(|| home.join(".codex")),
            home,
        })
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn templates() -> Result<bool> {
    match variable(variables::PYRO_TEMPLATES) {
        None => Ok(true),
        Some(word) if word == "on" => Ok(true),
        Some(word) if word == "off" => Ok(false),
        Some(word) => {
            let message = format!("PYRO_TEMPLATES is {word:?}");
            Err(Error::new(ErrorKind::InvalidInput, message)
                .hint("set it to `on` or `off`, or unset it"))
        }
    }
}

fn resolvers() -> Result<Vec<SocketAddr>> {
    let Some(value) = variable(variables::PYRO_RESOLVERS) else { return Ok(Vec::new()) };
    let value = value.to_string_lossy();
    value.split(',').map(|server| server.trim().parse()).collect::<Result<_, _>>().map_err(
        |error| {
            let message = format!("PYRO_RESOLVERS is {value:?}");
            Error::new(ErrorKind::InvalidInput, message)
                .hint("name DNS servers such as `192.0.2.1:53,[2001:db8::1]:53`, or unset it")
                .because(error)
        },
    )
}

fn docker_config() -> Option<PathBuf> {
    let named = variable(variables::DOCKER_CONFIG).map(PathBuf::from);
    let at_home = || Some(Xdg::new().ok()?.home_dir().join(".docker"));
    named.or_else(at_home).map(|directory| directory.join("config.json"))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::io(format!("cannot resolve {}", path.display()), error))
}

/// The library may be part of another program; only `pyro` itself can stand in
/// for `pyro`.
fn own_executable() -> Result<PathBuf> {
    if THIS_IS_PYRO.get().is_some() {
        return Ok(THIS_PROGRAM.into());
    }
    let path = variable("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|dir| dir.join("pyro"))
        .find(|candidate| candidate.is_file());
    match on_path {
        Some(path) => Ok(path),
        None => Ok(running()?.with_file_name("pyro")),
    }
}

/// The agent of a build that has none in itself.
fn beside(executable: &Path) -> Result<PathBuf> {
    let pyro = if executable == Path::new(THIS_PROGRAM) { running()? } else { executable.into() };
    Ok(pyro.with_file_name("pyro-agent"))
}

/// Where the file is that this process runs, or was.
fn running() -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|error| Error::io("cannot find the running executable", error))?;
    Ok(where_it_was(own))
}

/// Without what the kernel adds when a file is gone.
fn where_it_was(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(before) if !path.exists() => OsString::from_vec(before.to_vec()).into(),
        Some(_) | None => path,
    }
}

#[cfg(test)]
impl Config {
    /// A place of a test's own, with nothing in it.
    pub(crate) fn within(home: &Path) -> Self {
        Self {
            cache_dir: home.join("cache"),
            state_dir: home.join("state"),
            settings: home.join("config/config.toml"),
            qemu: None,
            firecracker: None,
            agent: AgentProgram::File(PathBuf::new()),
            executable: PathBuf::new(),
            kernel: None,
            vmm: None,
            templates: true,
            path: Vec::new(),
            network: Network::default(),
            resolvers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_where_it_was() {
        let home = tempfile::tempdir().expect("a directory");
        let pyro = home.path().join("pyro-2 (deleted)");
        assert_eq!(where_it_was(pyro.clone()), home.path().join("pyro-2"));
        std::fs::write(&pyro, "").expect("written");
        assert_eq!(where_it_was(pyro.clone()), pyro, "it is called so");
        let other = home.path().join("pyro");
        assert_eq!(where_it_was(other.clone()), other);
    }
}
