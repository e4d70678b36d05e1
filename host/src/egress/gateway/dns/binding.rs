//! What the guest was told: which names an address goes by.

use crate::egress::policy::name::DomainName;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most pairs of a name and an address. The one that ends first goes when
/// there is no room.
const BINDINGS_MAX: usize = 4096;

/// The most names of an address: each decision about it looks at all of them, and
/// tells them.
const NAMES_MAX: usize = 32;

/// A name is remembered at least so long: programs keep addresses longer than
/// they are told to.
const LEAST: Duration = Duration::from_secs(600);

/// And at most so long, whatever a server says.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// Names by address, for as long as they were told and there is room.
#[derive(Debug, Default)]
pub struct Bindings {
    names: HashMap<IpAddr, Vec<(DomainName, Instant, u64)>>,
    /// By their ends; the number tells two of the same moment apart.
    ends: BTreeMap<(Instant, u64), IpAddr>,
    next: u64,
}

impl Bindings {
    /// Remembers that the guest was told an address of a name.
    pub fn bind(&mut self, name: &DomainName, address: IpAddr, seconds: u32, now: Instant) {
        self.expire(now);
        let until = now + Duration::from_secs(seconds.into()).clamp(LEAST, MOST);
        let number = self.next;
        self.next += 1;
        let names = self.names.entry(address).or_default();
        if let Some(at) = names.iter().position(|(known, ..)| known == name) {
            let (_, end, number) = names.swap_remove(at);
            self.ends.remove(&(end, number));
        }
        if names.len() == NAMES_MAX
            && let Some(at) = (0..names.len()).min_by_key(|at| (names[*at].1, names[*at].2))
        {
            let (_, end, number) = names.swap_remove(at);
            self.ends.remove(&(end, number));
        }
        names.push((name.clone(), until, number));
        self.ends.insert((until, number), address);
        if self.ends.len() > BINDINGS_MAX {
            self.forget_first();
        }
    }

    /// The names that an address goes by.
    pub fn names(&mut self, address: IpAddr, now: Instant) -> Vec<DomainName> {
        self.expire(now);
        let names = self.names.get(&address);
        names.into_iter().flatten().map(|(name, ..)| name.clone()).collect()
    }

    fn expire(&mut self, now: Instant) {
        while self.ends.first_key_value().is_some_and(|((end, _), _)| *end <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(((_, number), address)) = self.ends.pop_first() else { return };
        if let Some(names) = self.names.get_mut(&address) {
            names.retain(|(_, _, of)| *of != number);
            if names.is_empty() {
                self.names.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn names_are_forgotten_when_their_time_is_over() {
        let (mut bindings, now) = (Bindings::default(), Instant::now());
        let address = IpAddr::from([1, 2, 3, 4]);
        bindings.bind(&name("a.org"), address, 0, now);
        bindings.bind(&name("b.org"), address, 3600, now);
        bindings.bind(&name("a.org"), address, 0, now);
        assert_eq!(bindings.names(address, now).len(), 2);
        assert_eq!(bindings.names(address, now + LEAST), [name("b.org")]);
        assert!(bindings.names(address, now + 6 * LEAST).is_empty());
        assert!(bindings.names.is_empty() && bindings.ends.is_empty());
    }

    /// One server's address can go by any number of names, and a guest asks for all.
    #[test]
    fn s4_an_address_goes_by_a_bounded_number_of_names() {
        let (mut bindings, now) = (Bindings::default(), Instant::now());
        let address = IpAddr::from([1, 2, 3, 4]);
        for n in 0..2 * u32::try_from(NAMES_MAX).unwrap() {
            bindings.bind(&name(&format!("n{n}.org")), address, 3600 + n, now);
        }
        let names = bindings.names(address, now);
        assert_eq!((names.len(), bindings.ends.len()), (NAMES_MAX, NAMES_MAX));
        assert!(names.contains(&name("n63.org")) && !names.contains(&name("n31.org")));
        bindings.bind(&name("n63.org"), address, 3600, now);
        assert_eq!(bindings.names(address, now).len(), NAMES_MAX, "it is no other");
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room() {
        let (mut bindings, now) = (Bindings::default(), Instant::now());
        for n in 0..2 * u32::try_from(BINDINGS_MAX).unwrap() {
            bindings.bind(&name("a.org"), IpAddr::from(n.to_be_bytes()), n, now);
        }
        assert_eq!(bindings.ends.len(), BINDINGS_MAX);
        assert_eq!(bindings.names.len(), BINDINGS_MAX);
    }
}
