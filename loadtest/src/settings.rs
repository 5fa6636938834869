//! Turns flags and environment into validated settings; it reports all mistakes at once.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::ws::handshake::Target;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Connects clients until the target, or until no more get through.
    Capacity,
    /// Holds the connections and receives for the duration.
    Sustained,
    /// Publishes at a rate, or at rising rates until it breaks (--step-factor).
    Fanout,
    /// As sustained, while a share of the clients reads slowly or not at all.
    Slow,
    /// Drops all connections at once and waits until all are back.
    Storm,
    /// As sustained, for hours.
    Soak,
    /// As sustained, first alone and then beside hostile clients.
    Loris,
    /// The server's CPU per delivery beside that of a process that does nothing but send.
    Floor,
    /// The process that only sends; `floor` starts it.
    #[value(hide = true)]
    FloorSender,
}

impl Scenario {
    /// The name as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Sustained => "sustained",
            Self::Fanout => "fanout",
            Self::Slow => "slow",
            Self::Storm => "storm",
            Self::Soak => "soak",
            Self::Loris => "loris",
            Self::Floor => "floor",
            Self::FloorSender => "floor-sender",
        }
    }
}

/// Load and capacity tests of a WebSocket push server: finds the ceiling and names its cause.
///
/// Exit code: 0 all is well, 1 events are missing or came twice or something failed, 2 wrong
/// arguments.
#[derive(Debug, Clone, Parser)]
#[command(name = "odin-loadtest", version, max_term_width = 100, args_override_self = true)]
pub struct Arguments {
    /// What to do.
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// The server.
    #[arg(long, env = "WS_URL", default_value = "ws://127.0.0.1:3002/ws")]
    pub url: String,
    /// Connections wanted [default: 5000 for floor, else 1000].
    #[arg(long, env = "TARGET_CONNECTIONS")]
    pub connections: Option<usize>,
    /// A step of the usual progression instead: 100, 1k, 5k, 10k or 18k; `all` runs one after the
    /// other until one fails.
    #[arg(long)]
    pub preset: Option<String>,
    /// How long to hold, such as 90, 5m or 4h; for floor and loris, the length of each measurement
    /// [default: 10s for capacity, storm and floor, 75s for loris, 4h for soak, else 60s].
    #[arg(long, env = "DURATION")]
    pub duration: Option<String>,
    /// New connections per second.
    #[arg(long, env = "RAMP_RATE", default_value_t = 1_000.0)]
    pub ramp_rate: f64,
    /// Local addresses to connect from, comma-separated: each has its own ports.
    #[arg(long, env = "SOURCE_IPS", value_delimiter = ',')]
    pub source_ips: Vec<IpAddr>,
    /// How many channels of its own the run publishes to, or a comma-separated list of channels
    /// and patterns to subscribe to [default: 100 with --nats-url, else odin.token.>].
    #[arg(long, env = "CHANNELS")]
    pub channels: Option<String>,
    /// Channels of the list that each client subscribes to; 0: none [default: 10 for floor, else 1].
    #[arg(long, env = "SUBSCRIPTIONS")]
    pub subscriptions: Option<usize>,
    /// Publish to the server's stream through this NATS server.
    #[arg(long, env = "NATS_URL")]
    pub nats_url: Option<String>,
    /// Events per second to publish.
    #[arg(long, default_value_t = 12.0)]
    pub rate: f64,
    /// Bytes of a published payload.
    #[arg(long, default_value_t = 600)]
    pub payload_bytes: usize,
    /// fanout: multiply the rate by this after each step until it breaks.
    #[arg(long)]
    pub step_factor: Option<f64>,
    /// fanout: seconds of a step.
    #[arg(long, default_value_t = 10)]
    pub step_seconds: u64,
    /// fanout: a step breaks when its p99 is above this.
    #[arg(long, default_value_t = 100)]
    pub p99_max_ms: u64,
    /// slow: percent of the clients that read slowly.
    #[arg(long, default_value_t = 10.0)]
    pub slow_share: f64,
    /// slow: bytes per second that they read; 0: nothing.
    #[arg(long, default_value_t = 0)]
    pub slow_bytes_per_second: usize,
    /// storm: the longest wait of a client before it connects again, milliseconds.
    #[arg(long, default_value_t = 2_000)]
    pub jitter_ms: u64,
    /// loris: hostile connections, of four kinds in turn.
    #[arg(long, default_value_t = 400)]
    pub loris: usize,
    /// floor: deliveries per second, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [50_000.0, 100_000.0])]
    pub delivery_rates: Vec<f64>,
    /// floor: measurements of server and bare sender, in turn.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// floor: threads of the bare sender, each on a core of its own [default: one per core].
    #[arg(long)]
    pub sender_threads: Option<usize>,
    /// Percent of the clients that must get their subscription.
    #[arg(long, default_value_t = 100.0)]
    pub min_success: f64,
    /// Time limit in seconds for connect, for the upgrade and for the subscription.
    #[arg(long, default_value_t = 10)]
    pub timeout: u64,
    /// Attempts of a client before it gives up.
    #[arg(long, default_value_t = 5)]
    pub attempts: u32,
    /// Send heartbeats as the server's `welcome` asks, and drop connections on which nothing comes
    /// any more. They are commands that the server has to answer.
    #[arg(long)]
    pub heartbeat: bool,
    /// Process id of the server on this machine; its CPU and memory are shown.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Instead of --server-pid: a command that starts the server, split at spaces; the server ends
    /// with the run.
    #[arg(long, conflicts_with = "server_pid")]
    pub server_cmd: Option<String>,
    /// Instead of --server-pid: the server's metrics, such as http://127.0.0.1:9302/metrics.
    #[arg(long)]
    pub metrics_url: Option<String>,
    /// Offer permessage-deflate.
    #[arg(long)]
    pub compress: bool,
    /// A token for `Authorization: Bearer`.
    #[arg(long)]
    pub bearer: Option<String>,
    /// PEM file of the authority to trust, for wss.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Do not check the server's certificate, for wss.
    #[arg(long)]
    pub insecure: bool,
    /// Threads for the clients.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Sleep between rounds of reading, microseconds: fewer wakes, but latencies grow by as much.
    #[arg(long, default_value_t = 0)]
    pub poll_interval_us: u64,
    /// Never sleep while waiting for events, so that the server's sends do not also wake the
    /// clients. Each thread takes a whole core. Use it to measure the server's CPU.
    #[arg(long, conflicts_with = "poll_interval_us")]
    pub poll: bool,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write the report as a page with charts.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// No progress lines.
    #[arg(long)]
    pub quiet: bool,
    /// Start even if the self-check says that the target cannot be reached.
    #[arg(long)]
    pub force: bool,
}

