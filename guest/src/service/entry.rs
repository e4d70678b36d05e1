//! One service, as those who ask about it see it.

use super::journal::Journal;
use crate::clock;
use crate::process::kept::shown;
use pyro_protocol::AgentError;
use pyro_protocol::process::StartProcess;
use pyro_protocol::service::{
    Probe, Readiness, Restart, Service, ServiceName, ServiceState, StartService,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Orders on their way to a service's life; they are taken at once.
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

impl Entry {
    /// A service whose program has just started, and the orders it will get.
    pub(super) fn new(
        spec: Spec,
        journal: Arc<Journal>,
        pid: u32,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
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
            orders: Mutex::new(orders),
            refusal: Mutex::default(),
        };
        (entry, receiver)
    }

    /// One that was over has been started, and gets orders again.
    pub(super) fn revive(&self, pid: u32) -> mpsc::Receiver<Order> {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        *self.orders() = orders;
        self.begin_anew(pid);
        receiver
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
    pub(super) fn conclude(&self, state: ServiceState, receiver: mpsc::Receiver<Order>) {
        let _orders = self.orders();
        drop(receiver);
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
