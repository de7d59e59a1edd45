//! The loader as a server: one ring per connection, the control side on a single-threaded runtime, images on the
//! pipeline's own threads.
//!
//! Lifetimes. A connection owns its ring: when its socket ends, with a goodbye or without, the ring is stopped and its
//! memory freed. A loader with a named socket waits without limit for its first consumer and ends when the last one has
//! left, unless told to stay. One that was started by a launcher lives as long as the launcher's channel. SIGTERM and
//! SIGINT close all rings, with a word to the consumers; a second signal does not wait for that.

mod connection;
mod listener;
mod server;
mod statistics;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::LoaderConfig;
use crate::pipeline::Pipeline;

use connection::connection;
use listener::Acceptor;
use server::Server;
use statistics::Statistics;

pub use listener::Listener;

/// A peer that connects to the named socket and says nothing is not waited for longer.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How long a loader serves, and what it says meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Go on when the last consumer has left.
    pub stay: bool,
    /// Between two lines of statistics; zero: none.
    pub statistics: Duration,
}

/// Serves until the last consumer, the launcher or a signal ends it.
///
/// # Errors
/// If the system gives no event loop or refuses the listener. A connection that fails costs that connection only.
pub fn serve(
    pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    listener: Listener,
    options: ServeOptions,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Arc::new(Server::new(pipeline, config));
    runtime.block_on(run(server, listener, options))
}

async fn run(server: Arc<Server>, listener: Listener, options: ServeOptions) -> io::Result<()> {
    let mut acceptor = Acceptor::open(listener)?;
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut connections = JoinSet::new();
    let mut statistics = Statistics::new(&server);
    let mut ticks = tokio::time::interval(options.statistics.max(Duration::from_millis(1)));
    ticks.tick().await;
    let mut any_served = false;
    loop {
        let closing = *stopping.borrow();
        tokio::select! {
            stream = acceptor.accept(), if !closing => match stream {
                Ok(Some(stream)) => {
                    // A launcher connects a trainer that may be busy for minutes yet: with the slots of the loader
                    // before this one, with a long step, with a checkpoint. Giving up on it would leave both waiting,
                    // because no other connection will come. Its death is seen as end-of-file.
                    let patience = match acceptor {
                        Acceptor::Inherited(_) => Duration::MAX,
                        Acceptor::Named { .. } | Acceptor::Shut => HELLO_PATIENCE,
                    };
                    connections.spawn(connection(server.clone(), stream, patience, stopping.clone()));
                }
                Ok(None) => {
                    tracing::info!("the launcher is gone; closing");
                    stop.send_replace(true);
                }
                Err(error) => {
                    // Out of descriptors, or a broken message: this connection fails, the others do not.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(served) = connections.join_next() => any_served |= served.unwrap_or(true),
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
    Ok(())
}
