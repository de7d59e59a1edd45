//! Addresses: of the machine where ranks meet, and the one at which this rank is reached.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use super::{Error, Meeting};
use crate::stop::Stop;
use crate::torch::shim::distributed::Device;

/// Time for one attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until somebody listens where the ranks meet; false if a stop was asked for before.
///
/// libtorch's own attempts end with the same message whether a name is unknown or nobody is there.
pub(super) fn wait_for_listener(
    meeting: &Meeting,
    patience: Duration,
    stop: &Stop,
) -> Result<bool, Error> {
    let begun = Instant::now();
    while stop.asked().is_none() {
        let addresses = addresses(meeting)?;
        let mut failure = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, ATTEMPT) {
                Ok(_) => return Ok(true),
                Err(error) => failure = Some(error),
            }
        }
        let waited = begun.elapsed();
        if waited > patience {
            return Err(Error::NobodyListens {
                place: format!("{}:{}", meeting.host, meeting.port),
                waited,
                cause: failure.unwrap_or_else(no_address),
            });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}

/// Returns where this rank listens for the others: at the interface given, else at the local address from which the
/// meeting place is reached, which is the one that its machine can reach as well.
pub(super) fn device(meeting: &Meeting, interface: Option<&str>) -> Result<Device, Error> {
    if let Some(interface) = interface {
        return Ok(Device::Interface(interface.to_owned()));
    }
    let host = |cause| Error::Host {
        host: meeting.host.clone(),
        cause,
    };
    let mut failure = None;
    for address in addresses(meeting)? {
        // Nothing is sent: the system only chooses the way.
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let local = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(address)?;
            socket.local_addr()
        });
        match local {
            Ok(local) => return Ok(Device::Address(local.ip().to_string())),
            Err(error) => failure = Some(error),
        }
    }
    Err(host(failure.unwrap_or_else(no_address)))
}

fn no_address() -> io::Error {
    io::Error::other("it has no address")
}

/// Tells if a host has an address.
pub(super) fn resolves(host: &str) -> bool {
    (host, 0)
        .to_socket_addrs()
        .is_ok_and(|mut found| found.next().is_some())
}

fn addresses(meeting: &Meeting) -> Result<Vec<SocketAddr>, Error> {
    let found = (&*meeting.host, meeting.port).to_socket_addrs();
    let found = found.map_err(|cause| Error::Host {
        host: meeting.host.clone(),
        cause,
    });
    Ok(found?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(host: &str) -> Meeting {
        Meeting {
            host: host.to_owned(),
            port: 9,
            is_served: true,
            run: String::new(),
        }
    }

    #[test]
    fn a_rank_listens_where_the_meeting_place_can_reach_it() {
        let here = Device::Address("127.0.0.1".to_owned());
        assert_eq!(device(&meeting("127.0.0.1"), None).unwrap(), here);
        let chosen = Device::Interface("ib0".to_owned());
        assert_eq!(device(&meeting("127.0.0.1"), Some("ib0")).unwrap(), chosen);
    }

    #[test]
    fn an_unknown_host_is_named_at_once() {
        let far = Duration::from_secs(600);
        let error = wait_for_listener(&meeting("no such host.invalid"), far, &Stop::default());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Host { .. }), "{error}");
        assert!(!error.may_pass());
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let stop = Stop::default();
        stop.ask(15);
        let far = Duration::from_secs(600);
        assert!(!wait_for_listener(&meeting("127.0.0.1"), far, &stop).unwrap());
    }

    #[test]
    fn a_rank_0_that_does_not_come_may_come_the_next_time() {
        let error = wait_for_listener(&meeting("127.0.0.1"), Duration::ZERO, &Stop::default());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::NobodyListens { .. }), "{error}");
        assert!(error.may_pass());
    }
}
