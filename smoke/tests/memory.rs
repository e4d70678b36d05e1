//! Where a guest's memory is, read from /proc while its VMM runs.

use pyro_smoke::{Home, is_vmm};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const MEM_MIB: u64 = 256;

/// What KVM can give guests pages of.
const HUGE: u64 = 2 << 20;

/// Before Linux 6.7 one boot of Firecracker in four is unlucky.
const BOOTS: usize = 8;

#[test]
fn a_guests_memory_can_have_large_pages() {
    let home = Home::new();
    let found: Vec<String> = (0..BOOTS).map_while(|_| misplaced(&home)).collect();
    assert!(found.len() < BOOTS, "{found:?}");
}

/// Boots a guest and says where its VMM has its memory, if large pages do not fit.
fn misplaced(home: &Home) -> Option<String> {
    let size = MEM_MIB << 20;
    let mem_mib = MEM_MIB.to_string();
    let mut run = home
        .pyro(["run", "--cold", "--mem-mib", &mem_mib, "debian:12"])
        .args(["--", "sh", "-c", "echo up; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    let mut line = String::new();
    BufReader::new(run.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "up\n");
    let processes = home.processes();
    let (vmm, _) = processes.iter().find(|(_, words)| is_vmm(words)).expect("the VMM runs");
    let maps = fs::read_to_string(format!("/proc/{vmm}/maps")).expect("the VMM runs");
    drop(run.stdin.take());
    run.wait().expect("pyro ends");
    let mut large =
        maps.lines().filter(|line| range(line).is_some_and(|(from, to)| to - from >= size));
    let memory = large.next().unwrap_or_else(|| panic!("no memory of {MEM_MIB} MiB in {maps}"));
    // QEMU has a file in memory; whether such have large pages, and then where, is
    // for the host's administrator to say.
    let fits = memory.contains("/memfd:") || range(memory).is_some_and(|(at, _)| at % HUGE == 0);
    (!fits).then(|| memory.to_owned())
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (from, rest) = line.split_once('-')?;
    let (to, _) = rest.split_once(' ')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}
