//! `odin-loadtest`: finds the ceiling of a WebSocket push server and names its cause.
//!
//! ```text
//! settings   flags and environment
//! preflight  what this machine lets a run reach
//! scenario   what a run does, second by second
//! run        clients and publisher together, sampled
//! clients    all engines as one
//! verdict    why the exit code is not zero
//! samples    a bounded number of them
//! engine/    one thread with many clients
//! ws/        the WebSocket protocol, without IO
//! publish    events with the time at which they were due
//! schedule   when that is
//! watch      CPU and memory of server and clients
//! failure    causes and their fixes
//! data       what was measured
//! report/    how it is shown
//! ```
//!
//! It shares no code with the server, so that it proves that others can talk to it.

mod clients;
mod data;
mod engine;
mod failure;
mod preflight;
mod progress;
mod publish;
mod report;
mod run;
mod samples;
mod scenario;
mod schedule;
mod settings;
mod verdict;
mod watch;
mod ws;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Parser as _;

use data::RunData;
use settings::{Arguments, Settings};

fn main() -> ExitCode {
    let settings = match Settings::check(Arguments::parse()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("odin-loadtest: {mistake}"));
            return ExitCode::from(2);
        }
    };
    let watching = ctrlc::set_handler(|| {
        // The second ctrl-C ends at once, with the code that a shell expects.
        if run::IS_INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    if let Err(error) = watching {
        eprintln!("odin-loadtest: ctrl-C will not be noticed: {error}");
    }
    for &clients in &settings.progression {
        match scenario::run(&settings, clients) {
            Ok(data) => {
                if let Err(message) = show(&settings, &data) {
                    eprintln!("odin-loadtest: {message}");
                    return ExitCode::from(1);
                }
                if !data.verdict.is_empty() {
                    return ExitCode::from(1);
                }
                if data.is_interrupted {
                    break;
                }
            }
            Err(message) => {
                eprintln!("odin-loadtest: {message}");
                return ExitCode::from(1);
            }
        }
    }
    ExitCode::SUCCESS
}

/// The table, and the files that were asked for; of a progression the newest run's.
fn show(settings: &Settings, data: &RunData) -> Result<(), String> {
    println!("{}", report::table(data));
    if let Some(path) = &settings.arguments.json {
        write(path, &format!("{:#}\n", report::json(data)))?;
    }
    if let Some(path) = &settings.arguments.html {
        write(path, &report::html(data))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text)
        .map_err(|error| format!("the report {} cannot be written: {error}", path.display()))
}
