//! Machines that begin as what another was, saved before it had a workspace: what
//! templates are made of.

use futures::future::join_all;
use pyro::agent::AgentClient;
use pyro::agent::process::Said;
use pyro::environment::Bootable;
use pyro::id::WorkspaceId;
use pyro::supervisor::launch::{Launcher, Lease};
use pyro::supervisor::{Assignment, Lifetime, Purpose, Ready};
use pyro::vmm::{
    Access, Beginning, Durability, Installed, Link, Machine, Place, RateLimit, Rung, Saved, Vmm,
};
use pyro::{Config, Deadlines, Digest, Environments, disk, egress, vmm};
use pyro_protocol::process::StartProcess;
use pyro_protocol::{ByteString, FrameKind, FrameReader, handshake};
use pyro_smoke::{Home, PATIENCE, patient, pyro_executable, scaled};
use std::fs::{self, File};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Of the guests here.
const MEM_MIB: u32 = 256;

/// What tells guests apart that were one.
const WHO: &str = "hostname; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'";

/// A place for machines, and what they are made of.
struct Stable {
    home: Home,
    config: Config,
    bootable: Bootable,
    installed: Installed,
}

/// A guest that has its workspace.
struct Guest {
    lease: Lease,
    ready: Ready,
    directory: PathBuf,
}

impl Stable {
    /// `None`, and why, where there is no VMM to be shown.
    fn new() -> Option<Self> {
        let home = Home::new();
        let mut config = Config::from_environment().expect("a home directory");
        config.cache_dir = home.path().join("cache");
        config.state_dir = home.path().join("state");
        config.executable = pyro_executable();
        if config.firecracker.is_none() {
            eprintln!("skipped: PYRO_FIRECRACKER names no Firecracker");
            return None;
        }
        let installed = vmm::find(&config, Rung::Firecracker, 0).expect("it is named");
        let bootable = Environments::new(&config).resolve("debian:12").expect("it is built");
        Some(Self { home, config, bootable, installed })
    }

    fn vmm(&self) -> Arc<dyn Vmm> {
        match self.installed.clone() {
            Installed::Firecracker(firecracker) => Arc::new(firecracker),
            Installed::Qemu(qemu) => Arc::new(qemu),
        }
    }

    fn directory(&self, name: &str) -> PathBuf {
        let directory = self.home.path().join("state/workspaces").join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).expect("made");
        directory
    }

    /// A machine with a disk of its own, in this directory.
    async fn machine(&self, directory: &Path, beginning: Beginning) -> Machine {
        let path = directory.join("disk.ext4");
        disk::create(&self.config, &path, disk::MIN_MIB, Durability::Kept).await.expect("a disk");
        let Bootable { kernel, root_image, .. } = self.bootable.clone();
        Machine {
            vcpu_count: 1,
            mem_mib: MEM_MIB,
            kernel: kernel.vmlinux,
            kernel_flavor: kernel.flavor,
            initrd: kernel.initrd,
            root_image,
            disk: path,
            disk_access: Access::Write,
            durability: Durability::Kept,
            disk_limit: RateLimit::NONE,
            seed: disk::no_seed(&self.config).expect("made"),
            copy: None,
            networked: false,
            verbose: false,
            beginning,
        }
    }

    /// Boots a machine until its agent is there, and saves it.
    async fn save(&self) -> Saved {
        let directory = self.directory("template");
        let saved = Saved { state: directory.join("state"), memory: directory.join("memory") };
        let machine = self.machine(&directory, Beginning::BootToSave(saved.clone())).await;
        let lock = File::create(directory.join("vmm.lock")).expect("made");
        let workspace = WorkspaceId::random();
        let place = Place { workspace, directory: &directory, lock: &lock };
        let mut started = self.vmm().start(&machine, place).await.expect("it starts");
        let Link::Endpoint(listener) = started.link else { panic!("it serves no endpoint") };
        let announced = async {
            let (stream, _) = listener.accept().await.expect("it connects");
            let frame = FrameReader::new(stream).expect(FrameKind::Announcement).await;
            let announced: handshake::Announcement = frame.expect("an announcement");
            assert_eq!(announced.magic, handshake::MAGIC);
        };
        timeout(PATIENCE, announced).await.expect("it comes up");
        let began = std::time::Instant::now();
        started.process.save().await.unwrap_or_else(|error| panic!("{}", error.chain()));
        println!("saved within {} ms", began.elapsed().as_millis());
        started.process.kill();
        started.process.wait().await;
        saved
    }

    /// Brings up a guest with a workspace of its own.
    async fn guest(&self, beginning: Beginning, limit: RateLimit) -> Guest {
        let workspace = WorkspaceId::random();
        let directory = self.directory(&workspace.to_string());
        let machine = self.machine(&directory, beginning).await;
        let deadlines = Deadlines::default();
        let assignment = Assignment {
            workspace,
            directory: directory.clone(),
            secret_key: self.home.path().join("secret.key"),
            lifetime: Lifetime::Lease,
            seeded: false,
            purpose: Purpose::Work,
            machine: Machine { disk_limit: limit, ..machine },
            vmm: self.installed.clone(),
            network: egress::Network::default(),
            resolvers: Vec::new(),
            boot_deadline: patient(deadlines.kvm_boot),
            deadlines,
        };
        let lock = File::create(directory.join("lock")).expect("made");
        let launching =
            Launcher::InProcess(self.vmm()).launch(&self.config, &assignment, &lock).await;
        let mut lease = launching.expect("a supervisor");
        let ready = lease.ready().await.unwrap_or_else(|error| panic!("{}", error.chain()));
        Guest { lease, ready, directory }
    }

    fn digests(saved: &Saved) -> [Digest; 2] {
        [&saved.state, &saved.memory].map(|file| Digest::of_file(file).expect("there"))
    }
}

