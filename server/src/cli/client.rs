//! The operator's connection to the server: HTTP/1.1 over TLS 1.3, one connection for each request.
//! The server's certificate is checked against the file that `--ca` names and nothing else.

use std::{
    env,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use clap::Args;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
    header,
};
use hyper_util::rt::TokioIo;
use lockgate_shared::wire::{JSON, Problem};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    fs::File,
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::exit::CliError;

/// How long a connection may take: three round trips over a bad network.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take: the server answers from memory, or after one sync.
const ANSWER: Duration = Duration::from_secs(60);
/// How long an upload may take: 64 GiB at 20 Mbit/s are seven hours.
const UPLOAD: Duration = Duration::from_secs(8 * 3600);
/// The largest answer: a page of 500 devices with full letters.
const ANSWER_BYTES: usize = 64 << 20;
/// Bytes of a file that are read at once.
const CHUNK: usize = 64 * 1024;
/// The port when the address names none.
const PORT: u16 = 8443;

/// How to reach the server.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// The server's address, such as `https://updates.example.org:8443`
    #[arg(long, global = true, env = "LOCKGATE_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The CA certificate that the server's certificate must lead to (PEM)
    #[arg(long, global = true, env = "LOCKGATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file that holds the token; LOCKGATE_TOKEN holds the token itself
    #[arg(long, global = true, env = "LOCKGATE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// `~/.config/lockgate/cli.toml`: the same, for every day.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    server: Option<String>,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// A server and the right to ask it.
pub struct Client {
    server: String,
    host: String,
    port: u16,
    tls: TlsConnector,
    token: String,
}

impl Access {
    /// Puts together what the command line, the environment and the saved settings say, in this
    /// order.
    pub fn client(&self) -> Result<Client, CliError> {
        let saved = saved()?;
        let server = self.server.clone().or(saved.server).ok_or_else(|| {
            CliError::Usage(
                "no server is named\nhint: use `--server URL` or LOCKGATE_SERVER".into(),
            )
        })?;
        let ca = self.ca.clone().or(saved.ca).ok_or_else(|| {
            CliError::Usage(
                "no CA certificate is named\nhint: use `--ca FILE` or LOCKGATE_CA; `lockgate-server tls-init` makes `ca.pem`".into(),
            )
        })?;
        let token = match (&self.token_file, env::var("LOCKGATE_TOKEN"), saved.token_file) {
            (Some(path), _, _) => read_token(path)?,
            (None, Ok(token), _) if !token.trim().is_empty() => token.trim().to_owned(),
            (None, _, Some(path)) => read_token(&path)?,
            (None, _, None) => {
                return Err(CliError::Usage(
                    "no token is named\nhint: use `--token-file FILE` or LOCKGATE_TOKEN; `lockgate-server token create` makes the first one".into(),
                ));
            }
        };
        let (host, port) = split(&server)?;
        Ok(Client { host, port, tls: connector(&ca)?, token, server })
    }
}

fn saved() -> Result<Saved, CliError> {
    let folder = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let Some(path) = folder.map(|folder| folder.join("lockgate/cli.toml")) else {
        return Ok(Saved::default());
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| CliError::Usage(format!("`{}`: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Saved::default()),
        Err(source) => Err(CliError::File { path, source }),
    }
}

fn read_token(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| CliError::File { path: path.to_owned(), source })
}

/// Host and port of an `https` address.
fn split(server: &str) -> Result<(String, u16), CliError> {
    let wrong = || {
        CliError::Usage(format!(
            "`{server}` is not a server's address\nhint: use `https://HOST:PORT`; there is no access without TLS"
        ))
    };
    let rest = server.strip_prefix("https://").ok_or_else(wrong)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority: hyper::http::uri::Authority = rest.parse().map_err(|_| wrong())?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(wrong());
    }
    Ok((host, authority.port_u16().unwrap_or(PORT)))
}