/// The progression of capacity tests: its name and connections.
const PRESETS: [(&str, usize); 5] =
    [("100", 100), ("1k", 1_000), ("5k", 5_000), ("10k", 10_000), ("18k", 18_000)];

/// Arguments that can be used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The arguments as they were given.
    pub arguments: Arguments,
    /// The server.
    pub target: Target,
    /// Its address.
    pub addr: SocketAddr,
    /// Connections of each run, one after the other.
    pub progression: Vec<usize>,
    /// How long to hold.
    pub duration: Duration,
    /// Channels of the list that each client subscribes to.
    pub subscriptions: usize,
    /// Channels and patterns to subscribe to; with a publisher also what it publishes to.
    pub channels: Vec<String>,
    /// The authority's certificates.
    pub ca_pem: Option<Vec<u8>>,
}

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn check(arguments: Arguments) -> Result<Self, Vec<String>> {
        let mut mistakes = check_numbers(&arguments);
        let ca_pem = arguments.ca_file.as_ref().map(|path| {
            std::fs::read(path)
                .map_err(|error| format!("--ca-file {} cannot be read: {error}", path.display()))
        });
        let server = keep(&mut mistakes, server(&arguments.url));
        let progression = keep(&mut mistakes, progression(&arguments));
        let duration = keep(&mut mistakes, duration(&arguments));
        let channels = keep(&mut mistakes, channels(&arguments));
        let ca_pem = keep(&mut mistakes, ca_pem.transpose());
        if let (
            Some((target, addr)),
            Some(progression),
            Some(duration),
            Some(channels),
            Some(ca_pem),
        ) = (server, progression, duration, channels, ca_pem)
            && mistakes.is_empty()
        {
            let usual = if arguments.scenario == Scenario::Floor { 10 } else { 1 };
            let subscriptions = arguments.subscriptions.unwrap_or(usual);
            return Ok(Self {
                arguments,
                target,
                addr,
                progression,
                duration,
                subscriptions,
                channels,
                ca_pem,
            });
        }
        Err(mistakes)
    }

    /// The effective settings by name, for reports.
    pub fn list(&self, connections: usize) -> Vec<(String, String)> {
        let arguments = &self.arguments;
        let mut list = vec![
            ("url".to_owned(), arguments.url.clone()),
            ("connections".to_owned(), connections.to_string()),
            ("duration".to_owned(), format!("{} s", self.duration.as_secs())),
            ("ramp-rate".to_owned(), arguments.ramp_rate.to_string()),
            ("channels".to_owned(), self.channels.len().to_string()),
            ("subscriptions".to_owned(), self.subscriptions.to_string()),
            ("threads".to_owned(), arguments.threads.to_string()),
            ("poll".to_owned(), arguments.poll.to_string()),
            ("compress".to_owned(), arguments.compress.to_string()),
            ("attempts".to_owned(), arguments.attempts.to_string()),
        ];
        if arguments.nats_url.is_some() {
            list.push(("rate".to_owned(), arguments.rate.to_string()));
            list.push(("payload-bytes".to_owned(), arguments.payload_bytes.to_string()));
        }
        match arguments.scenario {
            Scenario::Slow => {
                list.push(("slow-share".to_owned(), arguments.slow_share.to_string()));
                let bytes = arguments.slow_bytes_per_second.to_string();
                list.push(("slow-bytes-per-second".to_owned(), bytes));
            }
            Scenario::Storm => list.push(("jitter-ms".to_owned(), arguments.jitter_ms.to_string())),
            Scenario::Loris => list.push(("loris".to_owned(), arguments.loris.to_string())),
            Scenario::Floor => {
                let rates: Vec<String> =
                    arguments.delivery_rates.iter().map(f64::to_string).collect();
                list.push(("delivery-rates".to_owned(), rates.join(",")));
                list.push(("rounds".to_owned(), arguments.rounds.to_string()));
            }
            _ => {}
        }
        list
    }
}

