//! The link: how a trainer rank and the loader find each other, agree, and notice each other's end.
//!
//! One Unix stream per rank. Both directions carry frames: a little-endian u32 length, then that many bytes of JSON.
//!
//! ```text
//! trainer                                   loader
//!    │  Hello (what I am configured for)      │   checks every field
//!    │ ─────────────────────────────────────▶ │
//!    │  Welcome (ring's geometry) + memfd     │   or Refused (both values), and closes
//!    │ ◀───────────────────────────────────── │
//!    │        … slots through the ring …      │
//!    │  Goodbye                               │   or Closing (reason)
//!    │ ─────────────────────────────────────▶ │
//! ```
//!
//! End-of-file without `Goodbye` or `Closing` means that the peer died. The descriptor of the ring's memory travels
//! with the first byte of the welcome. [`Feed`] is the consumer's side; the loader's is `serve`.
//!
//! | file | what |
//! |---|---|
//! | `messages` | what the two say, and the comparison of a hello with what is served |
//! | `frames` | messages as bytes on a stream |
//! | `descriptors` | passing descriptors: a ring's memory, a connection, a launcher's channel |
//! | `socket` | the named socket of a loader that was started by hand |
//! | `expected` | what a configuration gives, for both sides |
//! | `peer`, `patience` | who is waited for, and for how long |
//! | `connect`, `feed` | the consumer's side |

mod connect;
mod descriptors;
mod error;
mod expected;
mod feed;
mod frames;
mod messages;
mod patience;
mod peer;
mod socket;

pub use connect::Endpoint;
#[cfg(feature = "serve")]
pub(crate) use descriptors::send_with_fd;
pub use descriptors::{inherit, receive_stream, send_stream};
pub use error::Error;
pub use expected::geometry;
pub use feed::Feed;
#[cfg(feature = "serve")]
pub(crate) use frames::{decode, encode, frame_len};
pub use messages::{Hello, PROTOCOL, Refusal, Reply, Request, Served, Welcome};
pub use patience::Patience;
pub use peer::Peer;
pub use socket::{NamedSocket, default_socket_path};
