//! Standard output, whose failures are told apart from those of other files.

use std::io::{self, Write};
use std::{fmt, mem};

use rustix::io::Errno;

/// A writer of results to standard output, line by line.
#[derive(Debug, Default)]
pub struct Results {
    /// The beginning of a line.
    pending: Vec<u8>,
}

/// A result that could not be written to standard output.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
pub(super) struct Unwritten(io::Error);

impl Unwritten {
    /// Returns why a result could not be written, if that is what `error` is about.
    pub(super) fn find(error: &anyhow::Error) -> Option<io::ErrorKind> {
        let unwritten = error.chain().find_map(|cause| {
            let inner = cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            inner.and_then(|inner| inner.downcast_ref::<Unwritten>())
        });
        unwritten.map(|Unwritten(error)| error.kind())
    }
}

impl Results {
    /// Writes a closing word, a line that is no result: it is dropped if it cannot be written.
    pub fn announce(&mut self, line: fmt::Arguments<'_>) {
        let mut text = mem::take(&mut self.pending);
        text.extend_from_slice(line.to_string().as_bytes());
        text.push(b'\n');
        let _ = write_out(&text);
    }

    /// Writes what is pending.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if let Some(end) = self.pending.iter().rposition(|&byte| byte == b'\n') {
            let rest = self.pending.split_off(end + 1);
            let lines = mem::replace(&mut self.pending, rest);
            write_out(&lines)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_out(&mem::take(&mut self.pending))
    }
}

/// Writes all of `bytes` to standard output. One that is closed from the start swallows them, as `/dev/null` does.
fn write_out(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::BADF) => return Ok(()),
            Err(error) => {
                let error = io::Error::from(error);
                return Err(io::Error::new(error.kind(), Unwritten(error)));
            }
        }
    }
    Ok(())
}
