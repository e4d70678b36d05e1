//! Handing a guest what is secret, when it comes up and when that changes.

use super::Guest;
use super::way::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{SecretStore, Secrets};
use std::time::Duration;
use tokio::time::timeout;

/// How long a guest may take to put them into its memory.
const DELIVERY_MAX: Duration = Duration::from_secs(30);

/// Puts all of them into the guest, in place of those before.
pub(super) async fn hand_over(way: &Way, secrets: &Secrets) -> Result<()> {
    let mut connection = way.greet().await?;
    connection.call(secrets.request(), DELIVERY_MAX).await.map(drop)
}

impl Guest {
    /// Has the guest, and what looks after its console, know what is secret now.
    pub(super) async fn read_secrets(&mut self, store: &SecretStore) -> Result<()> {
        let secrets = store.read()?;
        // Before the guest can print them.
        *self.discretion.borrow_mut() = secrets.redactor();
        let way = self.way.clone();
        let handing = async move { hand_over(&way, &secrets).await };
        tokio::select! {
            handed = timeout(DELIVERY_MAX, handing) => handed.unwrap_or_else(|_| {
                let message = format!("the guest did not answer within {} s", DELIVERY_MAX.as_secs());
                Err(Error::new(ErrorKind::TimedOut, message))
            }),
            how = self.run_until_end() => {
                Err(Error::new(ErrorKind::GuestLost, format!("the VMM {how}")))
            }
        }
    }
}
