//! The page of runs, live: a small HTTP server over their logs, which are read and never written.
//!
//! `/` is the page, `/data.json?from=…` what came since, `/metrics` the latest rows for Prometheus. Whoever reaches it
//! can read what the page shows, so it listens on loopback unless told otherwise. There, a request must also name the
//! loopback host: a web page elsewhere that had its own name lead here is refused.
//!
//! Requests are bounded in size, time and number, and each has a connection of its own.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::page::Runs;

/// Connections that are answered at the same time; others wait in the system's queue.
const CONNECTIONS: usize = 32;
/// Bytes of a request that are read.
const LONGEST_REQUEST: usize = 16 << 10;
/// Time in which a request must have come, and in which all of a connection is over.
const HEADERS: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(30);
/// Pause after the system refused a connection, as when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// The most runs that a request may ask for.
const MOST_RUNS: usize = 256;

/// The reason why runs cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one of loopback.
    #[error(
        "{address}: others could reach this address, and read what the page shows, without a password; \
         listen on 127.0.0.1 and use an SSH tunnel, or add --allow-remote"
    )]
    Remote {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("{address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The system refuses what a server needs.
    #[error("cannot serve: {cause}")]
    Runtime {
        /// What it says.
        cause: io::Error,
    },
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    runs: Arc<Mutex<Runs>>,
}

impl Server {
    /// Listens at an address: one of loopback, or any if `allow_remote`.
    ///
    /// # Errors
    /// [`Error::Remote`], or what the system says.
    pub fn bind(address: SocketAddr, allow_remote: bool, runs: Runs) -> Result<Server, Error> {
        if !address.ip().is_loopback() && !allow_remote {
            return Err(Error::Remote { address });
        }
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listen().map_err(|cause| Error::Listen { address, cause })?;
        Ok(Server {
            listener,
            address,
            runs: Arc::new(Mutex::new(runs)),
        })
    }

    /// Returns the address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until the process ends.
    ///
    /// # Errors
    /// If the system refuses what a server needs.
    pub fn run(self) -> Result<Infallible, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|cause| Error::Runtime { cause })?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)
                .map_err(|cause| Error::Runtime { cause })?;
            let room = Arc::new(Semaphore::new(CONNECTIONS));
            loop {
                // The semaphore is never closed.
                let permit = room.clone().acquire_owned().await.ok();
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::debug!("a connection was refused: {error}");
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                let (runs, host) = (self.runs.clone(), self.address.ip());
                tokio::spawn(async move {
                    let _permit = permit;
                    let answer = service_fn(move |request| answer(request, runs.clone(), host));
                    let served = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADERS)
                        .max_buf_size(LONGEST_REQUEST)
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), answer);
                    match timeout(CONNECTION, served).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!("a connection ended: {error}"),
                        Err(_) => tracing::debug!("a connection took too long"),
                    }
                });
            }
        })
    }
}

