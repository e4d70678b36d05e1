//! Every environment boots, on every kernel there is.

use pyro_smoke::{Home, stdout};

fn run(home: &Home, kernel: &str, environment: &str, script: &str) -> String {
    let output = home
        .pyro(["run", environment, "--", "sh", "-c", script])
        .env("PYRO_KERNEL", kernel)
        .output()
        .expect("pyro starts");
    stdout(&output)
}

#[test]
fn the_base_is_debian() {
    let home = Home::new();
    let said = run(&home, "tuned", "debian:12-base", ". /etc/os-release; echo $ID $VERSION_ID");
    assert_eq!(said, "debian 12\n");
}

#[test]
fn the_build_environment_compiles() {
    let home = Home::new();
    let script = "cd /tmp && printf 'int main(){return 0;}' > a.c && gcc a.c && ./a.out && cmake --version | head -1 && make --version | head -1";
    let said = run(&home, "tuned", "debian:12-build", script);
    assert!(said.contains("cmake version") && said.contains("GNU Make"), "{said}");
}

#[test]
fn both_kernels_boot() {
    let home = Home::new();
    let tuned = run(&home, "tuned", "debian:12", "uname -r");
    assert!(tuned.trim().ends_with("-pyro"), "{tuned}");
    let stock = run(&home, "stock", "debian:12", "uname -r");
    assert!(stock.trim().ends_with("-cloud-amd64"), "{stock}");
}
