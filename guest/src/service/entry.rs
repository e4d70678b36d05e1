//! One service, as those who ask about it see it.

use super::journal::Journal;
use crate::clock;
use crate::process::kept::shown;
use pyro_protocol::AgentError;
use pyro_protocol::process::StartProcess;
use pyro_protocol::service::{
    Probe, Readiness, Restart, Service, ServiceName, ServiceState, StartService,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Orders on their way to a service's life, and those that it has heard.
const ORDERS_MAX: usize = 8;

/// What a service was asked to be. Its variables are nowhere else.
pub(super) struct Spec {
    pub(super) name: ServiceName,
    pub(super) program: StartProcess,
    pub(super) readiness: Option<Readiness>,
    pub(super) restart: Restart,
}

impl From<StartService> for Spec {
    fn from(call: StartService) -> Self {
        let StartService { name, program, readiness, restart } = call;
        Self { name, program, readiness, restart }
    }
}

/// One service.
pub(super) struct Entry {
    pub(super) spec: Spec,
    pub(super) journal: Arc<Journal>,
    status: watch::Sender<Status>,
    /// To the life that it has now.
    orders: Mutex<mpsc::Sender<Order>>,
    /// Why it could not be started again, when that is how it is.
    refusal: Mutex<Option<AgentError>>,
}

/// What changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub(super) state: ServiceState,
    /// How often it was asked to start.
    pub(super) starts: u64,
    /// When last.
    pub(super) started_at_ns: i64,
    /// How often its policy has started it since.
    pub(super) restarts: u32,
    /// How much there is in the journal.
    pub(super) written: u64,
}

/// What others want of a service's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Be over.
    Stop { grace: Duration },
    /// Begin anew.
    Restart { grace: Duration },
    /// Be over, unless it has become ready after so many starts.
    Cancel { starts: u64 },
}

impl Order {
    /// How long the program may take to obey it.
    pub(super) const fn grace(self) -> Duration {
        match self {
            Self::Stop { grace } | Self::Restart { grace } => grace,
            Self::Cancel { .. } => Duration::MAX,
        }
    }
}

/// The orders that a service's life gets, in their order.
pub(super) struct Orders {
    receiver: mpsc::Receiver<Order>,
    /// Those that were heard before they could be followed.
    heard: VecDeque<Order>,
}

impl Orders {
    fn channel() -> (mpsc::Sender<Order>, Self) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (sender, Self { receiver, heard: VecDeque::new() })
    }

    /// The next one. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Order {
        match self.heard.pop_front() {
            Some(order) => order,
            None => received(&mut self.receiver).await,
        }
    }

    /// The next one, which stays the next: what is done meanwhile goes first.
    pub(super) async fn hear(&mut self) -> Order {
        if self.heard.len() == ORDERS_MAX {
            std::future::pending::<()>().await;
        }
        let order = received(&mut self.receiver).await;
        self.heard.push_back(order);
        order
    }
}

async fn received(receiver: &mut mpsc::Receiver<Order>) -> Order {
    match receiver.recv().await {
        Some(order) => order,
        // The entry has the sender.
        None => std::future::pending().await,
    }
}

impl Entry {
    /// A service whose program has just started, and the orders it will get.
    pub(super) fn new(spec: Spec, journal: Arc<Journal>, pid: u32) -> (Self, Orders) {
        let (sender, orders) = Orders::channel();
        let now = clock::wall_ns();
        let status = Status {
            state: ServiceState::Starting { pid, since_ns: now },
            starts: 1,
            started_at_ns: now,
            restarts: 0,
            written: 0,
        };
        let entry = Self {
            spec,
            journal,
            status: watch::Sender::new(status),
            orders: Mutex::new(sender),
            refusal: Mutex::default(),
        };
        (entry, orders)
    }

    /// One that was over has been started, and gets orders again.
    pub(super) fn revive(&self, pid: u32) -> Orders {
        let (sender, orders) = Orders::channel();
        *self.orders() = sender;
        self.begin_anew(pid);
        orders
    }

    /// It was started because somebody asked.
    pub(super) fn begin_anew(&self, pid: u32) {
        self.refuse(None);
        let now = clock::wall_ns();
        self.status.send_modify(|status| {
            status.state = ServiceState::Starting { pid, since_ns: now };
            status.starts += 1;
            status.started_at_ns = now;
            status.restarts = 0;
        });
    }

    /// It was started because its policy says so.
    pub(super) fn begin_again(&self, pid: u32) {
        let state = ServiceState::Starting { pid, since_ns: clock::wall_ns() };
        self.status.send_modify(|status| {
            status.state = state;
            status.restarts = status.restarts.saturating_add(1);
        });
    }

    /// It runs and is ready.
    pub(super) fn is_ready(&self) {
        let ready_at_ns = clock::wall_ns();
        self.status.send_if_modified(|status| match status.state {
            ServiceState::Starting { pid, since_ns } => {
                status.state = ServiceState::Running { pid, since_ns, ready_at_ns };
                true
            }
            ServiceState::Running { .. }
            | ServiceState::Backoff { .. }
            | ServiceState::Exited { .. }
            | ServiceState::Stopped { .. }
            | ServiceState::Failed { .. } => false,
        });
    }

    /// It is now so.
    pub(super) fn set(&self, state: ServiceState) {
        self.status.send_modify(|status| status.state = state);
    }

    /// Why it could not be started again.
    pub(super) fn refuse(&self, refusal: Option<AgentError>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    pub(super) fn refusal(&self) -> Option<AgentError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// So much is in the journal.
    pub(super) fn publish(&self, end: u64) {
        self.status.send_if_modified(|status| {
            let is_news = status.written < end;
            status.written = end.max(status.written);
            is_news
        });
    }

    pub(super) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// To wait for a change of it.
    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Passes an order on; false when it is over.
    pub(super) async fn order(&self, order: Order) -> bool {
        let orders = self.orders().clone();
        if orders.send(order).await.is_ok() {
            return true;
        }
        // Who hears that it is over also sees it.
        drop(self.orders());
        false
    }

    /// It is over, and takes no more orders.
    pub(super) fn conclude(&self, state: ServiceState, orders: Orders) {
        let _sender = self.orders();
        drop(orders);
        self.status.send_modify(|status| status.state = state);
    }

    fn orders(&self) -> MutexGuard<'_, mpsc::Sender<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As lists show it.
    pub(super) fn describe(&self) -> Service {
        let Spec { name, program, readiness, restart } = &self.spec;
        let Status { state, started_at_ns, restarts, .. } = self.status();
        let readiness = readiness.clone().map(|readiness| match readiness.probe {
            Probe::Command(words) => {
                Readiness { probe: Probe::Command(shown(&words)), ..readiness }
            }
            Probe::File(_) | Probe::Tcp(_) | Probe::Http(_) => readiness,
        });
        Service {
            name: name.clone(),
            argv: shown(&program.argv),
            cwd: program.cwd.clone(),
            readiness,
            restart: *restart,
            started_at_ns,
            restarts,
            state,
        }
    }
}
