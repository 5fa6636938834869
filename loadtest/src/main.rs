//! `odin-loadtest`: finds the ceiling of a WebSocket push server and names its cause.

mod data;

fn main() {}
