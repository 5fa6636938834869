//! The parts of the tests of claims.
//!
//! [`market`] publishes to a real broker and keeps the [`truth`]: each message that the broker
//! acknowledged. [`instance`] is the real server, which can be held up. A [`witness`] is a client
//! that writes down what it was told, and [`verdict`] compares that with the truth. The other
//! files are the tests, one way of losing messages each.

mod instance;
mod market;
mod scene;
mod truth;
mod verdict;
mod witness;

mod copies;
mod core;
mod edited;
mod headers;
mod last_value;
mod limits;
mod no_loss;
mod older_store;
mod overlap;
mod removal;
mod thief;
mod turnover;

pub use instance::{Instance, Mode};
pub use market::{Market, own_stream, shared_stream};
pub use witness::{Place, Witness};

/// A channel that is served.
pub const BTC: &str = "odin.token.BTC.trade";

/// Another one.
pub const ETH: &str = "odin.token.ETH.trade";

/// A subject of a shared stream that is not served.
pub const OTHER: &str = "odin.other.x";

/// One test for each consumer mode, of functions that take it.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn ordered() {
                super::$name($crate::claims_of::Mode::Ordered);
            }

            #[test]
            fn durable() {
                super::$name($crate::claims_of::Mode::Durable);
            }
        }
    )+};
}

use in_both_modes;
