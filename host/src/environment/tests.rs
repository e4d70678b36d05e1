//! Environments built by scripts that take no time and need no network.

mod build;
mod damage;
mod prune;

use super::script::{INITRD, ROOT, STOCK, TUNED};
use super::*;
use crate::error::Error;
use crate::event::{Event, Events};
use std::fs;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const DEBIAN: &str = "debian:12";

/// Every script notes its run in `ran`.
const FAKE_ROOT: &str = r#"
set -eu
echo "$1" >>"$HOME_DIR/ran"
echo "==> $1"
case $1 in
    tree) printf 'a tree of %s with %s\n' "$2" "$3" >"$5"; printf 'bash\t5.2\ngit\t2.39\n' >"${5%.tar}.packages" ;;
    image) cat "$2" "$3" >"$5" ;;
esac
"#;
const FAKE_STOCK: &str = r#"
set -eu
echo stock >>"$HOME_DIR/ran"
mkdir -p "$1/modules"
echo kernel >"$1/vmlinux"; echo 6.1.0 >"$1/version"; echo module >"$1/modules/01-a.ko"
"#;
const FAKE_INITRD: &str = r#"
set -eu
echo initrd >>"$HOME_DIR/ran"
cat "$1"/*.ko "$2" >"$3"
"#;
const FAKE_TUNED: &str = r#"
set -eu
echo tuned >>"$HOME_DIR/ran"
mkdir -p "$2"
cat "$1" >"$2/vmlinux"; echo 6.12.0 >"$2/version"
"#;

/// A home of its own, with programs that are only there.
struct Lab {
    home: TempDir,
    config: Config,
    scripts: Scripts,
    told: Arc<Mutex<Vec<Event>>>,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let programs = home.path().join("bin");
        fs::create_dir(&programs).expect("made");
        let needed = "mmdebstrap mkfs.erofs newuidmap apt-get dpkg-deb modprobe perl xz make gcc \
                      strip flex bison bc awk tar unshare";
        for program in needed.split_whitespace() {
            std::os::unix::fs::symlink("/bin/true", programs.join(program)).expect("linked");
        }
        let config = Config {
            cache_dir: home.path().join("cache"),
            state_dir: home.path().join("state"),
            settings: home.path().join("config.toml"),
            qemu: None,
            firecracker: None,
            agent: home.path().join("pyro-agent").into(),
            executable: home.path().join("pyro"),
            kernel: None,
            vmm: None,
            templates: true,
            path: vec![programs, "/usr/bin".into(), "/bin".into()],
            network: Default::default(),
            resolvers: Vec::new(),
        };
        let mut lab = Self { home, config, scripts: Scripts::embedded(), told: Arc::default() };
        lab.agent("an agent");
        for (name, text) in
            [(ROOT, FAKE_ROOT), (STOCK, FAKE_STOCK), (INITRD, FAKE_INITRD), (TUNED, FAKE_TUNED)]
        {
            lab.script(name, text);
        }
        lab
    }

    /// Replaces a script; `$HOME_DIR` in it is this lab's home.
    fn script(&mut self, name: &'static str, text: &str) {
        let text = format!("HOME_DIR={}\n{text}", self.home.path().display());
        self.scripts = self.scripts.clone().with(name, text);
    }

    fn agent(&self, content: &str) {
        fs::write(self.home.path().join("pyro-agent"), content).expect("written");
    }

    fn environments(&self) -> Environments {
        let mut environments =
            Environments::with(&self.config, Recipe::built_in(), self.scripts.clone());
        environments.free_bytes = |_| Ok(u64::MAX);
        environments
    }

    fn events(&self) -> Events {
        let told = Arc::clone(&self.told);
        Events::discard()
            .tap(move |event| told.lock().expect("nobody panicked").push(event.clone()))
    }

    async fn build(&self, name: &str) -> Result<Environment> {
        self.build_with(name, BuildOptions::default()).await
    }

    async fn build_with(&self, name: &str, options: BuildOptions) -> Result<Environment> {
        let never = CancellationToken::new();
        self.environments().build(name, options, &self.events(), &never).await
    }

    async fn built() -> Self {
        let lab = Self::new();
        lab.build(DEBIAN).await.expect("it builds");
        lab
    }

    /// Which scripts ran since the last call.
    fn ran(&self) -> String {
        let path = self.home.path().join("ran");
        let ran = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(&path));
        ran.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn stages(&self) -> Vec<&'static str> {
        let told = self.told.lock().expect("nobody panicked");
        told.iter()
            .filter_map(|event| match event {
                Event::Stage { name, .. } => Some(*name),
                Event::Progress(_)
                | Event::Warning(_)
                | Event::ProgramStarted
                | Event::Output { .. } => None,
            })
            .collect()
    }

    fn image(&self) -> PathBuf {
        self.environments().resolve(DEBIAN).expect("it is built").root_image
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.config.cache_dir.join("staging")).map_or(0, Iterator::count)
    }

    /// A workspace whose record says this.
    fn workspace(&self, record: &str) {
        let dir = self.config.state_dir.join("workspaces/0123456789ab");
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join("record.json"), record).expect("written");
    }
}

fn hint(error: &Error) -> &str {
    error.next_step().expect("there is a hint")
}
