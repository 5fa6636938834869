//! How long the start of a server waits for an address that is in use.
//!
//! Bound: [`LISTEN_PATIENCE`].

use std::io;
use std::time::{Duration, Instant};

/// How long an address that is in use is tried again. The kernel closes the sockets of a process
/// that was killed a moment after its end, because its rings still hold them: a successor that is
/// started at once waits for that.
pub(crate) const LISTEN_PATIENCE: Duration = Duration::from_secs(2);

/// The time between two tries.
const LISTEN_INTERVAL: Duration = Duration::from_millis(20);

/// Tries to listen until the address is free. Blocks the thread: it is for the start.
///
/// # Errors
/// What the last try said.
pub(crate) fn while_in_use<T>(mut listen: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + LISTEN_PATIENCE;
    loop {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(LISTEN_INTERVAL);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_becomes_free_is_taken_and_other_errors_are_told_at_once() {
        let mut tries = 0;
        let freed = while_in_use(|| {
            tries += 1;
            if tries < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(tries) }
        });
        assert_eq!(freed.unwrap(), 3);
        let refused: io::Result<()> = while_in_use(|| {
            tries += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!((refused.unwrap_err().kind(), tries), (io::ErrorKind::PermissionDenied, 4));
    }
}
