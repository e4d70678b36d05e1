//! Tells the stories of `smoke/tests` on Firecracker, on machines that have no
//! KVM as on those that have: QEMU emulates a host with AMD's virtualisation,
//! and in it pyro finds a KVM that works.
//!
//! One program is both sides. Outside it makes what an emulated host takes,
//! starts one or two and hands out the stories; inside it is the first process,
//! which makes the host a host, and the one that tells a story when asked.
//!
//! ```text
//! pyro-lab            every story
//! pyro-lab killed     those with this in their names
//! pyro-lab --times 20 killed
//!                     each so often, to find out about one that fails at times
//! pyro-lab --measure PROGRAM WHAT
//!                     runs a benchmark in there and prints what it prints
//! ```

mod elsewhere;
mod emulated_host;
mod inside;
mod kit;
mod outside;
mod stories;
mod story;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return inside::be_init();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [inside::TELL] => inside::teller::tell_what_is_asked().map(|()| true),
        [] => outside::tell_stories("", 1),
        ["--times", times, part] => match times.parse() {
            Ok(times) => outside::tell_stories(part, times),
            Err(_) => Err(std::io::Error::other(format!("--times takes a number, not {times:?}"))),
        },
        ["--measure", program, what] => outside::measure(program.as_ref(), what).map(|()| true),
        [part] if !part.starts_with('-') => outside::tell_stories(part, 1),
        _ => Err(std::io::Error::other(
            "usage: pyro-lab [[--times N] PART OF A STORY'S NAME | --measure PROGRAM WHAT]",
        )),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pyro-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
