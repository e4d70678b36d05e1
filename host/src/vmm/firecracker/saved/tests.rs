use super::super::super::{Access, Durability, KernelFlavor, RateLimit};
use super::super::api::arrival::Watch;
use super::*;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener as Bound;
use std::path::PathBuf;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const MEM_MIB: u32 = 2;

/// What is in the guest's memory, and where.
const WRITTEN: (&[u8], u64) = (b"what the guest wrote", 700_000);

/// A workspace's directory, with a place for Firecracker.
struct Lab {
    home: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join(DIRECTORY)).expect("made");
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn directory(&self) -> File {
        File::open(self.home.path()).expect("there")
    }

    fn saved(&self) -> Saved {
        Saved { state: self.path("saved-state"), memory: self.path("saved-memory") }
    }

    /// What is there besides the VMM's place.
    fn made(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.path()).expect("there");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("read").file_name();
        let names = entries.map(|entry| name(entry).into_string().expect("UTF-8"));
        names.filter(|name| name != DIRECTORY).collect()
    }

    fn firecracker(&self) -> Firecracker {
        let place = self.path(DIRECTORY);
        let listener = UnixListener::bind(place.join("api.sock")).expect("bound");
        Firecracker { listener, place, refuses: None }
    }

    fn saving(&self) -> Saving {
        Saving::of(&machine(Beginning::BootToSave(self.saved()))).expect("it is to be saved")
    }

    async fn api(&self) -> Api {
        let watch = Watch::of(self.home.path()).expect("watched");
        watch.api(&self.directory(), "api.sock").await.expect("it is there")
    }

    /// Saves, while a Firecracker answers.
    async fn save(&self, firecracker: Firecracker) -> (Result<()>, Vec<Asked>) {
        let answering = tokio::spawn(firecracker.answer());
        let saved = self.saving().save(self.api().await, &self.directory()).await;
        (saved, answering.await.expect("it answers"))
    }
}

/// A request: method and path, and what it says.
type Asked = (String, Value);

/// What plays Firecracker's part behind its API.
struct Firecracker {
    listener: UnixListener,
    place: PathBuf,
    /// How many requests it obeys.
    refuses: Option<usize>,
}

impl Firecracker {
    /// Answers the one who connects, and tells what was asked.
    async fn answer(self) -> Vec<Asked> {
        let (stream, _) = self.listener.accept().await.expect("somebody");
        let mut stream = BufReader::new(stream);
        let mut all = Vec::new();
        while let Some(asked) = request(&mut stream).await {
            let refuses = self.refuses == Some(all.len());
            if asked.0 == "PUT /snapshot/create" && !refuses {
                self.create();
            }
            all.push(asked);
            let answer = match refuses {
                true => {
                    let fault = r#"{"fault_message":"not today"}"#;
                    format!("HTTP/1.1 400 \r\nContent-Length: {}\r\n\r\n{fault}", fault.len())
                }
                false => "HTTP/1.1 204 \r\n\r\n".to_owned(),
            };
            stream.get_mut().write_all(answer.as_bytes()).await.expect("somebody listens");
        }
        all
    }

    /// As Firecracker does, zeros and all.
    fn create(&self) {
        if !self.place.join(STATE_NAME).exists() {
            fs::write(self.place.join(STATE_NAME), "the state").expect("written");
        }
        if !self.place.join(MEMORY_NAME).exists() {
            fs::write(self.place.join(MEMORY_NAME), memory()).expect("written");
        }
    }
}

fn memory() -> Vec<u8> {
    let mut memory = vec![0; (MEM_MIB as usize) << 20];
    let at = usize::try_from(WRITTEN.1).expect("short");
    memory[at..at + WRITTEN.0.len()].copy_from_slice(WRITTEN.0);
    memory
}

async fn request(stream: &mut BufReader<UnixStream>) -> Option<Asked> {
    let mut first = String::new();
    stream.read_line(&mut first).await.ok().filter(|read| *read > 0)?;
    let asked = first.trim_end().strip_suffix(" HTTP/1.1").expect("HTTP").to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a header");
        match line.trim_end().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().expect("a number"),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    Some((asked, serde_json::from_slice(&body).expect("JSON")))
}

fn machine(beginning: Beginning) -> Machine {
    Machine {
        vcpu_count: 1,
        mem_mib: MEM_MIB,
        kernel: "/cache/vmlinux".into(),
        kernel_flavor: KernelFlavor::Tuned,
        initrd: None,
        root_image: "/cache/root.erofs".into(),
        disk: "/state/disk.ext4".into(),
        durability: Durability::Kept,
        disk_limit: RateLimit::NONE,
        disk_access: Access::Write,
        seed: "/state/seed.erofs".into(),
        copy: None,
        networked: false,
        verbose: false,
        beginning,
    }
}

