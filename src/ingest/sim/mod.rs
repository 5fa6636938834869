//! The price simulator: made-up tokens with believable events.
//!
//! | file | owns |
//! |---|---|
//! | `model` | PURE: which token speaks when; seeded, the clock passed in |
//! | `token` | PURE: one token, its price and what happens to it |
//! | `payload` | PURE: the JSON of each kind of event |
//! | `source` | the simulator as a source in this process |
//! | `publish` | the `simulate` command: the simulator into JetStream |

mod model;
mod payload;
mod publish;
mod source;
mod token;

pub use model::SimSettings;
pub use publish::{SimulateError, SimulateSettings, Summary, simulate};
pub(super) use source::run;