/// The value; on a mistake `None`, after the mistake is added to the list.
fn keep<T>(mistakes: &mut Vec<String>, result: Result<T, String>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn check_numbers(arguments: &Arguments) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut check = |is_good: bool, mistake: String| {
        if !is_good {
            mistakes.push(mistake);
        }
    };
    let a = arguments;
    check(
        a.ramp_rate >= 1.0 && a.ramp_rate <= 1e6,
        format!("--ramp-rate is {}: it must be from 1 to 1000000", a.ramp_rate),
    );
    check(a.rate > 0.0 && a.rate <= 1e6, format!("--rate is {}: it must be above 0", a.rate));
    check(
        (100..=1_000_000).contains(&a.payload_bytes),
        format!("--payload-bytes is {}: it must be from 100 to 1000000", a.payload_bytes),
    );
    check(
        (1..=16).contains(&a.threads),
        format!("--threads is {}: it must be from 1 to 16", a.threads),
    );
    check(a.attempts >= 1, "--attempts is 0: each client needs one".into());
    check(a.timeout >= 1, "--timeout is 0: nothing can happen in no time".into());
    check(
        (0.0..=100.0).contains(&a.min_success),
        format!("--min-success is {}: it is a percentage", a.min_success),
    );
    check(
        (0.0..=100.0).contains(&a.slow_share),
        format!("--slow-share is {}: it is a percentage", a.slow_share),
    );
    check(
        a.step_factor.is_none_or(|factor| factor > 1.0 && factor <= 100.0),
        "--step-factor must be above 1".into(),
    );
    check(
        a.delivery_rates.iter().all(|rate| (1.0..=1e7).contains(rate)),
        "--delivery-rates must be from 1 to 10000000 each".into(),
    );
    check(
        (1..=100).contains(&a.rounds),
        format!("--rounds is {}: it must be from 1 to 100", a.rounds),
    );
    check(
        a.sender_threads.is_none_or(|threads| (1..=256).contains(&threads)),
        "--sender-threads must be from 1 to 256".into(),
    );
    check(
        a.scenario != Scenario::Floor
            || (a.nats_url.is_some() && (a.server_pid.is_some() || a.server_cmd.is_some())),
        "floor publishes and looks at the server's process: say where with --nats-url, and \
         --server-pid or --server-cmd"
            .into(),
    );
    check(
        a.scenario != Scenario::Fanout || a.nats_url.is_some(),
        "fanout publishes: say where with --nats-url, such as nats://127.0.0.1:4222".into(),
    );
    mistakes
}

