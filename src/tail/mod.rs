//! `odin-ws tail`: a client for the command line, which is how people try the server.
//!
//! It subscribes, prints what arrives, says on standard error what is not an event, and comes
//! back where it was when the connection is lost, after the rules of docs/client-guide.md.
//!
//! ```text
//! ended     why a connection ended
//! settings  what is wanted, what was seen, why it ended
//! session   one connection: what is sent, when it is given up
//! address   where the server is, and the way to it
//! place     what was received, and where to go on
//! backoff   the waits between attempts
//! line      what is shown
//! ```

mod address;
mod backoff;
mod ended;
mod line;
mod place;
mod session;
mod settings;

use std::io;
use std::time::{Duration, Instant};

use self::address::Address;
use self::backoff::Backoff;
use self::ended::Ended;
use self::place::Place;
use self::session::Tail;
pub use self::settings::{TailError, TailSettings, TailSummary};

/// A server cannot ask for a longer wait.
const TOLD_MAX: Duration = Duration::from_secs(3_600);

/// Follows until the count is reached or standard output is closed.
///
/// # Errors
/// [`TailError`]; a lost connection only if reconnecting was not wanted.
pub fn run(settings: &TailSettings) -> Result<TailSummary, TailError> {
    let address = Address::parse(&settings.url)?;
    let mut backoff = Backoff::new(settings.backoff_max);
    let (summary, place) = (TailSummary::default(), Place::default());
    let mut tail = Tail { settings, address, summary, place };
    let url = || settings.url.clone();
    let mut wait = |cause: &str, subscribed: Option<Instant>, told: Duration| {
        let delay = backoff.next(subscribed, rand::random());
        eprintln!("{}: {cause}; trying again", settings.url);
        std::thread::sleep(told.min(TOLD_MAX) + delay);
    };
    loop {
        match tail.session() {
            Ok(()) => return Ok(tail.summary),
            Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(tail.summary);
            }
            Err(Ended::Output(error)) => return Err(error.into()),
            Err(Ended::AllRejected) => return Err(TailError::AllRejected),
            Err(Ended::ForGood(cause)) => return Err(TailError::ForGood { url: url(), cause }),
            Err(Ended::Lost { cause, .. }) if !settings.reconnects => {
                return Err(TailError::Lost { url: url(), cause });
            }
            Err(Ended::NotConnected { cause, .. }) if !settings.reconnects => {
                return Err(TailError::Connect { url: url(), cause });
            }
            Err(Ended::Lost { cause, subscribed, not_before }) => {
                let told = not_before.map(|at| at.saturating_duration_since(Instant::now()));
                wait(&cause, subscribed, told.unwrap_or_default());
            }
            Err(Ended::NotConnected { cause, retry_after }) => {
                wait(&cause, None, retry_after.unwrap_or_default());
            }
        }
    }
}
