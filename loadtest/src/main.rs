//! `odin-loadtest`: finds the ceiling of a WebSocket push server and names its cause.

#[allow(dead_code, reason = "filled by the scenarios")]
mod data;
#[allow(dead_code, unused_imports, reason = "called at the end of a run")]
mod report;

fn main() {}
