//! `trainer serve RUN… --listen 127.0.0.1:6007`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use shardtool::program::{Results, arguments};
use trainer::report::page::Runs;
use trainer::report::server::Server;

/// Show the page about runs live, on this machine alone
#[derive(clap::Args)]
pub struct Args {
    /// Run directories (logging.folder), *_r0.jsonl logs, or CSV logs of the official code
    #[arg(value_name = "RUN", required = true, value_parser = arguments::path())]
    runs: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6007")]
    listen: SocketAddr,
    /// Allow an address that others can reach: whoever does reads what the page shows, without a password
    #[arg(long)]
    allow_remote: bool,
}

pub fn run(args: &Args, results: &mut Results) -> Result<u8> {
    let runs = Runs::open(&args.runs)?;
    let server = Server::bind(args.listen, args.allow_remote, runs)?;
    results.announce(format_args!("http://{}/", server.address()));
    match server.run()? {}
}
