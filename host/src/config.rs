//! Where things are on this host. The only module that reads the environment.

use crate::error::{Error, ErrorKind, Result};
use etcetera::{BaseStrategy, base_strategy::Xdg};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Every environment variable that pyro reads, and what it is for.
pub mod variables {
    /// One directory for everything pyro keeps; overrides the XDG directories.
    pub const PYRO_HOME: &str = "PYRO_HOME";
    /// The `qemu-system-x86_64` to use instead of the one on `PATH`.
    pub const PYRO_QEMU: &str = "PYRO_QEMU";
    /// The `firecracker` to use instead of the one that `pyro setup` fetched; its
    /// `jailer` lies beside it.
    pub const PYRO_FIRECRACKER: &str = "PYRO_FIRECRACKER";
    /// The static `pyro-agent` to bake into images instead of the one beside
    /// `pyro`.
    pub const PYRO_AGENT: &str = "PYRO_AGENT";
    /// The `pyro` executable that supervises workspaces, for programs that use
    /// the library.
    pub const PYRO_EXECUTABLE: &str = "PYRO_EXECUTABLE";
    /// `tuned` or `stock`: boot this kernel instead of the best one there is.
    pub const PYRO_KERNEL: &str = "PYRO_KERNEL";
    /// `firecracker`, `qemu-kvm` or `qemu-tcg`: run guests this way instead of the
    /// best proven one. `--vmm` goes before it.
    pub const PYRO_VMM: &str = "PYRO_VMM";
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
    pub agent: PathBuf,
    /// The `pyro` executable that supervises workspaces.
    pub executable: PathBuf,
    /// The kernel to boot, when the user named one.
    pub kernel: Option<String>,
    /// How to run guests, when the user said so.
    pub vmm: Option<String>,
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
        let agent = variable(variables::PYRO_AGENT)
            .map_or_else(|| executable.with_file_name("pyro-agent"), PathBuf::from);
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

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::io(format!("cannot resolve {}", path.display()), error))
}

/// The library may be part of another program; only `pyro` itself can stand in
/// for `pyro`.
fn own_executable() -> Result<PathBuf> {
    let own = std::env::current_exe()
        .map_err(|error| Error::io("cannot find the running executable", error))?;
    if own.file_name().is_some_and(|name| name == "pyro") {
        return Ok(own);
    }
    let path = variable("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|dir| dir.join("pyro"))
        .find(|candidate| candidate.is_file());
    Ok(on_path.unwrap_or_else(|| own.with_file_name("pyro")))
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
            agent: PathBuf::new(),
            executable: PathBuf::new(),
            kernel: None,
            vmm: None,
            path: Vec::new(),
            network: Network::default(),
            resolvers: Vec::new(),
        }
    }
}
