//! The price simulator: made-up tokens with believable events.
//!
//! | file | owns |
//! |---|---|
//! | `model` | PURE: tokens, prices, rhythm; seeded, the clock passed in |
//! | `payload` | PURE: the JSON of each kind of event |
//! | `source` | the simulator as a source in this process |
//! | `publish` | the `simulate` command: the simulator into JetStream |

mod model;
mod payload;
mod publish;
mod source;

pub use model::SimSettings;
pub use publish::{SimulateError, SimulateSettings, Summary, simulate};
pub(super) use source::run;
