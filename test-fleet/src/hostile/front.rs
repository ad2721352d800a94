//! The hostile server itself: a listener, a thread for each connection, and a mind that a test changes
//! while devices talk to it.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use lockgate_shared::wire::{Format, Letter, Sealed};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::http::{self, After, Asked, Reply};
use crate::https::{Answer, Ask, Client};

/// What decides about each request.
pub type Mind = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// How connections are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// With TLS 1.3.
    #[default]
    Tls,
    /// Taken, and then nothing: no handshake ever begins.
    Mute,
    /// These bytes at once, and the end.
    Bytes(Vec<u8>),
}

/// A hostile server; dropped, it hangs up on everybody.
pub struct Front {
    port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    stop: AtomicBool,
    tls: Arc<ServerConfig>,
    upstream: Client,
    mind: Mutex<Mind>,
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Asked>>,
    open: Mutex<Vec<TcpStream>>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Front({})", self.port)
    }
}

impl Front {
    /// Listens on a free port with this certificate and its key, in front of the true server.
    /// Everything is passed on at first.
    pub fn open(certificate: &Path, key: &Path, upstream: Client) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let inner = Arc::new(Inner {
            stop: AtomicBool::new(false),
            tls: tls(certificate, key)?,
            upstream,
            mind: Mutex::new(Box::new(|_| Reply::Pass)),
            manner: Mutex::new(Manner::Tls),
            asked: Mutex::new(Vec::new()),
            open: Mutex::new(Vec::new()),
        });
        let port = listener.local_addr()?.port();
        let own = Arc::clone(&inner);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if own.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let own = Arc::clone(&own);
                // Whoever hangs up ends the connection's thread with an error: nobody's concern.
                thread::spawn(move || own.serve(stream));
            }
        });
        Ok(Self { port, inner })
    }

    /// From now on this mind answers.
    pub fn think(&self, mind: impl FnMut(&Asked) -> Reply + Send + 'static) {
        *locked(&self.inner.mind) = Box::new(mind);
    }

    /// From now on connections are taken so. Those that are open are closed.
    pub fn behave(&self, manner: Manner) {
        *locked(&self.inner.manner) = manner;
        self.hang_up();
    }

    /// Closes every open connection.
    pub fn hang_up(&self) {
        for stream in locked(&self.inner.open).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The port on this machine.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Everything that was asked since it was last forgotten.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.inner.asked).clone()
    }

    /// The paths that were asked for.
    pub fn paths(&self) -> Vec<String> {
        locked(&self.inner.asked).iter().map(|asked| asked.path.clone()).collect()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        locked(&self.inner.asked).clear();
    }

    /// The letters that came by, oldest first.
    pub fn letters(&self) -> Vec<Letter> {
        let asked = locked(&self.inner.asked);
        let letters = asked.iter().filter(|asked| asked.path == "/v1/checkin");
        letters.filter_map(|asked| letter(&asked.body)).collect()
    }

    /// Passes a request on to the true server, as it came.
    pub fn pass_on(&self, asked: &Asked) -> io::Result<Answer> {
        self.inner.pass_on(asked)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        self.hang_up();
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Inner {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        locked(&self.open).push(stream.try_clone()?);
        let manner = locked(&self.manner).clone();
        match manner {
            Manner::Tls => {}
            Manner::Mute => return wait_for_end(&mut stream),
            Manner::Bytes(bytes) => return stream.write_all(&bytes),
        }
        let connection = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(asked) = Asked::read(&mut stream)? {
            locked(&self.asked).push(asked.clone());
            let reply = (locked(&self.mind))(&asked);
            if self.answer(&asked, reply, &mut stream)? == After::Close {
                break;
            }
        }
        let inner = stream.get_mut();
        inner.conn.send_close_notify();
        inner.flush()
    }

    fn answer(
        &self,
        asked: &Asked,
        reply: Reply,
        stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>,
    ) -> io::Result<After> {
        match reply {
            Reply::Pass => http::whole(stream.get_mut(), &self.pass_on(asked)?)?,
            Reply::Changed(change) => {
                let mut answer = self.pass_on(asked)?;
                change(&mut answer);
                http::whole(stream.get_mut(), &answer)?;
            }
            Reply::Silence => wait_for_end(stream)?,
            Reply::Hangup => stream.get_mut().sock.shutdown(Shutdown::Both)?,
            reply @ (Reply::Status(..)
            | Reply::Redirect(_)
            | Reply::Cut { .. }
            | Reply::Endless { .. }
            | Reply::Drip { .. }) => return http::write(stream.get_mut(), reply),
        }
        Ok(After::Keep)
    }

    fn pass_on(&self, asked: &Asked) -> io::Result<Answer> {
        let own = ["host", "connection", "content-length"];
        let headers: Vec<(&str, &str)> = asked
            .headers
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let ask =
            Ask { method: &asked.method, path: &asked.path, headers: &headers, body: &asked.body };
        self.upstream.ask(ask).map_err(io::Error::other)
    }
}

/// A letter's content, without asking who signed it.
pub fn letter(bytes: &[u8]) -> Option<Letter> {
    let sealed = Sealed::read(bytes, Format::Binary).ok()?;
    Letter::open_unverified(&sealed).ok()
}

fn wait_for_end(stream: &mut impl Read) -> io::Result<()> {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes)? > 0 {}
    Ok(())
}

fn tls(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// What a panicking test left is as good as before: it is replaced whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