fn connector(ca: &Path) -> Result<TlsConnector, CliError> {
    let unusable = |error: &dyn std::fmt::Display| {
        CliError::Usage(format!("`{}` is not a CA certificate in PEM: {error}", ca.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"it holds no certificate"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(CliError::ours)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

type Sent = Either<Full<Bytes>, FileBody>;

impl Client {
    /// `GET`
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let (_, bytes) = self.ask("GET", path, Either::Left(Full::default()), ANSWER).await?;
        read(&bytes)
    }

    /// A file's bytes; none where the server has no such file.
    pub async fn file(&self, path: &str) -> Result<Option<Bytes>, CliError> {
        self.look("GET", path).await
    }

    /// Whether the server has a file.
    pub async fn has(&self, path: &str) -> Result<bool, CliError> {
        Ok(self.look("HEAD", path).await?.is_some())
    }

    async fn look(&self, method: &'static str, path: &str) -> Result<Option<Bytes>, CliError> {
        match self.ask(method, path, Either::Left(Full::default()), ANSWER).await {
            Ok((_, bytes)) => Ok(Some(bytes)),
            Err(CliError::Refused(problem)) if problem.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `POST` or `PUT` with a body in JSON.
    pub async fn send(
        &self,
        method: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, CliError> {
        let body = serde_json::to_vec(body).map_err(CliError::ours)?;
        let body = Either::Left(Full::from(body));
        self.ask(method, path, body, ANSWER).await.map(|(_, bytes)| bytes)
    }

    /// `POST` with an answer.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        read(&self.send("POST", path, body).await?)
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.ask("DELETE", path, Either::Left(Full::default()), ANSWER).await.map(drop)
    }

    /// `PUT` of a file. Returns whether it was new to the server.
    pub async fn upload(&self, path: &str, file: &Path) -> Result<bool, CliError> {
        let failed = |source| CliError::File { path: file.to_owned(), source };
        let open = File::open(file).await.map_err(failed)?;
        let size = open.metadata().await.map_err(failed)?.len();
        let body = Either::Right(FileBody { file: open, left: size });
        let (status, _) = self.ask("PUT", path, body, UPLOAD).await?;
        Ok(status == StatusCode::CREATED)
    }

    async fn ask(
        &self,
        method: &'static str,
        path: &str,
        body: Sent,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), CliError> {
        let asked = async {
            let response = self.exchange(method, path, body).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            Ok::<_, CliError>((status, body.map_err(|error| self.unreachable(error))?.to_bytes()))
        };
        let (status, bytes) = timeout(patience, asked)
            .await
            .map_err(|_| self.unreachable("it did not answer in time"))??;
        if status.is_success() { Ok((status, bytes)) } else { Err(refusal(status, &bytes)) }
    }

    async fn exchange(
        &self,
        method: &'static str,
        path: &str,
        body: Sent,
    ) -> Result<hyper::Response<hyper::body::Incoming>, CliError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, JSON)
            .body(body)
            .map_err(|_| CliError::Usage("the token holds characters that no token has".into()))?;
        let stream = timeout(CONNECT, self.connect())
            .await
            .map_err(|_| self.unreachable("it did not answer in time"))??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        tokio::spawn(async move {
            // Whoever waits for the answer hears of a broken connection from there.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection ended");
            }
        });
        sender.send_request(request).await.map_err(|error| self.unreachable(error))
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CliError> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| CliError::Usage(format!("`{}`: {error}", self.host)))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.unreachable(error))?;
        self.tls.connect(name, stream).await.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CliError {
        CliError::Unreachable { server: self.server.clone(), source: source.into() }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CliError::ours(format!(
            "the server's answer cannot be read: {error}\nhint: `lockgate` and the server should have the same version"
        ))
    })
}

fn refusal(status: StatusCode, bytes: &[u8]) -> CliError {
    let problem = serde_json::from_slice(bytes).unwrap_or_else(|_| Problem {
        kind: "unknown".into(),
        title: "the server refused".into(),
        status: status.as_u16(),
        detail: format!("the server answered {status} without saying why"),
        hint: None,
    });
    CliError::Refused(Box::new(problem))
}

/// A file as the body of a request, read as it is sent.
struct FileBody {
    file: File,
    left: u64,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; CHUNK.min(usize::try_from(this.left).unwrap_or(CHUNK))];
        let mut buffer = ReadBuf::new(&mut chunk);
        match Pin::new(&mut this.file).poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len();
                if read == 0 {
                    let error = std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "the file became shorter while it was sent",
                    );
                    return Poll::Ready(Some(Err(error)));
                }
                chunk.truncate(read);
                this.left = this.left.saturating_sub(read as u64);
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_address_is_taken() {
        assert_eq!(split("https://a.example:1/").expect("an address"), ("a.example".into(), 1));
        assert_eq!(split("https://[::1]:9").expect("an address"), ("::1".into(), 9));
        assert_eq!(split("https://a.example").expect("an address"), ("a.example".into(), PORT));
        for bad in
            ["http://a.example", "a.example", "https://", "https://u:p@a.example", "https://a/b"]
        {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_without_a_problem_still_says_the_status() {
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(error.to_string().contains("502"), "{error}");
    }
}
