//! Users and variables: the pure parts.

use proptest::prelude::*;
use pyro_agent::environment::{Environment, PATH};
use pyro_agent::user::{NoUser, Tables, User};
use pyro_protocol::ByteString;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
broken:x:not-a-number:5::/:/bin/sh
short:x:7
builder:x:1000:1000:Builder,,,:/home/builder:/bin/zsh
1:x:1001:1001:named like a number:/home/one:
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
docker:x:998:builder,root
adm:x:4:builder
builder:x:1000:builder
twice:x:4:builder
";

fn tables() -> Tables {
    Tables::new(PASSWD, GROUP)
}

fn user(who: &str) -> User {
    tables().find(who).expect(who)
}

#[test]
fn a_name_brings_its_groups() {
    let builder = user("builder");
    assert_eq!((builder.uid, builder.gid, builder.groups), (1000, 1000, vec![4, 998]));
    assert_eq!((builder.home, builder.shell), (b"/home/builder".to_vec(), b"/bin/zsh".to_vec()));
}

#[test]
fn a_number_is_as_good_as_a_name() {
    assert_eq!(user("1000"), user("builder"));
    assert_eq!(user("0").groups, vec![998]);
}

#[test]
fn a_number_need_not_be_known() {
    let nobody = user("4711");
    assert_eq!((nobody.uid, nobody.gid, nobody.groups), (4711, 4711, vec![]));
    assert_eq!((nobody.name, nobody.home), (b"4711".to_vec(), b"/".to_vec()));
}

#[test]
fn a_name_wins_over_the_number_it_looks_like() {
    assert_eq!(user("1").uid, 1001);
    assert_eq!(user("1").shell, b"/bin/sh");
}

#[test]
fn a_group_replaces_all_others() {
    let builder = user("builder:docker");
    assert_eq!((builder.uid, builder.gid, builder.groups), (1000, 998, vec![]));
    assert_eq!(user("builder:55").gid, 55);
}

#[test]
fn who_is_not_there_is_named() {
    let nobody = |name: &str| Err(NoUser::User(name.to_owned()));
    for name in ["ghost", "", "broken", "short", "-1", "+1", "1 ", "4294967295", "99999999999"] {
        assert_eq!(tables().find(name), nobody(name));
    }
    assert_eq!(tables().find("root:ghost"), Err(NoUser::Group("ghost".to_owned())));
    assert_eq!(tables().find("root:"), Err(NoUser::Group(String::new())));
}

#[test]
fn variables_of_a_name_are_one_and_the_last_wins() {
    let mut environment = Environment::defaults(&user("builder"));
    let variable = |name: &str, value: &str| (name.into(), value.into());
    let added = vec![variable("A", "1"), variable("HOME", "/tmp"), variable("A", "2")];
    environment.merge(added).expect("good names");
    assert_eq!(environment.get(b"A"), Some(b"2".as_slice()));
    assert_eq!(environment.get(b"HOME"), Some(b"/tmp".as_slice()));
    assert_eq!(environment.get(b"PATH"), Some(PATH.as_bytes()));
    assert_eq!(environment.get(b"USER"), Some(b"builder".as_slice()));
    assert_eq!(environment.to_strings().len(), 7);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_table_is_too_odd(passwd: Vec<u8>, group: Vec<u8>, who: String) {
        // Whatever it says, it says something.
        let found = Tables::new(passwd, group).find(&who);
        prop_assert!(found.is_ok() || found.is_err());
    }

    #[test]
    fn every_user_of_a_table_is_found(
        name in "[a-z][a-z0-9-]{0,30}",
        uid in 0..u32::MAX,
        gid in 0..u32::MAX,
        home in "/[a-z/]{0,20}",
        shell in "/[a-z/]{1,20}",
    ) {
        let line = format!("{name}:x:{uid}:{gid}:gecos:{home}:{shell}\n");
        let found = Tables::new(line, "").find(&name).expect("it is there");
        prop_assert_eq!((found.uid, found.gid), (uid, gid));
        prop_assert_eq!((found.home, found.shell), (home.into_bytes(), shell.into_bytes()));
    }

    #[test]
    fn merging_keeps_one_of_each_name_and_the_last_of_it(
        added in proptest::collection::vec(("[A-C]{1,2}", "[a-z]{0,3}"), 0..20),
    ) {
        let mut environment = Environment::defaults(&Tables::default().by_id(0));
        let variables = added.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into()));
        environment.merge(variables.collect()).expect("good names");
        for (name, _) in &added {
            let last = added.iter().rev().find(|(other, _)| other == name).map(|(_, v)| v.as_bytes());
            prop_assert_eq!(environment.get(name.as_bytes()), last);
            let prefix = format!("{name}=").into_bytes();
            let lines = environment.to_strings();
            prop_assert_eq!(lines.iter().filter(|line| line.to_bytes().starts_with(&prefix)).count(), 1);
        }
    }

    #[test]
    fn what_the_kernel_could_not_take_is_refused(name: Vec<u8>, value: Vec<u8>) {
        let mut environment = Environment::defaults(&Tables::default().by_id(0));
        let good = !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0);
        let merged = environment.merge(vec![(ByteString(name), ByteString(value))]);
        prop_assert_eq!(merged.is_ok(), good);
    }
}