impl Guest {
    /// What a shell in it says.
    async fn says(&self, script: &str) -> String {
        let agent = AgentClient::new(&self.directory, Deadlines::default()).expect("there");
        let words = ["sh", "-c", script].map(|word| ByteString(word.into()));
        let request = StartProcess {
            argv: words.into(),
            cwd: None,
            env: Vec::new(),
            user: None,
            stdin: false,
            timeout_ms: None,
        };
        let running = agent.start(request).await.expect("it runs");
        let (_none, mut signals) = mpsc::channel(1);
        let (said, mut heard) = mpsc::unbounded_channel();
        let hear = |word| {
            drop(said.send(word));
            async {}
        };
        running.finish(None, &mut signals, None, hear).await.expect("it ends");
        let mut text = Vec::new();
        while let Ok(Said::Stdout(bytes) | Said::Stderr(bytes)) = heard.try_recv() {
            text.extend(bytes);
        }
        String::from_utf8(text).expect("UTF-8")
    }
}

#[tokio::test]
async fn many_guests_begin_as_the_same_one_and_are_not() {
    let Some(stable) = Stable::new() else { return };
    let saved = stable.save().await;
    let digests = Stable::digests(&saved);
    let (whole, room) =
        (u64::from(MEM_MIB) << 20, saved.memory.metadata().expect("there").blocks());
    assert_eq!(saved.memory.metadata().expect("there").len(), whole);
    println!("its memory takes {} KiB of {}", room / 2, whole >> 10);
    assert!(room * 512 < whole * 3 / 4, "its zeros were written");

    // At once, of the same files.
    let restored = || stable.guest(Beginning::Restore(saved.clone()), RateLimit::NONE);
    let guests = join_all([restored(), restored()]).await;
    let who = join_all(guests.iter().map(|guest| guest.says(WHO))).await;
    let names: Vec<_> = who.iter().map(|who| who.lines().next().unwrap_or_default()).collect();
    let random: Vec<_> = who.iter().map(|who| who.lines().nth(1).unwrap_or_default()).collect();
    assert_ne!(names[0], names[1]);
    assert!(random[0].len() == 32 && random[1].len() == 32 && random[0] != random[1], "{who:?}");
    assert_eq!(guests[0].says("true && echo it ran").await, "it ran\n");

    // Each has a disk of its own, and the clock of its host.
    let made = "echo mine > /workspace/made; sync; cat /workspace/made";
    assert_eq!(guests[0].says(made).await, "mine\n");
    assert_eq!(guests[1].says("ls -A /workspace").await, "");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    let told: u64 = guests[1].says("date +%s").await.trim().parse().expect("a time");
    assert!(told.abs_diff(now.as_secs()) <= 30, "its clock is at {told}, the host's at {now:?}");
    for guest in guests {
        guest.lease.release().await.expect("it ends");
    }

    // One with a limit gets it before it goes on.
    let operations_per_second = NonZeroU32::new(1000);
    let limit = RateLimit { mib_per_second: None, operations_per_second };
    let limited = stable.guest(Beginning::Restore(saved.clone()), limit).await;
    assert_eq!(limited.says("echo still here").await, "still here\n");
    limited.lease.release().await.expect("it ends");
    assert_eq!(Stable::digests(&saved), digests, "what many begin with has changed");

    // For people: what it is good for.
    for _ in 0..scaled(8, 2) {
        for beginning in [Beginning::Boot, Beginning::Restore(saved.clone())] {
            let how = if beginning == Beginning::Boot { "booted" } else { "restored" };
            let guest = stable.guest(beginning, RateLimit::NONE).await;
            let Ready { boot_us, activate_us, .. } = guest.ready;
            println!("{how}: there after {boot_us} us, activated {activate_us} us later");
            guest.lease.release().await.expect("it ends");
        }
    }
    fs::remove_dir_all(stable.home.path().join("state/workspaces/template")).expect("removed");
    stable.home.expect_clean_within(std::time::Duration::from_secs(5));
}
