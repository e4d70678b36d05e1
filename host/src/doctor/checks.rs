//! What can be seen without starting anything.

use super::{Check, State};
use crate::environment::Environments;
use crate::error::{Error, Result};
use crate::vmm::{self, Rung};
use crate::{Config, Pyro, disk, facts, store};

/// Disk that an environment takes while it is built, roughly.
const DISK_WANTED: u64 = 3 << 30;

/// Memory that a guest of the default size wants.
const MEM_MIB_WANTED: u64 = 1024;

/// The programs that `pyro env build` runs, and the packages they are in.
const BUILD_PROGRAMS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.erofs", "erofs-utils"),
    ("apt-get", "apt"),
    ("perl", "perl-base"),
];

pub fn all(pyro: &Pyro) -> Vec<Check> {
    let config = &pyro.config;
    let mut checks = vec![
        installed(config, Rung::QemuTcg),
        installed(config, Rung::Firecracker),
        from("disk formatting", disk::find_mke2fs(config).map(|path| path.display().to_string())),
        memory(),
        disk_space(pyro),
        environments(pyro),
    ];
    checks.push(build_programs(pyro));
    checks
}

fn from(name: &str, found: Result<String>) -> Check {
    match found {
        Ok(detail) => Check { name: name.into(), state: State::Ok, detail, next_step: None },
        Err(error) => failed(name, &error),
    }
}

/// The programs of a rung. Firecracker is of use only where there is KVM.
fn installed(config: &Config, rung: Rung) -> Check {
    let name = rung.vmm();
    match vmm::programs(config, rung) {
        Ok(programs) => {
            let programs: Vec<_> = programs.iter().map(|path| path.display().to_string()).collect();
            from(name, Ok(programs.join(", ")))
        }
        Err(error) if rung == Rung::Firecracker && facts::open_kvm().is_err() => Check {
            name: name.into(),
            state: State::Skipped,
            detail: format!("{}; without KVM it is of no use", error.chain()),
            next_step: None,
        },
        Err(error) if rung == Rung::Firecracker => {
            warning(name, error.chain(), error.next_step().unwrap_or_default())
        }
        Err(error) => failed(name, &error),
    }
}

fn failed(name: &str, error: &Error) -> Check {
    Check {
        name: name.into(),
        state: State::Failed,
        detail: error.chain(),
        next_step: error.next_step().map(str::to_owned),
    }
}

fn warning(name: &str, detail: String, next_step: &str) -> Check {
    Check { name: name.into(), state: State::Warning, detail, next_step: Some(next_step.into()) }
}

fn memory() -> Check {
    match facts::available_mem_mib() {
        Ok(mib) if mib < MEM_MIB_WANTED => warning(
            "memory",
            format!("{mib} MiB are free; a guest takes {MEM_MIB_WANTED} MiB unless told otherwise"),
            "end something, or pass a smaller --mem-mib",
        ),
        Ok(mib) => from("memory", Ok(format!("{mib} MiB are free"))),
        Err(error) => failed("memory", &error),
    }
}

fn disk_space(pyro: &Pyro) -> Check {
    let directory = &pyro.config.cache_dir;
    let free = store::private_dir(directory).and_then(|()| store::free_bytes(directory));
    match free {
        Ok(bytes) if bytes < DISK_WANTED => warning(
            "disk space",
            format!("{} MiB are free in {}", bytes >> 20, directory.display()),
            "free some space, or set PYRO_HOME to a larger disk",
        ),
        Ok(bytes) => from(
            "disk space",
            Ok(format!("{} MiB are free in {}", bytes >> 20, directory.display())),
        ),
        Err(error) => failed("disk space", &error),
    }
}

fn environments(pyro: &Pyro) -> Check {
    match Environments::new(&pyro.config).list() {
        Ok(all) => {
            let built: Vec<String> =
                all.into_iter().filter(|one| one.installed.is_some()).map(|one| one.name).collect();
            if built.is_empty() {
                warning("environments", "none is built".into(), "run `pyro env build debian:12`")
            } else {
                from("environments", Ok(built.join(", ")))
            }
        }
        Err(error) => failed("environments", &error),
    }
}

fn build_programs(pyro: &Pyro) -> Check {
    let missing: Vec<&str> = BUILD_PROGRAMS
        .iter()
        .filter(|(program, _)| pyro.config.find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        from("building environments", Ok("everything needed is installed".into()))
    } else {
        let next_step = format!("run `apt-get install {}`", missing.join(" "));
        warning("building environments", format!("{} missing", missing.join(", ")), &next_step)
    }
}