fn limited(machine: Machine) -> Machine {
    let mib_per_second = NonZeroU32::new(1);
    Machine { disk_limit: RateLimit { mib_per_second, ..RateLimit::NONE }, ..machine }
}

/// What is asked to restore a machine, with what comes of it.
async fn restored(machine: &Machine, refuses: Option<usize>) -> (Result<()>, Vec<Asked>) {
    let lab = Lab::new();
    let answering = tokio::spawn(Firecracker { refuses, ..lab.firecracker() }.answer());
    let restored = restore(lab.api().await, machine).await;
    (restored, answering.await.expect("it answers"))
}

#[tokio::test]
async fn a_machine_is_restored_by_two_requests_and_by_four_if_it_has_a_limit() {
    let lab = Lab::new();
    let plain = machine(Beginning::Restore(lab.saved()));
    let (done, asked) = restored(&plain, None).await;
    done.expect("restored");
    let metrics = ("PUT /metrics".into(), json!({ "metrics_path": "/sockets/metrics" }));
    let load = |resume_vm| {
        let backend = json!({ "backend_type": "File", "backend_path": "/memory" });
        let body = json!({
            "snapshot_path": "/state", "mem_backend": backend,
            "enable_diff_snapshots": false, "resume_vm": resume_vm,
        });
        ("PUT /snapshot/load".into(), body)
    };
    assert_eq!(asked, [metrics.clone(), load(true)]);

    let (done, asked) = restored(&limited(plain), None).await;
    done.expect("restored");
    let bandwidth = json!({ "size": 1 << 20, "refill_time": 1000 });
    let limit = json!({ "drive_id": "disk", "rate_limiter": { "bandwidth": bandwidth } });
    let resumed = ("PATCH /vm".into(), json!({ "state": "Resumed" }));
    assert_eq!(asked, [metrics, load(false), ("PATCH /drives/disk".into(), limit), resumed]);
}

#[tokio::test]
async fn what_is_refused_is_said_and_nothing_is_asked_after_it() {
    let lab = Lab::new();
    let machine = limited(machine(Beginning::Restore(lab.saved())));
    for step in 0..4 {
        let (done, asked) = restored(&machine, Some(step)).await;
        let said = done.expect_err("refused").chain();
        assert_eq!(asked.len(), step + 1, "{asked:?}");
        assert!(said.contains(&asked[step].0) && said.contains("not today"), "{said}");
    }
    for step in 0..2 {
        let lab = Lab::new();
        let refusing = Firecracker { refuses: Some(step), ..lab.firecracker() };
        let (done, asked) = lab.save(refusing).await;
        let said = done.expect_err("refused").chain();
        assert_eq!(asked.len(), step + 1, "{asked:?}");
        assert!(said.contains(&asked[step].0) && said.contains("not today"), "{said}");
        assert!(lab.made().is_empty(), "{:?}", lab.made());
    }
}

#[tokio::test]
async fn what_is_saved_is_a_copy_without_zeros_that_nobody_writes() {
    let lab = Lab::new();
    let firecracker = lab.firecracker();
    firecracker.create();
    // A VMM that its guest has taken over keeps them open.
    let open = |name: &str| {
        File::options().write(true).open(lab.path(DIRECTORY).join(name)).expect("the VMM's")
    };
    let (state, kept) = (open(STATE_NAME), open(MEMORY_NAME));
    let (done, asked) = lab.save(firecracker).await;
    done.expect("saved");
    let create = json!({
        "snapshot_type": "Full",
        "snapshot_path": "/sockets/state", "mem_file_path": "/sockets/memory",
    });
    let paused = ("PATCH /vm".into(), json!({ "state": "Paused" }));
    assert_eq!(asked, [paused, ("PUT /snapshot/create".into(), create)]);
    let vmms = fs::read_dir(lab.path(DIRECTORY)).expect("there").count();
    assert_eq!(vmms, 1, "the zeros are still there");

    state.write_all_at(b"another", 0).expect("its own");
    kept.write_all_at(b"another", WRITTEN.1).expect("its own");
    let saved = lab.saved();
    assert_eq!(fs::read(&saved.state).expect("there"), b"the state");
    assert!(fs::read(&saved.memory).expect("there") == memory());
    for file in [&saved.state, &saved.memory] {
        let meta = file.metadata().expect("there");
        assert_eq!(meta.mode() & 0o7777, 0o444, "{}", file.display());
        assert_eq!(meta.uid(), rustix::process::geteuid().as_raw());
    }
    let blocks = saved.memory.metadata().expect("there").blocks();
    assert!(blocks * 512 < 512 << 10, "{blocks} blocks");
}

