//! Arguments -> configuration -> run -> exit code.
//!
//! Exit codes: 0 ended as asked, 1 could not start or go on, 2 wrong arguments or settings, 130
//! and 143 ended at once by a second signal. `doctor`: 0 ok or notes, 1 warnings, 3 errors.
//! `conformance`: 0 all passed, 1 a rule is broken, 3 something was not tried.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ArgMatches;
use odin_ws::config::values::{ConfigErrors, Values};
use odin_ws::config::{self, LogConfig, Machine, ServerKind, cli};
use odin_ws::conformance::{self, ConformanceError};
use odin_ws::control::doctor::{self, Question, Role, Root};
use odin_ws::control::signals::EndSignals;
use odin_ws::control::{log, machine};
use odin_ws::ingest::{SimulateError, simulate};
use odin_ws::runtime::{self, Feeding, RuntimeError};
use odin_ws::tail::{self, TailError, TailSettings};

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    #[error(transparent)]
    Tail(#[from] TailError),
    #[error(transparent)]
    Conformance(#[from] ConformanceError),
    #[error("the system refused to start the command: {0}")]
    System(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    if name == "doctor" {
        return ExitCode::from(examine(matches));
    }
    let code = match name {
        "conformance" => try_client(matches),
        _ => run(name, matches).map(|()| 0),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("odin-ws: {error}");
            let is_wrong = matches!(error, CommandError::Config(_) | CommandError::Conformance(_));
            ExitCode::from(if is_wrong { 2 } else { 1 })
        }
    }
}

/// Plays the scenarios until they or ctrl-C end it. Returns the exit code.
fn try_client(matches: &ArgMatches) -> Result<u8, CommandError> {
    if matches.get_flag("list") {
        print!("{}", conformance::list());
        return Ok(0);
    }
    let settings = conformance::Settings {
        // The command line has a default.
        listen: matches
            .get_one("listen")
            .copied()
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        is_json: matches.get_flag("json"),
        scenarios: matches.get_many("scenario").unwrap_or_default().cloned().collect(),
        patience: Duration::from_secs(matches.get_one("timeout").copied().unwrap_or(45)),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { EndSignals::new() })?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            signals.next().await;
            flag.store(true, Ordering::Relaxed);
            // Somebody who is in a hurry presses it twice.
            let (_, code) = signals.next().await;
            std::process::exit(code);
        });
    })?;
    Ok(conformance::run(&settings, &stop)?)
}

fn run(name: &str, matches: &ArgMatches) -> Result<(), CommandError> {
    let machine = machine::detect();
    let mut values = cli::values_of(matches);
    let log = config::log_config(&mut values, &machine);
    match name {
        "serve" => serve(matches, values, &machine, &log),
        "echo" => {
            let config = config::server_config(&mut values, &machine, ServerKind::Echo);
            values.finish()?;
            start_log(&log);
            Ok(runtime::echo(&config)?)
        }
        "simulate" => publish_simulated(matches, values, &machine, &log),
        _ => follow(matches, values, &log),
    }
}

fn serve(
    matches: &ArgMatches,
    mut values: Values,
    machine: &Machine,
    log: &LogConfig,
) -> Result<(), CommandError> {
    let config = config::server_config(&mut values, machine, ServerKind::Serve);
    let (source, allowed) = config::source(&mut values, machine);
    let events_per_second_max = config::broadcast_rate_max(&mut values);
    let pressure_limits = config::pressure_limits(&mut values);
    let printed = config::print(&values, "serve");
    values.finish()?;
    if matches.get_flag("print-config") {
        print!("{printed}");
        return Ok(());
    }
    start_log(log);
    let feeding = Feeding { source, allowed, events_per_second_max, pressure_limits };
    Ok(runtime::serve(&config, feeding)?)
}

fn publish_simulated(
    matches: &ArgMatches,
    mut values: Values,
    machine: &Machine,
    log: &LogConfig,
) -> Result<(), CommandError> {
    let mut settings = config::simulate_settings(&mut values, machine);
    values.finish()?;
    start_log(log);
    settings.count = matches.get_one("count").copied();
    settings.duration = matches.get_one("duration-seconds").copied().map(Duration::from_secs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(async {
        let mut signals = EndSignals::new()?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            stop.send_replace(true);
        });
        Ok::<_, CommandError>(simulate(settings, stopped).await?)
    })?;
    println!("{summary}");
    Ok(())
}

fn follow(matches: &ArgMatches, values: Values, log: &LogConfig) -> Result<(), CommandError> {
    values.finish()?;
    start_log(log);
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let patterns = matches.get_many::<String>("patterns").unwrap_or_default().cloned().collect();
    let summary = tail::run(&TailSettings {
        url: text("url"),
        patterns,
        is_json: matches.get_flag("json"),
        count: matches.get_one("count").copied(),
        wants_snapshot: matches.get_flag("snapshot"),
        reconnects: !matches.get_flag("no-reconnect"),
        backoff_max: Duration::from_millis(
            matches.get_one("backoff-max-ms").copied().unwrap_or(30_000),
        ),
    })?;
    eprintln!("{summary}");
    Ok(())
}

/// Prints what was found. Before anything else, for a command that runs raises its descriptors.
fn examine(matches: &ArgMatches) -> u8 {
    let number = |name: &str| matches.get_one(name).copied().unwrap_or(1);
    let is_server = matches.get_one::<String>("role").is_some_and(|role| role == "server");
    let question = Question {
        role: if is_server { Role::Server } else { Role::LoadGenerator },
        connections: number("connections"),
        source_addresses: number("source-addresses"),
        pid: matches.get_one("pid").copied(),
    };
    let root = Root::new("/");
    let cpu = machine::cpus().first().copied().unwrap_or(0);
    let io_uring = if is_server { machine::check_io_uring(cpu) } else { Ok(()) };
    let diagnosis = doctor::examine(&root, question, &io_uring);
    if matches.get_flag("fix") {
        print!("{}", doctor::script(&root, &diagnosis));
        return 0;
    }
    if matches.get_flag("json") {
        println!("{:#}", doctor::json(&diagnosis));
    } else {
        print!("{}", doctor::text(&diagnosis));
    }
    doctor::exit_code(diagnosis.severity())
}

fn start_log(config: &LogConfig) {
    log::start(config);
    let (unknown, unused) = cli::strangers(std::env::vars().map(|(name, _)| name));
    for name in unknown {
        tracing::warn!(variable = %name, "this environment variable is unknown: a typing error?");
    }
    for name in unused {
        tracing::warn!(
            variable = %name,
            "this environment variable is unused: shards have no worker pools or goroutines"
        );
    }
}
