//! Which service each name stands for.

use super::entry::Entry;
use super::probe::Looks;
use crate::guest::Guest;
use crate::process::failed;
use crate::process::kept::shelf::Shelf;
use pyro_protocol::service::{SERVICES_MAX, ServiceName};
use pyro_protocol::{AgentError, AgentErrorKind};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// The directory of the logs, on the workspace's disk.
const DIRECTORY: &str = "service";

/// All services of a guest.
#[derive(Default)]
pub(crate) struct Services {
    shelf: OnceCell<Arc<Shelf>>,
    slots: Mutex<BTreeMap<ServiceName, Slot>>,
    /// For the files of logs.
    next: AtomicU64,
    pub(super) looks: Looks,
}

/// What a name stands for.
enum Slot {
    /// A service.
    There(Arc<Entry>),
    /// One that is about to be there, and what was.
    Reserved(Option<Arc<Entry>>),
}

impl Slot {
    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Slot::There(entry) | Slot::Reserved(Some(entry)) => Some(entry),
            Slot::Reserved(None) => None,
        }
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("count", &self.slots().len()).finish_non_exhaustive()
    }
}

/// A name that is taken until this is dropped or filled.
pub(super) struct Reservation {
    guest: Arc<Guest>,
    name: ServiceName,
}

impl Reservation {
    /// Gives the name to a service; what had it is returned.
    pub(super) fn fill(&self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let mut slots = self.guest.services.slots();
        let slot = slots.insert(self.name.clone(), Slot::There(entry))?;
        slot.entry().cloned()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut slots = self.guest.services.slots();
        if let Some(Slot::Reserved(old)) = slots.get_mut(&self.name) {
            match old.take() {
                Some(old) => drop(slots.insert(self.name.clone(), Slot::There(old))),
                None => drop(slots.remove(&self.name)),
            }
        }
    }
}

impl Services {
    /// Where the logs are. The first time it removes what was there before.
    pub(super) async fn shelf(&self, guest: &Guest) -> Result<Arc<Shelf>, AgentError> {
        guest.require_activated()?;
        let opened = self.shelf.get_or_try_init(|| async {
            let private = guest.private()?;
            let open = move || -> io::Result<Arc<Shelf>> {
                let shelf = Shelf::within(&private, DIRECTORY)?;
                shelf.clear()?;
                Ok(Arc::new(shelf))
            };
            guest.kept.block_on(open).await?
        });
        opened.await.cloned().map_err(|error| failed("logs of services cannot be kept", &error))
    }

    /// Takes a name whose service is over, if there is one.
    pub(super) fn reserve(
        &self,
        guest: &Arc<Guest>,
        name: &ServiceName,
    ) -> Result<Reservation, AgentError> {
        let mut slots = self.slots();
        let is_new = !slots.contains_key(name);
        if is_new && slots.len() >= SERVICES_MAX {
            let text = format!("there are {SERVICES_MAX} services already; remove one");
            return Err(AgentError::new(AgentErrorKind::OutOfResources, text));
        }
        let taken = |how: &str| {
            let text = format!("service {name} {how} already");
            AgentError::new(AgentErrorKind::AlreadyExists, text)
        };
        let old = match slots.get(name) {
            None => None,
            Some(Slot::Reserved(_)) => return Err(taken("is being started")),
            Some(Slot::There(entry)) if entry.status().state.is_over() => Some(entry.clone()),
            Some(Slot::There(_)) => return Err(taken("runs")),
        };
        slots.insert(name.clone(), Slot::Reserved(old));
        Ok(Reservation { guest: guest.clone(), name: name.clone() })
    }

    pub(super) fn find(&self, guest: &Guest, name: &ServiceName) -> Result<Arc<Entry>, AgentError> {
        guest.require_activated()?;
        let slots = self.slots();
        let found = slots.get(name).and_then(Slot::entry).cloned();
        found.ok_or_else(|| {
            AgentError::new(AgentErrorKind::NotFound, format!("there is no service {name}"))
        })
    }

    /// Every service, by their names.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.slots().values().filter_map(Slot::entry).cloned().collect()
    }

    /// Takes one away that is over; false when it, or another of its name, is not.
    pub(super) fn forget(&self, entry: &Arc<Entry>) -> bool {
        let name = &entry.spec.name;
        let is_it = |slot: &Slot| matches!(slot, Slot::There(there) if Arc::ptr_eq(there, entry));
        let mut slots = self.slots();
        let is_over = slots.get(name).is_some_and(is_it) && entry.status().state.is_over();
        if is_over {
            slots.remove(name);
        }
        is_over
    }

    /// The name of a file that no log has had.
    pub(super) fn next_file(&self) -> String {
        format!("{:x}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Slot>> {
        // No code panics while it holds the lock; were it so, the map is whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
