//! A real QEMU whose guest's memory is a file that it cannot write.

use crate::confinement::{as_anybody, skip};
use pyro::ErrorKind;
use pyro::confine::{Confined, Confinement, spawn};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// What it needs of the host.
const LIBRARIES: [&str; 7] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/share/qemu",
    "/usr/share/seabios",
];

const SIZE: u64 = 512 << 20;

/// Where in the guest's memory there is something, beyond where firmware is.
const ADDRESS: u64 = 0x10_0000;
const SAVED: &[u8] = b"a moment";

/// A stopped machine, and the debugger's end of its debugging.
struct Stopped {
    program: Confined,
    debugging: UnixStream,
    said: std::io::PipeReader,
}

impl Stopped {
    /// `None`, and why, where this host does not allow it.
    fn start(memory: &Path) -> Option<Self> {
        if !Path::new(QEMU).exists() {
            return skip(format_args!("there is no {QEMU}"));
        }
        let mut confinement = Confinement::new(Path::new(QEMU));
        confinement.see(LIBRARIES.iter().map(Path::new));
        confinement.lend(memory, "/memory").unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let debugged = confinement.pass(OwnedFd::from(theirs));
        let (said, stderr) = std::io::pipe().unwrap();
        confinement.stderr(stderr.into());
        let line = format!(
            "-machine microvm,memory-backend=memory -m {SIZE}B -accel tcg -S -nodefaults \
             -no-user-config -display none \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -object memory-backend-file,id=memory,size={SIZE}B,mem-path=/memory,share=off \
             -chardev socket,id=debugged,fd={debugged} -gdb chardev:debugged"
        );
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let program = match spawn(confinement, &words) {
            Ok(program) => program,
            Err(error) if error.kind() == ErrorKind::Unsupported => return skip(error.chain()),
            Err(error) => panic!("{}", error.chain()),
        };
        ours.set_nonblocking(true).unwrap();
        let debugging = UnixStream::from_std(ours).unwrap();
        Some(Self { program, debugging, said })
    }

    /// What it says to a debugger's command.
    async fn asked(&mut self, command: &str) -> String {
        let sum = command.bytes().fold(0_u8, u8::wrapping_add);
        let packet = format!("+${command}#{sum:02x}");
        let exchanged = async {
            self.debugging.write_all(packet.as_bytes()).await?;
            let mut answer = String::new();
            loop {
                answer.push(self.debugging.read_u8().await?.into());
                if let Some((text, sum)) = answer.split_once('#')
                    && sum.len() == 2
                {
                    let (_, text) = text.split_once('$').unwrap();
                    return std::io::Result::Ok(text.to_owned());
                }
            }
        };
        // How it ended tells more than that it hung up.
        tokio::select! {
            Ok(answer) = exchanged => answer,
            how = self.program.wait() => {
                let mut all = String::new();
                self.said.read_to_string(&mut all).unwrap();
                panic!("it {how}: {all}");
            }
        }
    }

    async fn read(&mut self, address: u64, size: usize) -> Vec<u8> {
        let hex = self.asked(&format!("m{address:x},{size:x}")).await;
        let digits = hex.as_bytes().chunks(2).map(|digits| str::from_utf8(digits).unwrap());
        digits.map(|digits| u8::from_str_radix(digits, 16).expect(&hex)).collect()
    }

    async fn write(&mut self, address: u64, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let written = self.asked(&format!("M{address:x},{:x}:{hex}", bytes.len())).await;
        assert_eq!(written, "OK");
    }
}

#[test]
fn qemu_keeps_to_itself_what_its_guest_writes() {
    as_anybody("memory::qemu_keeps_to_itself_what_its_guest_writes", async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("memory");
        let file = File::create(&path).unwrap();
        file.set_len(SIZE).unwrap();
        file.write_all_at(SAVED, ADDRESS).unwrap();
        // Two share it.
        let Some(mut one) = Stopped::start(&path) else { return };
        let Some(mut other) = Stopped::start(&path) else { return };
        assert_eq!(one.read(ADDRESS, SAVED.len()).await, SAVED, "it is no memory of its guest's");
        one.write(ADDRESS, b"my own, ").await;
        assert_eq!(one.read(ADDRESS, SAVED.len()).await, b"my own, ");
        assert_eq!(other.read(ADDRESS, SAVED.len()).await, SAVED);
        let mut left = vec![0; SAVED.len()];
        File::open(&path).unwrap().read_exact_at(&mut left, ADDRESS).unwrap();
        assert_eq!(left, SAVED);
        // What it has of the file can do no more than that.
        let maps = fs::read_to_string(format!("/proc/{}/maps", one.program.pid()));
        match maps {
            Ok(maps) => {
                let mapped: Vec<_> =
                    maps.lines().filter(|line| line.ends_with(" /memory")).collect();
                assert!(!mapped.is_empty(), "{maps}");
                assert!(mapped.iter().all(|line| line.contains(" rw-p ")), "{mapped:?}");
            }
            Err(error) => eprintln!("mappings not looked at: {error}"),
        }
    });
}
