//! Images are what their recipes say, to the byte.

use pyro_smoke::{Home, pyro_executable, stdout, user_cache};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cached tree that `debian:12-base` was made from: the smallest.
fn smallest_tree() -> PathBuf {
    let trees = fs::read_dir(user_cache().join("trees")).expect("`make test` builds environments");
    let tars = trees.flatten().map(|entry| entry.path().join("root.tar"));
    let sized = tars.filter_map(|tar| Some((tar.metadata().ok()?.len(), tar)));
    sized.min().expect("there is a tree").1
}

fn build(tree: &Path, image: &Path) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/root.sh");
    let agent = pyro_executable().with_file_name("pyro-agent");
    let output = Command::new("bash")
        .arg(script)
        .arg("image")
        .args([tree, &agent])
        .arg("1793491200")
        .arg(image)
        .output()
        .expect("bash starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(image).expect("an image")
}

#[test]
fn the_same_inputs_make_the_same_bytes() {
    let home = Home::bare();
    let tree = smallest_tree();
    let [one, two] = ["one.erofs", "two.erofs"].map(|name| build(&tree, &home.path().join(name)));
    assert!(one.len() > 32 << 20, "{} bytes are no Debian", one.len());
    assert!(one == two, "the two images differ");
}

#[test]
fn the_agent_in_an_image_is_the_one_that_was_built() {
    let home = Home::new();
    let output = home.run(&["cat", "/usr/lib/pyro/pyro-agent"]);
    let built = fs::read(pyro_executable().with_file_name("pyro-agent")).expect("it is built");
    assert!(output.stdout == built, "{} bytes, or others", output.stdout.len());
}

#[test]
fn a_manifest_tells_what_is_in_an_image() {
    let home = Home::new();
    let manifest = home.image_directory("debian:12").join("manifest.json");
    let manifest: Value =
        serde_json::from_slice(&fs::read(manifest).expect("a manifest")).expect("JSON");
    let packages = manifest["packages"].as_array().expect("packages");
    let git = packages.iter().find(|package| package["name"] == "git").expect("git is in it");
    let said = stdout(&home.run(&["dpkg-query", "-W", "-f=${Version}", "git"]));
    assert_eq!(git["version"], said);
}
