//! `odin-loadtest`: finds the ceiling of a WebSocket push server and names its cause.
//!
//! ```text
//! settings   flags and environment
//! preflight  what this machine lets a run reach
//! floor/     the server beside a process that only sends
//! loris/     hostile clients
//! scenario   what a run does, second by second
//! run        clients and publisher together, sampled
//! clients    all engines as one
//! verdict    why the exit code is not zero
//! samples    a bounded number of samples
//! engine/    one thread with many clients
//! ws/        the WebSocket protocol, without IO
//! publish    events with the time at which they were due
//! schedule   when events are due
//! server_command  a server started for the run
//! watch      CPU and memory of server and clients
//! failure    causes and their fixes
//! data       what was measured
//! merge      several runs as one
//! report/    how it is shown
//! ```
//!
//! It shares no code with the server, so that it proves that others can talk to it.

mod clients;
mod data;
mod engine;
mod failure;
mod floor;
mod loris;
mod merge;
mod preflight;
mod progress;
mod publish;
mod report;
mod run;
mod samples;
mod scenario;
mod schedule;
mod server_command;
mod settings;
mod verdict;
mod watch;
mod ws;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Parser as _;

use data::RunData;
use server_command::ServerCommand;
use settings::{Arguments, Scenario, Settings};

fn main() -> ExitCode {
    let mut settings = match Settings::check(Arguments::parse()) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("odin-loadtest: {mistake}"));
            return ExitCode::from(2);
        }
    };
    let watching = ctrlc::set_handler(|| {
        // The second ctrl-C exits at once, with the code that a shell expects.
        if run::IS_INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    if let Err(error) = watching {
        eprintln!("odin-loadtest: ctrl-C will not be noticed: {error}");
    }
    if settings.arguments.scenario == Scenario::FloorSender {
        return end(floor::sender::run(&settings));
    }
    end(run_all(&mut settings))
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            if !message.is_empty() {
                eprintln!("odin-loadtest: {message}");
            }
            ExitCode::from(1)
        }
    }
}

/// One run after the other until one does not pass.
///
/// # Errors
/// What went wrong; empty if the report says it.
fn run_all(settings: &mut Settings) -> Result<(), String> {
    let server = match &settings.arguments.server_cmd {
        Some(line) => Some(ServerCommand::start(line, settings.addr)?),
        None => None,
    };
    settings.arguments.server_pid =
        server.as_ref().map(ServerCommand::pid).or(settings.arguments.server_pid);
    for &clients in &settings.progression {
        let data = scenario::run(settings, clients)?;
        show(settings, &data)?;
        if !data.verdict.is_empty() {
            return Err(String::new());
        }
        if data.is_interrupted {
            break;
        }
    }
    Ok(())
}

/// Prints the table and writes the report files; in a progression the newest run's stay.
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
