//! The command line, made from the table of settings.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::setting::{DefaultValue, Kind, Row, Setting};
use super::settings::{self, UNUSED};
use super::values::{Origin, Values};
use super::{jetstream, logging, sim};

/// Prefixes of environment variables that are ours: an unknown one is probably a typing error.
const PREFIXES: [&str; 4] = ["WS_", "JS_", "NATS_", "HTTP_SOURCE_"];

/// More connections than a machine has descriptors for.
const CONNECTIONS_MAX: u64 = 100_000_000;

/// The whole command line.
pub fn command() -> Command {
    Command::new("odin-ws")
        .version(env!("CARGO_PKG_VERSION"))
        .about("NATS JetStream in, WebSocket out: one io_uring executor per core")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(simulate())
        .subcommand(tail())
        .subcommand(conformance())
        .subcommand(doctor())
        .subcommand(with_settings(
            Command::new("echo")
                .about("Echo every message, on any path: for protocol conformance tools"),
        ))
}

fn serve() -> Command {
    let command = Command::new("serve")
        .about("Push what the source publishes to every WebSocket client that subscribed")
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("print the effective settings (secrets hidden) and end"),
        );
    with_settings(command)
}

fn simulate() -> Command {
    let command = Command::new("simulate")
        .about("Publish realistic token events to JetStream")
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help("end after so many events"),
        )
        .arg(
            Arg::new("duration-seconds")
                .long("duration-seconds")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help("end after so many seconds"),
        );
    with_settings(command)
}

fn tail() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let command = Command::new("tail")
        .about("Subscribe to channels of a running server and print what arrives")
        .arg(
            Arg::new("patterns")
                .value_name("PATTERN")
                .num_args(1..)
                .required(true)
                .help("channels, or patterns with * and >"),
        )
        .arg(
            Arg::new("url")
                .long("url")
                .default_value("ws://127.0.0.1:3002/ws")
                .help("the server's WebSocket address"),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("end after so many events"),
        )
        .arg(
            Arg::new("backoff-max-ms")
                .long("backoff-max-ms")
                .value_name("MS")
                .value_parser(clap::value_parser!(u64).range(1..=3_600_000))
                .default_value("30000")
                .help("the longest wait before another attempt"),
        )
        .arg(flag("json", "print events as they came, one per line"))
        .arg(flag("snapshot", "begin with the newest message of each channel"))
        .arg(flag("no-reconnect", "end when the connection is lost"));
    with_settings(command)
}

fn conformance() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("conformance")
        .about("A server of scripts against which any client is tried; prints a verdict")
        .after_help(
            "Point the client at the address that is printed, and let it connect again and again. \
             The rules are in docs/client-guide.md.\n\
             Exit codes: 0 all passed, 1 a rule is broken, 2 wrong arguments, 3 nothing is broken \
             but something was not tried.",
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDR")
                .default_value("127.0.0.1:3002")
                .value_parser(listen_address)
                .help("where to listen; port 0 is any free port"),
        )
        .arg(
            Arg::new("scenario")
                .long("scenario")
                .value_name("NAME,...")
                .value_delimiter(',')
                .help("play only these, in this order"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("SECONDS")
                .value_parser(clap::value_parser!(u64).range(1..=3_600))
                .default_value("45")
                .help("the longest wait for the client to do something"),
        )
        .arg(flag("json", "print JSON"))
        .arg(flag("list", "print the scenarios with their rules, and end"))
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wanted = || "write an address and a port, such as 127.0.0.1:3002 or [::1]:0".to_owned();
    text.parse().map_err(|_| wanted())
}

fn doctor() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))
            .default_value(default)
            .help(help)
    };
    Command::new("doctor")
        .about("Say what this machine limits the server to, and what fixes it; changes nothing")
        .after_help(
            "Exit codes: 0 ok or notes, 1 warnings, 2 wrong arguments, 3 errors; 0 with --fix.",
        )
        .arg(
            Arg::new("role")
                .long("role")
                .value_parser(["server", "loadgen"])
                .default_value("server")
                .help("what the machine is for"),
        )
        .arg(number("connections", "10000", "connections that it has to hold"))
        .arg(number("source-addresses", "1", "addresses that a load generator connects from"))
        .arg(
            Arg::new("pid")
                .long("pid")
                .value_name("PID")
                .value_parser(clap::value_parser!(u32).range(1..))
                .help("look at the limits of this process instead of this shell's"),
        )
        .arg(flag("json", "print JSON"))
        .arg(flag("fix", "print a shell script that fixes what was found").conflicts_with("json"))
}

fn with_settings(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let taken = settings::rows().filter(|row| row.scope.includes(&name));
    taken.fold(command, |command, row| command.arg(argument(row)))
}

fn argument(row: &'static Row) -> Arg {
    let help = match row.default {
        DefaultValue::Text(default) | DefaultValue::Computed(default) => {
            format!("{} [default: {default}]", row.help)
        }
        DefaultValue::Nothing => row.help.to_owned(),
    };
    let argument = Arg::new(row.env)
        .long(row.flag)
        .env(row.env)
        .hide_env_values(true)
        .value_name("VALUE")
        .help(help);
    if is(row, &jetstream::STREAM_UPDATE) {
        argument.num_args(0..=1).default_missing_value("true")
    } else if is(row, &sim::RATE) {
        argument.visible_alias("rate")
    } else if is(row, &sim::TOKENS) {
        argument.visible_alias("tokens")
    } else if is(row, &logging::FORMAT) {
        // An empty variable is one that is not set.
        let words = std::iter::once("").chain(logging::FORMAT.kind().words());
        argument.value_parser(PossibleValuesParser::new(words))
    } else {
        argument
    }
}

fn is<K: Kind>(row: &Row, setting: &Setting<K>) -> bool {
    row.env == setting.row().env
}

/// The settings of a parsed subcommand.
pub fn values_of(matches: &ArgMatches) -> Values {
    let mut values = Values::default();
    for row in settings::rows() {
        if let Ok(Some(text)) = matches.try_get_one::<String>(row.env) {
            let origin = match matches.value_source(row.env) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                _ => Origin::Environment,
            };
            values.set(row, text.clone(), origin);
        }
    }
    values
}

/// Names of environment variables that look like settings and are none, and of those that the
/// predecessor had and this server does not use.
pub fn strangers(names: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    let known: BTreeSet<&str> = settings::rows().map(|row| row.env).collect();
    let (mut unknown, mut unused) = (Vec::new(), Vec::new());
    for name in names {
        if UNUSED.contains(&name.as_str()) {
            unused.push(name);
        } else if PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !known.contains(name.as_str())
        {
            unknown.push(name);
        }
    }
    unknown.sort();
    unused.sort();
    (unknown, unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn typing_errors_are_noticed() {
        let names = [
            "WS_ADR",
            "WS_ADDR",
            "PATH",
            "NATS_SUBJECT",
            "WS_MAX_GOROUTINES",
            "JS_X",
            "HTTP_PROXY",
        ];
        let (unknown, unused) = strangers(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(unknown, ["JS_X", "NATS_SUBJECT", "WS_ADR"]);
        assert_eq!(unused, ["WS_MAX_GOROUTINES"]);
    }
}
