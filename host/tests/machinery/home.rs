//! A home of pyro's with an environment that no VMM will ever look into.

use pyro::operation::run::RunAnswer;
use pyro::operation::{Context, Run};
use pyro::vmm::Vmm;
use pyro::{Config, Deadlines, Digest, Launcher, Pyro, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The environment that is there.
pub const ENVIRONMENT: &str = "debian:12";

/// A patience that suits guests in this very process.
pub const DEADLINES: Deadlines = Deadlines {
    kvm_boot: Duration::from_secs(4),
    tcg_boot: Duration::from_secs(4),
    activation: Duration::from_secs(3),
    greeting: Duration::from_secs(2),
    reply: Duration::from_secs(3),
    silence: Duration::from_secs(4),
    timeout_grace: Duration::from_secs(2),
    last_words: Duration::from_millis(500),
};

/// Removed when dropped.
pub struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// A home with the environment in its cache.
    pub fn new() -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap() };
        let cache = home.path("cache");
        let image = put(&cache.join("images"), "root.erofs", b"an image");
        let kernel = put(&cache.join("kernels/tuned"), "vmlinux", b"a kernel");
        let digest = Digest::of(b"anything").to_string();
        write(
            &cache.join("images").join(image.hex()).join("manifest.json"),
            &json!({
                "schema_version": 1, "environment": ENVIRONMENT, "root_digest": image.to_string(),
                "root_size": b"an image".len(), "tree_key": digest, "tree_digest": digest,
                "agent": { "digest": digest, "version": "0.1.0" }, "builder": digest,
                "built_by": "0.1.0", "built_at": "2026-01-01T00:00:00Z", "packages": [],
            }),
        );
        write(
            &cache.join("environments/debian_12.json"),
            &json!({
                "schema_version": 1, "environment": ENVIRONMENT, "root_digest": image.to_string(),
            }),
        );
        write(
            &cache.join("kernels/tuned.json"),
            &json!({
                "schema_version": 1, "flavor": "tuned", "version": "6.12", "digest": kernel.to_string(),
                "size": b"a kernel".len(), "builder": digest, "built_at": "2026-01-01T00:00:00Z",
                "initrd": null,
            }),
        );
        home
    }

    /// A place in it.
    pub fn path(&self, place: &str) -> PathBuf {
        self.directory.path().join(place)
    }

    /// The configuration of this home.
    pub fn config(&self) -> Config {
        Config {
            cache_dir: self.path("cache"),
            state_dir: self.path("state"),
            settings: self.path("config/config.toml"),
            // Any file: the VMM is a fake one.
            qemu: Some("/proc/self/exe".into()),
            firecracker: None,
            agent: self.path("no-agent").into(),
            executable: self.path("no-pyro"),
            kernel: None,
            vmm: Some("qemu-tcg".into()),
            templates: true,
            path: Vec::new(),
            network: Default::default(),
            resolvers: Vec::new(),
        }
    }

    /// Pyro at home here, with machines of this kind.
    pub fn pyro(&self, vmm: impl Vmm + 'static) -> Pyro {
        let launcher = Launcher::InProcess(Arc::new(vmm));
        Pyro { launcher, deadlines: DEADLINES, ..Pyro::new(self.config()) }
    }

    /// The directories of workspaces that there are.
    pub fn workspaces(&self) -> Vec<PathBuf> {
        match fs::read_dir(self.path("state/workspaces")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Nothing of any workspace may be left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.workspaces(), Vec::<PathBuf>::new());
    }
}

fn put(within: &Path, name: &str, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let directory = within.join(digest.hex());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), content).unwrap();
    digest
}

fn write(path: &Path, record: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, record.to_string()).unwrap();
}

/// A request as a caller would write it, as whoever runs the tests.
pub fn request(more: &Value) -> Run {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let mut request = json!({
        "environment": ENVIRONMENT, "mem_mib": 128, "user": format!("{user}:{group}"),
    });
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    serde_json::from_value(request).unwrap()
}

/// Runs a line of shell.
pub async fn run_shell(pyro: &Pyro, line: &str, context: Context) -> Result<RunAnswer> {
    pyro.call_with(request(&json!({ "command": line })), context).await
}
