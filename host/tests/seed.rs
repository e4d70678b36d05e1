//! Seeds: whatever a caller gives is in the image as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "seed/archives.rs"]
mod archives;
#[path = "seed/directories.rs"]
mod directories;
#[path = "seed/documents.rs"]
mod documents;
#[path = "seed/git.rs"]
mod git;
#[path = "seed/hostile.rs"]
mod hostile;
#[path = "seed/image.rs"]
mod image;
#[path = "seed/kept.rs"]
mod kept;
#[path = "seed/kernel.rs"]
mod kernel;
#[path = "seed/layers.rs"]
mod layers;
#[path = "seed/making.rs"]
mod making;
#[path = "seed/random.rs"]
mod random;
