use super::*;
use std::os::unix::fs::PermissionsExt;

fn writable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn corrupt(lab: &Lab) -> Error {
    let error = lab.environments().resolve(DEBIAN).expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::EnvironmentCorrupt);
    let seen = lab.environments().inspect(DEBIAN).expect("it is known");
    assert!(seen.installed.is_none() && seen.problem.is_some());
    error
}

#[tokio::test]
async fn a_flipped_byte_is_seen_even_with_the_old_time() {
    let lab = Lab::built().await;
    let image = lab.image();
    let before = Digest::of_file(&image).expect("read");
    let modified = image.metadata().expect("there").modified().expect("known");
    writable(&image);
    let mut bytes = fs::read(&image).expect("read");
    bytes[3] ^= 1;
    fs::write(&image, &bytes).expect("written");
    fs::File::options()
        .write(true)
        .open(&image)
        .expect("ours")
        .set_modified(modified)
        .expect("set");

    let error = corrupt(&lab);
    let message = error.message();
    assert!(message.contains(&*image.to_string_lossy()), "{message}");
    assert!(message.contains(&before.short()), "{message}");
    assert!(message.contains(&Digest::of(&bytes).short()), "{message}");
    assert_eq!(hint(&error), "`pyro env build debian:12 --force`");

    lab.ran();
    lab.build(DEBIAN).await.expect("it mends");
    assert_eq!(lab.ran(), "image");
    assert_eq!(lab.image(), image, "the same bytes have the same name");
}

#[tokio::test]
async fn a_truncated_image_is_seen_by_its_length() {
    let lab = Lab::built().await;
    let image = lab.image();
    writable(&image);
    fs::write(&image, "short").expect("written");
    assert!(corrupt(&lab).message().contains("it has 5 bytes"));
    let list = lab.environments().list().expect("listed");
    assert!(list[1].problem.is_some(), "a glance shows it");
}

#[tokio::test]
async fn a_missing_image_is_seen() {
    let lab = Lab::built().await;
    fs::remove_file(lab.image()).expect("removed");
    assert!(corrupt(&lab).message().contains("missing"));
    lab.build(DEBIAN).await.expect("it mends");
}

#[tokio::test]
async fn a_missing_image_directory_is_seen() {
    let lab = Lab::built().await;
    fs::remove_dir_all(lab.image().parent().expect("it has one")).expect("removed");
    assert!(corrupt(&lab).chain().contains("not there"));
    lab.build(DEBIAN).await.expect("it mends");
}

#[tokio::test]
async fn what_is_no_file_is_seen() {
    let lab = Lab::built().await;
    let image = lab.image();
    fs::remove_file(&image).expect("removed");
    fs::create_dir(&image).expect("made");
    assert!(corrupt(&lab).message().contains("cannot be read"));
}

#[tokio::test]
async fn an_unreadable_image_is_seen() {
    let lab = Lab::built().await;
    let image = lab.image();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o000)).expect("ours");
    if fs::File::open(&image).is_ok() {
        // Root reads everything.
        return;
    }
    assert!(corrupt(&lab).message().contains("cannot be read"));
}

#[tokio::test]
async fn a_damaged_manifest_harms_only_its_environment() {
    let lab = Lab::built().await;
    lab.build("debian:12-base").await.expect("it builds");
    fs::write(lab.image().with_file_name(MANIFEST), "[]").expect("written");
    assert!(corrupt(&lab).message().contains(MANIFEST));
    assert!(lab.environments().resolve("debian:12-base").is_ok());
    lab.build(DEBIAN).await.expect("it mends");
    assert!(lab.environments().resolve(DEBIAN).is_ok());
}

#[tokio::test]
async fn a_damaged_kernel_names_what_mends_it() {
    let lab = Lab::built().await;
    let vmlinux = lab.environments().kernel().expect("built").vmlinux;
    writable(&vmlinux);
    fs::write(&vmlinux, "KERNEL\n").expect("written");
    let error = corrupt(&lab);
    assert!(error.message().contains("vmlinux"), "{error}");
    assert_eq!(hint(&error), "`pyro env build debian:12 --kernel stock`");
    lab.ran();
    lab.build(DEBIAN).await.expect("it mends");
    assert_eq!(lab.ran(), "stock");
}

#[tokio::test]
async fn a_forged_or_torn_stamp_is_only_a_lost_stamp() {
    let lab = Lab::built().await;
    let image = lab.image();
    fs::write(format!("{}.verified", image.display()), "{").expect("written");
    assert_eq!(lab.image(), image);
}
