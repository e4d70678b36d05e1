//! Trees of files to seed and to push.

use crate::Result;
use std::fs;
use std::path::Path;

/// In each directory of a tree.
pub const FILES_PER_DIRECTORY: usize = 100;

/// Makes so many files of so many bytes, all different.
pub fn plant(at: &Path, files: usize, bytes: usize) -> Result<()> {
    let mut content = vec![0; bytes];
    for number in 0..files {
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(at.join(format!("d{}", number / FILES_PER_DIRECTORY)))?;
        }
        fill(&mut content, number as u64);
        fs::write(at.join(file_name(number)), &content)?;
    }
    Ok(())
}

/// Where a file of the tree is.
pub fn file_name(number: usize) -> String {
    format!("d{}/f{number}", number / FILES_PER_DIRECTORY)
}

/// Bytes that neither repeat nor compress, the same for the same seed: a
/// linear congruential generator (Knuth's MMIX constants).
fn fill(content: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in content.chunks_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
    }
}