/// An answer's status, kind of content, and content.
type Answer = (StatusCode, &'static str, String);

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a request. Reading logs may take its time, so a thread of its own does it.
async fn answer(
    request: Request<Incoming>,
    runs: Arc<Mutex<Runs>>,
    host: IpAddr,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, _) = request.into_parts();
    let named = head.headers.get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    let query = head.uri.query().unwrap_or_default().to_owned();
    let refused = |status, why: &str| (status, TEXT, format!("{why}\n"));
    let (status, kind, content) = if !is_named(named, host) {
        let why = "this name does not lead here: use http://localhost with the port";
        refused(StatusCode::FORBIDDEN, why)
    } else if head.method != Method::GET && head.method != Method::HEAD {
        refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD")
    } else {
        let path = head.uri.path().to_owned();
        let made = tokio::task::spawn_blocking(move || make(&path, &query, &runs));
        let failed = |_| refused(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
        made.await.unwrap_or_else(failed)
    };
    let mut response = Response::new(Full::new(Bytes::from(content)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let resources = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", resources);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

/// Makes the answer to a request of a path.
fn make(path: &str, query: &str, runs: &Mutex<Runs>) -> Answer {
    let from = match path {
        "/" | "/metrics" => Vec::new(),
        "/data.json" => match parse_from(query) {
            Some(from) => from,
            None => {
                return (
                    StatusCode::BAD_REQUEST,
                    TEXT,
                    "from=READING-STEP,…\n".into(),
                );
            }
        },
        _ => return (StatusCode::NOT_FOUND, TEXT, "not here\n".to_owned()),
    };
    // Whoever panicked while it held them left rows behind that are whole or are read again.
    let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    runs.read();
    match path {
        "/" => (StatusCode::OK, "text/html; charset=utf-8", runs.html(true)),
        "/metrics" => (
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            runs.metrics(),
        ),
        _ => (
            StatusCode::OK,
            "application/json",
            runs.data(&from).to_string(),
        ),
    }
}

/// Reads `from=1-120,1-300`: for each run the reading of its log and the step from which on it is asked for.
fn parse_from(query: &str) -> Option<Vec<(u64, u64)>> {
    let Some(list) = query.strip_prefix("from=") else {
        return query.is_empty().then(Vec::new);
    };
    if list.split(',').count() > MOST_RUNS {
        return None;
    }
    let pair = |pair: &str| {
        let (reading, step) = pair.split_once('-')?;
        Some((reading.parse().ok()?, step.parse().ok()?))
    };
    list.split(',').map(pair).collect()
}

/// Tells whether a request that names `named` as its host may be meant for a server that listens at `host`.
fn is_named(named: Option<&str>, host: IpAddr) -> bool {
    if !host.is_loopback() {
        return true;
    }
    let Some(named) = named else { return false };
    let name = match named.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => named,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// Serves a run of one step from a thread that ends with the tests.
    fn served() -> (tempfile::TempDir, SocketAddr) {
        let folder = tempfile::tempdir().unwrap();
        let row = r#"{"step":0,"epoch":1,"itr":0,"loss":0.5,"step_ms":1,"wait_ms":0}"#;
        std::fs::write(folder.path().join("jepa_r0.jsonl"), format!("{row}\n")).unwrap();
        let runs = Runs::open(&[folder.path().to_owned()]).unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, runs).unwrap();
        let address = server.address();
        std::thread::spawn(|| server.run());
        (folder, address)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A connection that is cut off has said enough.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost:6007\r\n\r\n");
        ask(address, &request)
    }

    #[test]
    fn the_page_its_data_and_metrics_are_served_and_nothing_else() {
        let (folder, address) = served();
        let page = get(address, "/");
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.contains("data-mode=\"live\"") && page.contains("x-frame-options: DENY"));
        assert!(get(address, "/metrics").contains("\"} 0.5\n"));
        let data = get(address, "/data.json?from=1-1");
        assert!(data.contains("\"next\":[1,1]"), "{data}");
        assert!(data.contains("\"curves\":{}"), "{data}");
        for (path, status) in [
            ("/data.json?from=1", "400"),
            ("/data.json?from=-1--1", "400"),
            ("/../etc/passwd", "404"),
        ] {
            let answer = get(address, path);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
        }
        std::fs::remove_dir_all(folder.path()).unwrap();
        let answer = get(address, "/");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("No such file"));
    }

    #[test]
    fn requests_under_other_names_too_long_or_of_other_methods_are_refused() {
        let (_folder, address) = served();
        for (request, status) in [
            (
                "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
                "403",
            ),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), "403"),
            (
                "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                "405",
            ),
            (
                format!(
                    "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
                    "x".repeat(1 << 16)
                ),
                "431",
            ),
            ("nonsense\r\n\r\n".to_owned(), "400"),
        ] {
            let answer = ask(address, &request);
            let line = answer.lines().next().unwrap_or_default();
            // Who writes on after the answer may lose it.
            let is_cut = answer.is_empty() && request.len() > LONGEST_REQUEST;
            assert!(is_cut || line.contains(status), "{status}: {line}");
        }
    }

    #[test]
    fn only_loopback_is_listened_at_unless_allowed() {
        let (folder, _) = served();
        let runs = || Runs::open(&[folder.path().to_owned()]).unwrap();
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let error = Server::bind(any, false, runs()).unwrap_err();
        assert!(error.to_string().contains("--allow-remote"), "{error}");
        Server::bind(any, true, runs()).unwrap();
    }

    #[test]
    fn names_of_loopback_are_known() {
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        for (named, is_ours) in [
            (Some("localhost"), true),
            (Some("LOCALHOST:80"), true),
            (Some("127.0.0.1:6007"), true),
            (Some("[::1]:6007"), true),
            (Some("[::1]"), true),
            (Some("localhost.evil.example"), false),
            (Some("10.0.0.1"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(is_named(named, home), is_ours, "{named:?}");
        }
        assert!(is_named(Some("node7:6007"), "10.0.0.1".parse().unwrap()));
    }
}
