//! What wakes the agent: the end of a span, an order to end (SIGTERM, SIGINT), or a poke (SIGUSR1, by
//! `lockgate-agent check`). Between them nothing runs: no tick, no timer, no second thread.

use std::{
    future::poll_fn,
    io, mem,
    os::fd::OwnedFd,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    time::Sleep,
};

use super::TransportError;
use crate::footprint;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time is over.
    Time,
    /// The agent is to end.
    Terminate,
    /// Somebody wants a poll now.
    Poked,
}

/// The signals that the agent heeds. They are remembered while it is busy.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    poke: Signal,
    ended: bool,
}

/// What a long wait is measured by.
enum Time {
    /// The system's own alarm, which wakes once.
    Alarm(AsyncFd<OwnedFd>),
    /// The runtime's timer, where there is no such alarm: it wakes a few times on its way.
    Runtime(Pin<Box<Sleep>>),
}

/// An alarm after this span. It counts while the machine sleeps, as the schedule does.
#[expect(
    deprecated,
    reason = "its hazard is a descriptor that somebody else closes; this one is owned"
)]
fn alarm(span: Duration) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let alarm = timerfd_create(TimerfdClockId::Boottime, flags)?;
    let it_value = Timespec {
        tv_sec: span.as_secs().try_into().unwrap_or(i64::MAX),
        // None at all would switch it off.
        tv_nsec: span.subsec_nanos().max(1).into(),
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    timerfd_settime(&alarm, TimerfdTimerFlags::empty(), &once)?;
    AsyncFd::new(alarm)
}

impl Signals {
    /// From now on these signals end nothing by themselves. Must be called within the runtime.
    pub(super) fn heed() -> Result<Self, TransportError> {
        let heed = |kind| signal(kind).map_err(TransportError::Runtime);
        Ok(Self {
            terminate: heed(SignalKind::terminate())?,
            interrupt: heed(SignalKind::interrupt())?,
            poke: heed(SignalKind::user_defined1())?,
            ended: false,
        })
    }

    /// Waits for a signal or the span's end.
    pub(super) async fn wait(&mut self, span: Duration) -> Woken {
        if self.ended {
            return Woken::Terminate;
        }
        let mut time = match alarm(span) {
            Ok(alarm) => Time::Alarm(alarm),
            Err(_) => Time::Runtime(Box::pin(tokio::time::sleep(span))),
        };
        let mut busy = span >= footprint::LEAST_PAUSE;
        let woken = poll_fn(|cx| {
            if self.terminate.poll_recv(cx).is_ready() || self.interrupt.poll_recv(cx).is_ready() {
                return Poll::Ready(Woken::Terminate);
            }
            if self.poke.poll_recv(cx).is_ready() {
                return Poll::Ready(Woken::Poked);
            }
            let over = match &mut time {
                Time::Alarm(alarm) => alarm.poll_read_ready(cx).is_ready(),
                Time::Runtime(sleep) => sleep.as_mut().poll(cx).is_ready(),
            };
            if over {
                return Poll::Ready(Woken::Time);
            }
            // The last that runs before the system is asked to wake the process.
            if mem::take(&mut busy) {
                footprint::rest();
            }
            Poll::Pending
        })
        .await;
        self.ended = woken == Woken::Terminate;
        woken
    }

    /// Drives `work` until it ends, or until the agent is told to end. A poke waits its turn.
    pub(super) async fn unless_ended<T>(
        &mut self,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let mut work = pin!(work);
        let result = poll_fn(|cx| {
            let told =
                self.terminate.poll_recv(cx).is_ready() || self.interrupt.poll_recv(cx).is_ready();
            if self.ended || told {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await;
        self.ended |= result.is_none();
        result.unwrap_or(Err(TransportError::Terminated))
    }
}
