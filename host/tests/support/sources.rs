//! Every Rust file of the workspace, as text.

use std::path::Path;

/// Where Rust lives, from the root of the workspace.
const PLACES: &[&str] = &["protocol", "guest", "host", "smoke", "lab", "benches"];

/// A Rust file.
pub struct Source {
    /// From the root of the workspace.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Every Rust file of the workspace, in the order of their paths.
pub fn sources_of_workspace() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for place in PLACES {
        walk(&root.join(place), root, &mut found);
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn walk(directory: &Path, root: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            walk(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}
