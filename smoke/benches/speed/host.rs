//! What the figures were measured on.

use crate::Result;
use crate::guest::{ENVIRONMENT, pyro};
use pyro_smoke::Home;
use std::fs;
use std::process::Command;

/// What decides the figures besides pyro.
pub struct Conditions {
    pub date: String,
    pub pyro: String,
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub qemu: String,
    pub guest_kernel: String,
    /// Whether the guest's kernel is the one that the goals are for.
    pub tuned: bool,
    /// Processes that wanted a core, on average over the minute before.
    pub load_before: f64,
}

impl Conditions {
    pub fn gather(home: &Home) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let processor =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let environment = said(pyro(home, &["env", "inspect", ENVIRONMENT, "--json"]))?;
        let environment: serde_json::Value = serde_json::from_str(&environment)?;
        let installed =
            |field: &str| environment["installed"][field].as_str().unwrap_or("unknown").to_owned();
        let flavor = installed("kernel_flavor");
        let qemu = std::env::var_os("PYRO_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into());
        let mut qemu = Command::new(qemu);
        qemu.arg("--version");
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            pyro: first_line(&said(pyro(home, &["--version"]))?),
            processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            qemu: first_line(&said(qemu)?).replace("QEMU emulator version ", ""),
            guest_kernel: format!("{flavor}, {}", installed("kernel_version")),
            tuned: flavor == "tuned",
            load_before: load()?,
        })
    }
}

/// Processes that want a core, on average over the last minute.
pub fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn said(mut command: Command) -> Result<String> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
