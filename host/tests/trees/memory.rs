//! P6: trees pass through; nobody holds them, neither host nor agent, both of
//! which are this process here.

use crate::exporting::wanted;
use crate::footprint::Footprint;
use crate::guest::Served;
use crate::pushing::{run, to};
use crate::tree::look;
use pyro::workspace::export::{Format, Wanted, export};
use std::fs::{self, File};
use std::io::Write;

/// Several times what may be held.
const CONTENT_MIB: usize = 128;

/// The agent's share is bounded by 32 MiB, the host's by some buffers.
const HELD_MIB: u64 = 40;

#[tokio::test]
async fn p6_a_tree_that_is_larger_than_memory_may_be_goes_in_and_comes_out() {
    let (served, source) = (Served::honest(), tempfile::tempdir().unwrap());
    let mut file = File::create(source.path().join("large")).unwrap();
    for block in 0..CONTENT_MIB {
        // No block is all zeros, which would be a hole.
        file.write_all(&vec![block as u8 + 1; 1 << 20]).unwrap();
    }
    for number in 0..3000 {
        fs::write(source.path().join(format!("f{number}")), "x").unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let footprint = Footprint::new();
    let held = |doing: &str| {
        let held = footprint.grown_mib();
        assert!(held < HELD_MIB, "{held} MiB were held for {doing}");
    };
    run(&served, source.path(), to(".")).await.unwrap();
    held("a push");
    export(&served.agent, wanted(".", &out.path().join("tree")), &Default::default())
        .await
        .unwrap();
    held("an export");
    let archive = Wanted { format: Format::Tar, ..wanted(".", &out.path().join("tar")) };
    export(&served.agent, archive, &Default::default()).await.unwrap();
    held("an archive");
    let same = look(&out.path().join("tree")) == look(source.path());
    assert!(same, "and it is the same tree");
}
