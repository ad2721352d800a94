//! What wakes the agent: the end of a span, an order to end (SIGTERM, SIGINT), or a poke (SIGUSR1, by
//! `lockgate-agent check`). Between them nothing runs: no tick, no timer, no second thread.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::TransportError;

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
        let mut time = pin!(tokio::time::sleep(span));
        let woken = poll_fn(|cx| {
            if self.terminate.poll_recv(cx).is_ready() || self.interrupt.poll_recv(cx).is_ready() {
                return Poll::Ready(Woken::Terminate);
            }
            if self.poke.poll_recv(cx).is_ready() {
                return Poll::Ready(Woken::Poked);
            }
            time.as_mut().poll(cx).map(|()| Woken::Time)
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
