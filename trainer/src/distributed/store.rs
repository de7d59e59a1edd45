//! The store where ranks meet, with a bound on every wait for it.
//!
//! libtorch's client waits without bound for the answer of a store that is stopped or cut off, and for ever at the door
//! of somebody else. So every operation runs in a thread of its own, which is left behind when its time is over.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Error, Meeting};
use crate::stop::Stop;
use crate::torch::shim::distributed as shim;

/// Time that an operation may take longer than the wait it was given.
const GRACE: Duration = Duration::from_secs(10);
/// Between two attempts to reach a store that is not there yet.
const LOOK: Duration = Duration::from_millis(50);

/// A store that this process serves, for as long as it lives.
#[derive(Debug)]
pub struct Served {
    _store: shim::Store,
}

/// A connection to the store of a run, or of an attempt at it.
#[derive(Clone, Debug)]
pub struct Store {
    shim: Arc<shim::Store>,
    place: String,
}

impl Served {
    /// Serves a store for processes of this machine alone, and returns where they meet.
    ///
    /// # Errors
    /// [`Error::Listen`], or what libtorch says.
    pub fn for_this_machine(run: &str) -> Result<(Served, Meeting), Error> {
        let (served, port) = Served::at((Ipv4Addr::LOCALHOST, 0).into())?;
        let meeting = Meeting {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port,
            is_served: true,
            run: run.to_owned(),
        };
        Ok((served, meeting))
    }

    /// Serves the store of a meeting, on all interfaces of this machine.
    ///
    /// # Errors
    /// [`Error::Listen`] if the port is taken, or what libtorch says.
    pub fn of(meeting: &Meeting) -> Result<Served, Error> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, meeting.port));
        match Served::at(any) {
            // No IPv6 on this machine.
            Err(Error::Listen { cause, .. })
                if cause.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
            {
                Ok(Served::at((Ipv4Addr::UNSPECIFIED, meeting.port).into())?.0)
            }
            served => Ok(served?.0),
        }
    }

    fn at(address: SocketAddr) -> Result<(Served, u16), Error> {
        let listen = |cause| Error::Listen {
            place: address.to_string(),
            cause,
        };
        let listener = TcpListener::bind(address).map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let store = shim::Store::serve(listener.into(), port, GRACE);
        let store = store.map_err(|cause| Error::Store {
            place: address.to_string(),
            cause,
        })?;
        Ok((Served { _store: store }, port))
    }
}

impl Store {
    /// Connects to the store of a meeting, which may come to be within `patience`; `None` if a stop was asked for while
    /// nobody listened.
    ///
    /// # Errors
    /// [`Error::Host`], [`Error::NobodyListens`], [`Error::Thread`], [`Error::Store`] or [`Error::Silent`].
    pub fn connect(
        meeting: &Meeting,
        patience: Duration,
        stop: &Stop,
    ) -> Result<Option<Store>, Error> {
        let place = format!("{}:{}", meeting.host, meeting.port);
        let begun = Instant::now();
        if !super::address::wait_for_listener(meeting, patience, stop)? {
            return Ok(None);
        }
        let (host, port) = (meeting.host.clone(), meeting.port);
        let left = patience.saturating_sub(begun.elapsed()) + LOOK;
        let shim = within(left + GRACE, &place, move || {
            shim::Store::connect(&host, port, left)
        })?;
        Ok(Some(Store {
            shim: Arc::new(shim),
            place,
        }))
    }

    /// Returns host and port.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Leaves a value.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Store`] or [`Error::Silent`].
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.within(GRACE, move |store| store.set(&key, value.as_bytes()))
    }

    /// Returns a value, which must come within `patience`.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Store`] or [`Error::Silent`].
    pub fn get(&self, key: &str, patience: Duration) -> Result<String, Error> {
        let key = key.to_owned();
        let value = self.within(patience + GRACE, move |store| store.get(&key, patience))?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    /// Tells if there is a value.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Store`] or [`Error::Silent`].
    pub fn has(&self, key: &str) -> Result<bool, Error> {
        let key = key.to_owned();
        self.within(GRACE, move |store| store.has(&key))
    }

    /// Adds to a number, which begins at 0, and returns the sum.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Store`] or [`Error::Silent`].
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, Error> {
        let key = key.to_owned();
        self.within(GRACE, move |store| store.add(&key, amount))
    }

    /// Waits until a number has grown to `sum`; false if it has not within `patience`.
    ///
    /// # Errors
    /// [`Error::Thread`], [`Error::Store`] or [`Error::Silent`].
    pub fn reaches(&self, key: &str, sum: i64, patience: Duration) -> Result<bool, Error> {
        let begun = Instant::now();
        while self.add(key, 0)? < sum {
            if begun.elapsed() > patience {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Does something with the store that takes `limit` at most.
    pub(super) fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&shim::Store) -> Result<T, crate::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shim = self.shim.clone();
        within(limit, &self.place, move || work(&shim))
    }
}

/// Does `work` in a thread, which is left behind if it takes longer than `limit`.
fn within<T: Send + 'static>(
    limit: Duration,
    place: &str,
    work: impl FnOnce() -> Result<T, crate::Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let worker = std::thread::Builder::new().name("store".to_owned());
    let spawned = worker.spawn(move || {
        // Nobody receives it if it comes too late.
        let _ = sender.send(work());
    });
    spawned.map_err(|cause| Error::Thread { cause })?;
    match receiver.recv_timeout(limit) {
        Ok(done) => done.map_err(|cause| Error::Store {
            place: place.to_owned(),
            cause,
        }),
        Err(_) => Err(Error::Silent {
            place: place.to_owned(),
            waited: limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_one_leaves_another_finds() {
        let (_served, meeting) = Served::for_this_machine("a run").unwrap();
        let connected = || {
            let store = Store::connect(&meeting, PATIENCE, &Stop::default()).unwrap();
            store.expect("nobody asked for a stop")
        };
        let one = connected();
        let other = connected();
        assert!(!other.has("word").unwrap());
        one.set("word", "grün").unwrap();
        assert_eq!(other.get("word", PATIENCE).unwrap(), "grün");
        assert_eq!(
            (one.add("n", 2).unwrap(), other.add("n", 3).unwrap()),
            (2, 5)
        );
        assert!(one.reaches("n", 5, PATIENCE).unwrap());
        assert!(!one.reaches("n", 6, Duration::ZERO).unwrap());
        let late = one.get("nothing", Duration::from_millis(50));
        assert!(matches!(late, Err(Error::Store { .. })), "{late:?}");
    }

    #[test]
    fn a_listener_that_says_nothing_is_given_up() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = "127.0.0.1:1".to_owned();
        let port = stranger.local_addr().unwrap().port();
        let connect = move || shim::Store::connect("127.0.0.1", port, PATIENCE);
        let error = within(Duration::from_millis(300), &place, connect).unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"));
        let port = taken.as_ref().unwrap().local_addr().unwrap().port();
        let meeting = Meeting {
            host: "localhost".into(),
            port,
            is_served: false,
            run: String::new(),
        };
        let error = Served::of(&meeting).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
