//! Who takes or sends a long body keeps to a pace: a connection whose reader takes less than the least
//! rate, or takes too long over one answer, is cut off, and so is a body whose sender dawdles. Otherwise
//! those who do nothing could hold every place. It counts bytes and looks at nothing else.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use http_body_util::BodyExt as _;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use crate::clock::Stopwatch;

/// What a reader, or a sender, must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long one that holds up the other is watched before it is judged.
    pub window: Duration,
    /// Bytes that it must have taken, or sent, by then.
    pub least: u64,
    /// The longest that one answer, or one body, may take.
    pub total: Duration,
}

/// For devices: half a kilobyte a second, a tenth of the slowest mobile network, judged over half a
/// minute, because a train goes through tunnels; and six hours for an answer, after which a download
/// goes on with a range in a new one. Ten thousand readers that take nothing are gone in half a minute.
pub const PACE: Pace = Pace {
    window: Duration::from_secs(30),
    least: 15 * 1024,
    total: Duration::from_secs(6 * 3_600),
};

/// For artifacts on their way in: they come from people's and build machines, whose lines are no worse
/// than a device's. A body cannot go on with a range, so it has a day: sixty-four gibibytes, the largest
/// artifact, at 0.8 megabytes a second.
pub const UPLOAD: Pace = Pace { total: Duration::from_secs(24 * 3_600), ..PACE };

/// Bytes of a body that came in time.
#[derive(Debug)]
pub enum Came {
    /// The next part: at least [`Pace::least`] bytes, unless it is the last.
    Part(Vec<u8>),
    /// There is no more.
    End,
}

/// Why there is no next part of a body.
#[derive(Debug, Error)]
pub enum Stalled {
    /// The sender is too slow.
    #[error("fewer than {least} bytes came within {} s", window.as_secs_f32())]
    Slow {
        /// How many must come.
        least: u64,
        /// Within how long.
        window: Duration,
    },
    /// It broke off.
    #[error("it broke off: {0}")]
    Broken(#[from] axum::Error),
}

/// The next part of a body whose sender must keep to a pace. How long the receiver takes between two
/// parts is not held against the sender.
pub async fn part(body: &mut Body, pace: &Pace) -> Result<Came, Stalled> {
    let mut came = Vec::new();
    let gather = async {
        while (came.len() as u64) < pace.least {
            let Some(frame) = body.frame().await else { break };
            if let Ok(bytes) = frame?.into_data() {
                came.extend_from_slice(&bytes);
            }
        }
        Ok::<(), axum::Error>(())
    };
    match timeout(pace.window, gather).await {
        Ok(gathered) => gathered?,
        Err(_) => return Err(Stalled::Slow { least: pace.least, window: pace.window }),
    }
    Ok(if came.is_empty() { Came::End } else { Came::Part(came) })
}

/// A stream whose writes keep to a pace.
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    pace: Pace,
    begun: Option<Stopwatch>,
    watch: Option<Watch>,
}

/// A reader that holds up an answer.
#[derive(Debug)]
struct Watch {
    until: Pin<Box<Sleep>>,
    taken: u64,
}

impl<S> Paced<S> {
    /// A stream that keeps to this pace.
    pub const fn new(inner: S, pace: Pace) -> Self {
        Self { inner, pace, begun: None, watch: None }
    }

    /// The reader takes nothing at the moment: whether it may go on so.
    fn held_up(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let begun = *self.begun.get_or_insert_with(Stopwatch::start);
        if begun.elapsed() >= self.pace.total {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let window = self.pace.window;
        let watch =
            self.watch.get_or_insert_with(|| Watch { until: Box::pin(sleep(window)), taken: 0 });
        while watch.until.as_mut().poll(context).is_ready() {
            if watch.taken < self.pace.least {
                return Err(io::ErrorKind::TimedOut.into());
            }
            watch.taken = 0;
            watch.until = Box::pin(sleep(window));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(context, bytes) {
            Poll::Ready(Ok(taken)) => {
                if let Some(watch) = &mut self.watch {
                    watch.taken += taken as u64;
                }
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match self.held_up(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        // Everything that was to be sent is on its way.
        self.watch = None;
        self.begun = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(context) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => match self.held_up(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const QUICK: Pace =
        Pace { window: Duration::from_millis(50), least: 1_000, total: Duration::from_secs(60) };

    #[tokio::test]
    async fn a_reader_that_takes_nothing_or_too_little_is_cut_off() {
        let (near, far) = duplex(64);
        let cut = Paced::new(near, QUICK).write_all(&[7; 10_000]).await;
        assert_eq!(cut.expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
        drop(far);

        let (near, mut far) = duplex(64);
        let reader = tokio::spawn(async move {
            // Some hundred bytes in a window.
            let mut some = [0; 8];
            while far.read_exact(&mut some).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let cut = Paced::new(near, QUICK).write_all(&[7; 100_000]).await;
        assert_eq!(cut.expect_err("a drip").kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }

    #[tokio::test]
    async fn a_reader_that_keeps_to_the_pace_gets_everything_and_no_answer_takes_for_ever() {
        let total = Duration::from_millis(200);
        for (pace, whole) in [(QUICK, true), (Pace { total, ..QUICK }, false)] {
            let (near, mut far) = duplex(512);
            let reader = tokio::spawn(async move {
                let (mut some, mut taken) = ([0; 512], 0);
                while let Ok(count @ 1..) = far.read(&mut some).await {
                    taken += count;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                taken
            });
            let mut paced = Paced::new(near, pace);
            let written = paced.write_all(&[7; 50_000]).await;
            drop(paced);
            let taken = reader.await.expect("no panic");
            assert_eq!((written.is_ok(), taken == 50_000), (whole, whole), "{taken}");
        }
    }
}