#[tokio::test]
async fn s8_nothing_is_taken_from_a_vmm_but_files_of_the_right_length() {
    type Leave = fn(&Path);
    let hostile: &[(&str, &str, Leave)] = &[
        ("a link", STATE_NAME, |path| symlink("../precious", path).expect("linked")),
        ("a link", MEMORY_NAME, |path| symlink("../precious", path).expect("linked")),
        ("a directory", STATE_NAME, |path| fs::create_dir(path).expect("made")),
        ("a pipe that nobody writes to", MEMORY_NAME, |path| {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).expect("made");
        }),
        ("a socket", STATE_NAME, |path| drop(Bound::bind(path).expect("bound"))),
        ("too long", STATE_NAME, |path| sized(path, STATE_MAX + 1)),
        ("too short", STATE_NAME, |path| sized(path, 0)),
        ("too long", MEMORY_NAME, |path| sized(path, (u64::from(MEM_MIB) << 20) + 1)),
        ("too short", MEMORY_NAME, |path| sized(path, (u64::from(MEM_MIB) << 20) - 1)),
        ("endless", MEMORY_NAME, |path| sized(path, i64::MAX as u64 >> 20)),
    ];
    for (what, name, leave) in hostile {
        let lab = Lab::new();
        fs::write(lab.path("precious"), memory()).expect("written");
        let firecracker = lab.firecracker();
        leave(&lab.path(DIRECTORY).join(name));
        let (done, _) = lab.save(firecracker).await;
        let said = done.expect_err(what).chain();
        assert!(said.contains(name), "{what}: {said}");
        assert_eq!(lab.made(), ["precious"], "{what} {name}");
    }
}

fn sized(path: &Path, length: u64) {
    File::create(path).and_then(|file| file.set_len(length)).expect("made");
}

#[tokio::test]
async fn what_is_there_is_not_replaced() {
    let lab = Lab::new();
    fs::write(lab.path("saved-memory"), "another's").expect("written");
    let (done, _) = lab.save(lab.firecracker()).await;
    done.expect_err("it is there");
    assert_eq!(lab.made(), ["saved-memory"], "the state is left");
    assert_eq!(fs::read(lab.path("saved-memory")).expect("there"), b"another's");
}

#[tokio::test]
async fn saving_that_is_given_up_leaves_nothing() {
    let lab = Lab::new();
    let Firecracker { listener, .. } = lab.firecracker();
    let (saving, directory) = (lab.saving(), lab.directory());
    let mut waiting = Box::pin(saving.save(lab.api().await, &directory));
    let heard = async {
        let mut stream = BufReader::new(listener.accept().await.expect("somebody").0);
        request(&mut stream).await.expect("to stand still");
        stream
    };
    let mut stream = tokio::select! {
        stream = heard => stream,
        done = &mut waiting => panic!("it was not answered: {done:?}"),
    };
    drop(waiting);
    assert!(request(&mut stream).await.is_none(), "the connection is still there");
    assert!(lab.made().is_empty());

    // And while it is copied.
    fs::write(lab.path(DIRECTORY).join(MEMORY_NAME), memory()).expect("written");
    let (place, to) = (place(&directory).expect("there"), lab.saved().memory);
    let whole = u64::from(MEM_MIB) << 20;
    let given_up = take(&place, MEMORY_NAME, whole..=whole, &to, &|| false);
    assert_eq!(given_up.err().map(|error| error.kind()), Some(ErrorKind::Cancelled));
    assert!(lab.made().is_empty());
}

/// A socket has a name first, and is listened on afterwards.
#[tokio::test]
async fn the_api_is_found_as_soon_as_it_listens() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let lab = Lab::new();
    let (watch, directory) = (Watch::of(lab.home.path()).expect("watched"), lab.directory());
    let mut finding = Box::pin(watch.api(&directory, "api.sock"));
    let name = lab.path(DIRECTORY).join("api.sock");
    let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let steps = async {
        fs::write(lab.path(DIRECTORY).join("another"), "").expect("written");
        tokio::task::yield_now().await;
        bind(&bound, &SocketAddrUnix::new(&name).expect("short")).expect("bound");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        listen(&bound, 1).expect("listened");
    };
    let (found, ()) = tokio::join!(&mut finding, steps);
    found.expect("it is there");

    let lab = Lab::new();
    symlink(&name, lab.path(DIRECTORY).join("api.sock")).expect("linked");
    let watch = Watch::of(lab.home.path()).expect("watched");
    watch.api(&lab.directory(), "api.sock").await.map(drop).expect_err("a link was followed");
}
