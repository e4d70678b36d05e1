//! A time of the wall clock, waited for without looking at it.

use super::ttl::Ttl;
use jiff::Timestamp;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// How long the wall clock is not looked at where the kernel cannot watch it.
const UNWATCHED: Duration = Duration::from_secs(30);

/// Returns when the time is over.
pub(super) async fn until(ttl: Option<Ttl>) {
    let Some(Ttl { expires_at, .. }) = ttl else { return pending().await };
    while Timestamp::now() < expires_at {
        if rings_at(expires_at).await.is_err() {
            sleep(UNWATCHED).await;
        }
    }
}

/// Returns once the wall clock is there: also when it was set, or the host slept
/// meanwhile. Nothing happens until then.
async fn rings_at(when: Timestamp) -> io::Result<()> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    // Nothing at all would be no alarm.
    let it_value =
        Timespec { tv_sec: when.as_second(), tv_nsec: i64::from(when.subsec_nanosecond()).max(1) };
    let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    let alarm = Itimerspec { it_interval, it_value };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &alarm)?;
    // SAFETY: the timer is open, and nobody else has it.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
    timer.readable().await?.retain_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn r8_without_a_time_to_live_there_is_no_end() {
        assert!(timeout(Duration::from_secs(1 << 20), until(None)).await.is_err());
    }

    #[tokio::test]
    async fn it_rings_at_its_time_and_not_before() {
        rings_at(Timestamp::UNIX_EPOCH).await.expect("a timer");
        let soon = Timestamp::now() + Duration::from_millis(20);
        rings_at(soon).await.expect("a timer");
        assert!(Timestamp::now() >= soon);
    }
}
