//! A boot on Firecracker next to the same machine started barely.
//!
//! Both run in the emulated host of `pyro-lab`, in turn. The floor is what any
//! program would have to do: execute Firecracker with a configuration file and
//! wait until the agent has connected and said that it is there. pyro does this
//! confined by the jailer, and with an API besides. Kernel, images and the kernel's
//! command line are those that pyro uses; the last is read from a guest.

use crate::Result;
use crate::children;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use pyro_protocol::ANNOUNCE_PORT;
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::{FrameKind, FrameReader};
use pyro_smoke::Home;
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What asks this program to be the half within.
pub const INSIDE: &str = "firecracker-inside";

/// What the line with the figures begins with.
const MARK: &str = "measured: ";

const PAIRS: usize = 9;

/// As large as the guests by which `doctor` proves that they boot.
const MEM_MIB: u32 = 256;

/// Nothing boots longer than this.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

pub fn measure(_: &Home) -> Result<Vec<Figure>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["run", "--quiet", "--locked", "--package", "pyro-lab", "--", "--measure"]);
    command.arg(std::env::current_exe()?).arg(INSIDE);
    command.env("PYRO_BIN", pyro_smoke::pyro_executable());
    let output = children::output(command)?;
    let line = output.lines().find_map(|line| line.strip_prefix(MARK));
    let told: Value = serde_json::from_str(line.ok_or("the emulated host told no figures")?)?;
    let series = |name: &str| -> Result<Series> {
        let values = told[name].as_array().ok_or("figures are missing")?;
        Ok(values.iter().filter_map(Value::as_f64).collect())
    };
    let pairs = Pairs { ours: series("ours")?, floor: series("floor")? };
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(vec![Figure {
        title: "A boot on Firecracker, against a bare Firecracker, in an emulated host",
        goal: Goal::at_most(pairs.ratio_of_medians(), 1.15, ""),
        rows: vec![
            Row::new("pyro: from starting the VMM to the agent's first answer", "ms", pairs.ours),
            Row::new(
                "floor: bare Firecracker with a configuration file, to the same",
                "ms",
                pairs.floor,
            ),
        ],
        notes: vec![note],
    }])
}

/// The half within the emulated host.
pub fn inside() -> Result<()> {
    let home = Home::new();
    let bare = Bare::like_pyro(&home)?;
    boot(&home)?;
    bare.boot()?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        ours.push(boot(&home)?);
        floor.push(bare.boot()?);
    }
    println!("{MARK}{}", json!({ "ours": ours, "floor": floor }));
    Ok(())
}

/// What pyro took for a boot, in milliseconds: a workspace's, which says so.
fn boot(home: &Home) -> Result<f64> {
    let mem_mib = MEM_MIB.to_string();
    let words = ["workspace", "create", "--cold", "debian:12", "--vmm", "firecracker"];
    let words = words.into_iter().chain(["--mem-mib", &mem_mib]);
    let create = home.pyro(words.chain(["--id-only"]));
    let id = children::output(create)?;
    let id = id.trim();
    let record = home.path().join("state/workspaces").join(id).join("running.json");
    let running: Value = serde_json::from_slice(&std::fs::read(record)?)?;
    children::output(home.pyro(["workspace", "delete", id]))?;
    let boot_us = running["ready"]["boot_us"].as_f64().ok_or("it does not say how it booted")?;
    Ok(boot_us / 1e3)
}

/// A Firecracker without pyro.
struct Bare {
    program: PathBuf,
    kernel: String,
    boot_args: String,
    root_image: String,
    disk: PathBuf,
    seed: PathBuf,
}

impl Bare {
    /// Looks at what pyro boots.
    fn like_pyro(home: &Home) -> Result<Self> {
        let text = children::output(home.pyro(["env", "inspect", "debian:12", "--json"]))?;
        let inspected: Value = serde_json::from_str(&text)?;
        let installed = |name: &str| -> Result<String> {
            let value = inspected["installed"][name].as_str();
            Ok(value.ok_or_else(|| format!("debian:12 has no {name}"))?.to_owned())
        };
        let words = ["run", "--vmm", "firecracker", "debian:12", "--", "cat", "/proc/cmdline"];
        let line = children::output(home.pyro(words))?;
        // Firecracker's own.
        let words = line.split_whitespace().filter(|word| !word.starts_with("virtio_mmio."));
        let disks = home.path().join("cache/disks");
        let disk = std::fs::read_dir(&disks)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "ext4"))
            .ok_or("pyro keeps no formatted disk")?;
        Ok(Self {
            program: std::env::var_os("PYRO_FIRECRACKER").ok_or("no PYRO_FIRECRACKER")?.into(),
            kernel: installed("kernel")?,
            boot_args: words.collect::<Vec<_>>().join(" "),
            root_image: installed("root_image")?,
            disk,
            seed: disks.join("no-seed"),
        })
    }

    /// How long it takes, in milliseconds.
    fn boot(&self) -> Result<f64> {
        let place = tempfile::tempdir()?;
        let disk = place.path().join("disk.ext4");
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always").args([&self.disk, &disk]);
        children::output(copy)?;
        let config = place.path().join("config.json");
        std::fs::write(&config, self.config(place.path(), &disk).to_string())?;
        let listener =
            UnixListener::bind(place.path().join(format!("v.sock_{}", ANNOUNCE_PORT.0)))?;
        let mut command = Command::new(&self.program);
        command.args(["--no-api", "--level", "Error", "--config-file"]).arg(config).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let started = Instant::now();
        let mut firecracker = children::start(command, libc::SIGKILL)?;
        hear(listener)?;
        let took = started.elapsed();
        firecracker.end();
        Ok(took.as_secs_f64() * 1e3)
    }

    fn config(&self, place: &Path, disk: &Path) -> Value {
        let drive = |id: &str, path: &Path, is_read_only: bool, cache_type: &str| {
            json!({
                "drive_id": id, "path_on_host": path, "is_root_device": false,
                "is_read_only": is_read_only, "cache_type": cache_type,
            })
        };
        json!({
            "boot-source": { "kernel_image_path": self.kernel, "boot_args": self.boot_args },
            "machine-config": { "vcpu_count": 1, "mem_size_mib": MEM_MIB },
            "drives": [
                drive("root", Path::new(&self.root_image), true, "Unsafe"),
                drive("disk", disk, false, "Writeback"),
                drive("seed", &self.seed, true, "Unsafe"),
            ],
            "vsock": { "guest_cid": 3, "uds_path": place.join("v.sock") },
            "entropy": {},
        })
    }
}

/// Waits until the agent has said that it is there.
fn hear(listener: UnixListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hearing = async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (stream, _) = listener.accept().await?;
        let announced: Announcement =
            FrameReader::new(stream).expect(FrameKind::Announcement).await?;
        if announced.magic == MAGIC { Ok(()) } else { Err("the guest is not pyro's".into()) }
    };
    runtime.block_on(async { tokio::time::timeout(BOOT_DEADLINE, hearing).await? })
}
