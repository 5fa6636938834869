//! Reports of made-up runs.

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use super::{html, json, table};
use crate::data::{
    FailureCount, MachineData, Percentiles, PreflightFinding, RunData, SAMPLES_MAX, Sample,
    ServerSample, Step, StormData, Totals,
};

fn empty() -> RunData {
    RunData {
        scenario: "sustained",
        settings: Vec::new(),
        started_unix_ms: 1_795_246_800_000,
        elapsed_ms: 0,
        is_interrupted: false,
        machine: MachineData { kernel: "6.18".into(), cores: 2, descriptors: 20_000 },
        samples: Vec::new(),
        connect_us: Histogram::new(3).unwrap(),
        delivery_us: Histogram::new(3).unwrap(),
        publish_late_us: Histogram::new(3).unwrap(),
        totals: Totals::default(),
        failures: Vec::new(),
        steps: Vec::new(),
        storm: None,
        floor: None,
        loris: None,
        preflight: Vec::new(),
        verdict: Vec::new(),
    }
}

/// A small, steady sequence of numbers below `below`.
fn noise(at: u64, below: u64) -> u64 {
    let mixed = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (mixed >> 33) % below
}

fn sample(at: u64, connected: u64) -> Sample {
    let deliveries = connected * 12 + noise(at, 2_000);
    let p50_us = 350 + noise(at, 90);
    let p99_us = 2_100 + noise(at + 7, 1_500);
    let latency =
        Percentiles { p50_us, p90_us: p50_us * 3, p99_us, p999_us: p99_us * 4, max_us: p99_us * 9 };
    Sample {
        at_ms: at * 1_000,
        seconds: 1,
        connected,
        connecting: if at < 10 { 120 } else { 0 },
        opened: if at < 10 { 1_000 } else { 0 },
        failed: if at == 6 { 140 } else { 0 },
        published: 12,
        deliveries,
        received_bytes: deliveries * 412,
        latency: (connected > 0).then_some(latency),
        client_cpu_us: deliveries,
        server: Some(ServerSample {
            cpu_us: deliveries * 4 + noise(at, 20_000),
            rss_bytes: 24_000_000 + connected * 1_400,
        }),
        ..Sample::default()
    }
}

/// A run of so many seconds with 10,000 connections.
fn full(seconds: u64) -> RunData {
    let mut data = empty();
    data.settings = vec![
        ("target-connections".into(), "10000".into()),
        ("ws-url".into(), "ws://127.0.0.1:3002/ws".into()),
    ];
    data.elapsed_ms = seconds * 1_000;
    data.samples = (0..seconds).map(|at| sample(at, (at * 1_000).min(10_000))).collect();
    for at in 0..100_000u64 {
        let spread = 200 + noise(at, 400);
        let tail = if at % 1_000 == 0 {
            40_000
        } else if at % 50 == 0 {
            2_500
        } else {
            0
        };
        data.delivery_us.record(spread + tail).unwrap();
        data.connect_us.record(800 + noise(at, 3_000)).unwrap();
    }
    let sum = |of: fn(&Sample) -> u64| data.samples.iter().map(of).sum::<u64>();
    data.totals = Totals {
        target: 10_000,
        succeeded: 10_000,
        connected_max: 10_000,
        attempts: 10_140,
        published: sum(|sample| sample.published),
        deliveries: sum(|sample| sample.deliveries),
        received_bytes: sum(|sample| sample.received_bytes),
        message_bytes: sum(|sample| sample.received_bytes),
        client_cpu_us: sum(|sample| sample.client_cpu_us),
        server_cpu_us: Some(sum(|sample| sample.server.map_or(0, |server| server.cpu_us))),
        ..Totals::default()
    };
    data.preflight = vec![
        PreflightFinding {
            name: "nofile".into(),
            severity: "ok",
            finding: "at most 19,936 connections".into(),
            fix: String::new(),
        },
        PreflightFinding {
            name: "somaxconn".into(),
            severity: "warning",
            finding: "at most 4,096 connections waiting to be accepted".into(),
            fix: "sysctl -w net.core.somaxconn=8192".into(),
        },
    ];
    data
}

/// A run in which everything went wrong that can.
fn failing() -> RunData {
    let mut data = full(120);
    data.scenario = "storm";
    data.is_interrupted = true;
    data.verdict =
        vec!["37 events are missing".into(), "success rate 91.2 % is below 100 %".into()];
    data.totals.succeeded = 9_999;
    data.totals.gaps = 37;
    data.failures = vec![FailureCount {
        cause: "emfile".into(),
        count: 1_400,
        first_ms: 6_100,
        connected_then: 1_021,
        meaning: "This process may not open more descriptors.".into(),
        fix: "ulimit -n 200000".into(),
    }];
    data.steps = [(12.0, true), (1_000.0, false)]
        .map(|(rate, held)| Step {
            rate,
            deliveries_wanted_per_s: rate * 10_000.0,
            deliveries_per_s: if held { rate * 10_000.0 } else { 612_000.0 },
            latency: data.samples[20].latency.unwrap(),
            gaps: 0,
            server_us_per_delivery: held.then_some(4.1),
            client_us_per_delivery: 1.0,
            held,
        })
        .into();
    data.storm = Some(StormData {
        dropped: 10_000,
        returned: 9_950,
        recovered: 9_900,
        recovered_events: 123_456,
        not_recovered: 50,
        all_back_ms: None,
        back_ms: [Some(1_200), Some(4_100), None],
    });
    data
}

