//! A copy of a guest's disk, taken while the guest stands still.
//!
//! That is next to nothing where the host's file system copies by reference. The
//! guest goes on whatever becomes of the copy, and of whoever wanted it. Its file
//! system is not frozen: the copy is as after a power failure, which its journal is
//! made for.

use super::Guest;
use super::order::{CopyDisk, DiskCopied};
use super::pausing::Told;
use crate::blocking::blocking;
use crate::disk::copy::{Copied, sparse_while};
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a guest may be made to stand still for a copy: its callers wait
/// meanwhile, and its programs' peers do.
pub(crate) const STILL_MAX: Duration = Duration::from_secs(60);

/// Lets a copy that nobody waits for end.
struct Going(Arc<AtomicBool>);

impl Drop for Going {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Guest {
    /// Copies its disk, unless `wanted` is over before: then nobody wants the copy
    /// any more.
    pub(super) async fn copy_disk(
        &mut self,
        told: &mut Told,
        order: CopyDisk,
        wanted: impl Future<Output = ()>,
    ) -> Result<DiskCopied> {
        tokio::pin!(wanted);
        let stands_still = told.paused_at().is_some();
        let begun = Instant::now();
        if !stands_still {
            self.stand_still().await?;
        }
        let copied = self.copy(order, &mut wanted).await;
        let still = begun.elapsed();
        if !stands_still {
            self.go_on(told, still).await?;
        }
        let still_ms = if stands_still { 0 } else { milliseconds(still) };
        Ok(DiskCopied { by_reference: copied? == Copied::ByReference, still_ms })
    }

    /// On a thread that nobody waits for once the copy is given up: a disk of the
    /// host's that hangs would hold the guest up with it.
    async fn copy(
        &mut self,
        CopyDisk { from, to }: CopyDisk,
        wanted: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<Copied> {
        let going = Arc::new(AtomicBool::new(true));
        let go_on = going.clone();
        let copying = blocking(move || sparse_while(&from, &to, &|| go_on.load(Ordering::Relaxed)));
        let _going = Going(going);
        tokio::select! {
            copied = timeout(STILL_MAX, copying) => copied.unwrap_or_else(|_| Err(too_long())),
            () = wanted => Err(unwanted()),
            how = self.run_until_end() => Err(ended(&how)),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn too_long() -> Error {
    let most = STILL_MAX.as_secs();
    let message = format!("copying the disk takes longer than the guest may stand still, {most} s");
    Error::new(ErrorKind::TimedOut, message)
        .hint("stop the workspace first: then a copy may take as long as it takes")
}

fn unwanted() -> Error {
    Error::new(ErrorKind::Cancelled, "nobody waits for the copy any more")
}

fn ended(how: &str) -> Error {
    Error::new(ErrorKind::GuestLost, format!("the VMM {how}"))
}