fn server(url: &str) -> Result<(Target, SocketAddr), String> {
    let target = Target::parse(url).map_err(|problem| format!("--url is {url:?}: {problem}"))?;
    let addr = (target.host.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|error| format!("--url is {url:?}: {}: {error}", target.host))?
        .next();
    let addr = addr.ok_or_else(|| format!("--url is {url:?}: {} has no address", target.host))?;
    Ok((target, addr))
}

fn progression(arguments: &Arguments) -> Result<Vec<usize>, String> {
    match (arguments.connections, arguments.preset.as_deref()) {
        (Some(_), Some(_)) => Err("--connections and --preset both say how many: keep one".into()),
        (Some(0), None) => Err("--connections is 0: at least one is needed".into()),
        (Some(connections), None) => Ok(vec![connections]),
        (None, None) if arguments.scenario == Scenario::Floor => Ok(vec![5_000]),
        (None, None) => Ok(vec![1_000]),
        (None, Some("all")) => Ok(PRESETS.iter().map(|(_, connections)| *connections).collect()),
        (None, Some(preset)) => {
            let found = PRESETS.iter().find(|(name, _)| *name == preset);
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            found.map(|(_, connections)| vec![*connections]).ok_or_else(|| {
                format!("--preset is {preset:?}: there are {} and all", names.join(", "))
            })
        }
    }
}

fn duration(arguments: &Arguments) -> Result<Duration, String> {
    let Some(text) = &arguments.duration else {
        return Ok(Duration::from_secs(match arguments.scenario {
            Scenario::Capacity | Scenario::Storm | Scenario::Floor => 10,
            Scenario::Soak => 4 * 3_600,
            Scenario::Loris => 75,
            _ => 60,
        }));
    };
    let (digits, factor) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3_600),
        _ => (text.as_str(), 1),
    };
    match digits.parse::<u64>() {
        Ok(number) if (1..=1_000_000).contains(&number) => Ok(Duration::from_secs(number * factor)),
        _ => Err(format!("--duration is {text:?}: write 90, 90s, 5m or 4h")),
    }
}

fn channels(arguments: &Arguments) -> Result<Vec<String>, String> {
    let own = |count: usize| (0..count).map(|it| format!("odin.token.LT{it}.trade")).collect();
    let Some(text) = &arguments.channels else {
        return Ok(match arguments.nats_url {
            Some(_) => own(100),
            None => vec!["odin.token.>".into()],
        });
    };
    if let Ok(count) = text.parse::<usize>() {
        return match count {
            1..=100_000 => Ok(own(count)),
            _ => Err(format!("--channels is {text}: it must be from 1 to 100000")),
        };
    }
    let list: Vec<String> = text.split(',').map(str::to_owned).collect();
    let is_publishing = arguments.nats_url.is_some();
    if is_publishing && list.iter().any(|name| name.contains(['*', '>'])) {
        return Err(format!(
            "--channels is {text:?}: with --nats-url the run publishes to them, so they cannot \
             be patterns"
        ));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Settings, Vec<String>> {
        let words = ["odin-loadtest"].into_iter().chain(line.split(' '));
        Settings::check(Arguments::try_parse_from(words).unwrap())
    }

    #[test]
    fn presets_durations_and_channels() {
        let settings = check("sustained --preset 10k --duration 5m").unwrap();
        assert_eq!((settings.progression, settings.duration.as_secs()), (vec![10_000], 300));
        assert_eq!(settings.channels, ["odin.token.>"]);
        let settings = check("capacity --preset all").unwrap();
        assert_eq!((settings.progression.len(), settings.duration.as_secs()), (5, 10));
        let settings = check("fanout --nats-url nats://127.0.0.1 --channels 3").unwrap();
        assert_eq!(settings.channels[2], "odin.token.LT2.trade");
        assert_eq!(check("capacity --channels a.b,c.>").unwrap().channels, ["a.b", "c.>"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let line = "fanout --ramp-rate 0 --connections 0 --duration soon --url http://a/ \
                    --channels 0 --ca-file /nowhere --threads 99 --step-factor 1";
        let mistakes = check(line).unwrap_err();
        assert_eq!(mistakes.len(), 9, "{mistakes:#?}");
        assert!(check("capacity --connections 5 --preset 1k").is_err());
        assert!(check("fanout --nats-url a --channels a.>").is_err());
    }
}