#[test]
fn the_table_says_what_was_measured() {
    let cases: [(RunData, &[&str]); 3] = [
        (
            empty(),
            &[
                "sustained passed after 0:00",
                "success               -",
                "not measured",
                "(--server-pid)",
            ],
        ),
        (
            full(300),
            &[
                "sustained passed after 5:00",
                "100 % (10,000 of 10,000, 10,140 attempts)",
                "0 missing, 0 twice, 0 out of order",
                "per delivery",
                "of the server's",
                "1.37 KiB per connection",
                "egress at 100,000",
                "TB a month (computed)",
                "warning somaxconn: at most 4,096",
                "fix: sysctl -w net.core.somaxconn=8192",
            ],
        ),
        (
            failing(),
            &[
                "storm failed after 2:00",
                "- 37 events are missing",
                "interrupted",
                "99.99 % (9,999",
                "1,400 x emfile, first after 0:06 with 1,021 connections open",
                "fix: ulimit -n 200000",
                "1.2 s, 4.1 s, never",
                "612,000",
            ],
        ),
    ];
    for (data, parts) in cases {
        let text = table(&data);
        for part in parts {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    let text = table(&full(10));
    assert!(text.trim_start().starts_with("sustained passed"), "the verdict comes first: {text}");
}

#[test]
fn figures_are_computed_from_what_was_received() {
    let mut data = empty();
    data.elapsed_ms = 100_000;
    data.samples =
        vec![Sample { at_ms: 100_000, seconds: 100, connected: 1_000, ..Sample::default() }];
    data.totals.received_bytes = 100 * 1_000 * 500;
    data.totals.deliveries = 100_000;
    data.totals.client_cpu_us = 50_000_000;
    data.totals.server_cpu_us = Some(200_000_000);
    let found = super::figures::figures(&data);
    assert_eq!(found.bytes_per_connection_s, Some(500.0));
    assert_eq!(found.bytes_per_delivery, Some(500.0));
    // 500 B/s x 20,000 connections x 2,592,000 s.
    assert_eq!(found.egress[0].bytes_per_month, 25.92e12);
    assert_eq!(found.client_cpu_percent, 50.0);
    assert_eq!(found.server_cpu_percent, Some(200.0));
    assert_eq!(found.server_us_per_delivery, Some(2_000.0));
    assert_eq!(found.client_to_server_cpu, Some(0.25));
}

#[test]
fn json_survives_a_round_trip() {
    for data in [empty(), full(30), failing()] {
        let value = json(&data);
        let again: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
        assert_eq!(again, value);
        assert_eq!(again["version"], 2);
        assert_eq!(again["passed"], data.verdict.is_empty());
        assert_eq!(again["totals"]["deliveries"], data.totals.deliveries);
        assert_eq!(again["samples"].as_array().map(Vec::len), Some(data.samples.len()));
        assert_eq!(again["delivery"].is_null(), data.delivery_us.is_empty());
    }
}

#[test]
fn the_histogram_can_be_read_again() {
    let data = full(10);
    let text = json(&data)["delivery"]["hdr_v2_base64"].as_str().unwrap().to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let again: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
    assert_eq!(again, data.delivery_us);
}

/// Panics unless every element is closed in order and every attribute is quoted.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];
    let (mut open, mut rest) = (Vec::new(), page);
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray > in {:?}", &rest[..at]);
        rest = &rest[at + 1..];
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            c == '>' && !quoted
        });
        let tag = &rest[..end.expect("a tag ends")];
        assert!(!tag.contains('<'), "a tag in a tag: {tag}");
        rest = &rest[tag.len() + 1..];
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {:.80}", rest);
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
            // What is in these is no markup.
            if name == "script" || name == "style" {
                rest = &rest[rest.find("</").expect("it is closed")..];
            }
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

#[test]
fn the_page_is_well_formed_and_loads_nothing() {
    let mut long = full(SAMPLES_MAX as u64);
    for sample in long.samples.iter_mut().skip(5_000).take(3_000) {
        (sample.latency, sample.server) = (None, None);
    }
    let mut one = full(1);
    one.samples[0].server = None;
    let pages = [
        ("empty", empty()),
        ("one", one),
        ("full", full(300)),
        ("failing", failing()),
        ("long", long),
    ];
    for (name, data) in pages {
        let page = html(&data);
        assert_well_formed(&page);
        for word in ["http://", "https://", "src=", "href=", "@import", "url(", "NaN", "inf "] {
            assert!(!page.contains(word), "{name}: {word}");
        }
        assert_eq!(page.matches("<figure").count(), 6, "{name}");
        assert!(page.len() < 1_500_000, "{name}: {} bytes", page.len());
        // A directory to look at the pages in.
        if let Some(directory) = std::env::var_os("REPORT_SAMPLES") {
            std::fs::write(std::path::Path::new(&directory).join(format!("{name}.html")), page)
                .unwrap();
        }
    }
}

#[test]
fn text_is_never_markup() {
    let evil = "</script><img src=x onerror=\"a()\">'&\u{0}";
    let mut data = failing();
    data.settings = vec![(evil.into(), evil.into())];
    data.machine.kernel = evil.into();
    data.verdict = vec![evil.into()];
    data.failures[0].cause = evil.into();
    data.failures[0].meaning = evil.into();
    data.failures[0].fix = evil.into();
    data.preflight[1].name = evil.into();
    data.preflight[1].finding = evil.into();
    data.preflight[1].fix = evil.into();
    let page = html(&data);
    assert_well_formed(&page);
    assert!(!page.contains("<img") && !page.contains('\0'));
    assert_eq!(page.matches("&lt;img src=x onerror=&quot;a()&quot;&gt;&#39;&amp;").count(), 10);
}
