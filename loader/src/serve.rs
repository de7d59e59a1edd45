//! The loader as a server: one ring per connection, the control side on a single-threaded runtime, images on the
//! pipeline's own threads.
//!
//! Lifetimes. A connection owns its ring: when its socket ends, with a goodbye or without, the ring is stopped and its
//! memory freed. A loader with a named socket waits without limit for its first consumer and ends when the last one has
//! left, unless told to stay. One that was started by a launcher lives as long as the launcher's channel, or until a
//! ring fails: the launcher then starts another. SIGTERM and SIGINT close all rings, with a word to the consumers; a
//! second signal does not wait for that.

mod complaints;
mod connection;
mod error;
mod hello;
mod idle;
mod listener;
mod server;
mod statistics;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::LoaderConfig;
use crate::pipeline::Pipeline;
use crate::sampler::Plan;

use connection::{Visit, connection};
use hello::{Arrival, SILENT};
use listener::Acceptor;
use server::Server;
use statistics::Statistics;

pub use error::Error;
pub use listener::Listener;

/// How long a loader serves, and what it says meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// What samples are served for.
    pub plan: Plan,
    /// Go on when the last consumer has left.
    pub stay: bool,
    /// Between two lines of statistics; zero: none.
    pub statistics: Duration,
}

/// Serves until the last consumer, the launcher or a signal ends it.
///
/// # Errors
/// If the system gives no event loop or refuses the listener. A ring or a connection that fails costs no other; but
/// under a launcher it ends the loader, which is the launcher's signal to start another and connect it.
pub fn serve(
    pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    listener: Listener,
    options: ServeOptions,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("making an event loop"))?;
    let server = Arc::new(Server::new(pipeline, options.plan, config));
    runtime.block_on(run(server, listener, options))
}

async fn run(server: Arc<Server>, listener: Listener, options: ServeOptions) -> Result<(), Error> {
    let listening = Error::system("listening");
    let mut acceptor = Acceptor::open(listener).map_err(&listening)?;
    let from_launcher = matches!(acceptor, Acceptor::Inherited(_));
    let (stop, stopping) = watch::channel(false);
    let (newest, _) = watch::channel(0_u64);
    let mut terminate = signal(SignalKind::terminate()).map_err(&listening)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(&listening)?;
    let mut connections = JoinSet::new();
    let mut statistics = Statistics::new(&server);
    let mut ticks = tokio::time::interval(options.statistics.max(Duration::from_millis(1)));
    ticks.tick().await;
    let (mut arrivals, mut any_served, mut failure) = (0, false, None);
    loop {
        let closing = *stopping.borrow();
        tokio::select! {
            accepted = acceptor.accept(), if !closing => match accepted {
                Ok(Some((stream, peer))) => {
                    arrivals += 1;
                    newest.send_if_modified(|newest| std::mem::replace(newest, arrivals.max(*newest)) < arrivals);
                    let arrival = Arrival {
                        number: arrivals,
                        newest: newest.subscribe(),
                        peer,
                        from_launcher,
                    };
                    connections.spawn(connection(server.clone(), stream, arrival, stopping.clone()));
                }
                Ok(None) => {
                    tracing::info!("the launcher is gone; closing");
                    stop.send_replace(true);
                }
                Err(cause) if from_launcher => {
                    failure = Some(Error::ConnectionLost { cause });
                    acceptor = Acceptor::Shut;
                    stop.send_replace(true);
                }
                Err(error) => {
                    // Out of descriptors: this connection fails, the others do not, and the silent ones make room.
                    server.complaints.warn(&format!("cannot accept a connection: {error}"));
                    newest.send_replace(arrivals + SILENT);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(visit) = connections.join_next() => match visit {
                Ok(Visit::NotServed) => {}
                Ok(Visit::Served) | Err(_) => any_served = true,
                Ok(Visit::Failed(reason)) => {
                    failure = Some(Error::RingFailed(reason));
                    acceptor = Acceptor::Shut;
                    stop.send_replace(true);
                }
            },
            _ = ticks.tick(), if !options.statistics.is_zero() => statistics.print(&server),
            number = async { tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" } } => {
                if closing {
                    std::process::exit(0);
                }
                tracing::info!("{number}: closing {} connections", connections.len());
                acceptor = Acceptor::Shut;
                stop.send_replace(true);
            }
        }
        let abandoned = any_served && !options.stay && matches!(acceptor, Acceptor::Named { .. });
        if connections.is_empty() && (*stopping.borrow() || abandoned) {
            break;
        }
    }
    statistics.print_total(&server);
    failure.map_or(Ok(()), Err)
}
