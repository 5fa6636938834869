//! The polling source against a real HTTP server, as WebSocket clients and operators meet it:
//! each statement of docs/http-source.md.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::path::{Path, PathBuf};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use support::backend::{Asked, Conditions};
use support::server::run;
use support::{Backend, Client, Fault, Server};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

fn serve(backend: &Backend, arguments: &[&str]) -> Server {
    let url = backend.url();
    let fixed = ["--source", "http", "--shards", "1", "--http-source-url", &url];
    Server::serve(&[&fixed, arguments].concat())
}

/// A live server and a client that gets everything.
fn live(backend: &Backend, arguments: &[&str]) -> (Server, Client) {
    let server = serve(backend, arguments);
    server.wait_ready(200);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>", "odin.global.>"]);
    (server, client)
}

fn token(ticker: &str, number: u64) -> Value {
    json!({"ticker": ticker, "n": number})
}

/// The next event, past what is told about the source, which a slow machine may have been.
fn next_event(client: &mut Client) -> Value {
    loop {
        let message = client.next();
        match message["type"].as_str() {
            Some("source_stale" | "source_live") => {}
            _ => {
                assert!(message.get("seq").is_some(), "not an event: {message}");
                return message;
            }
        }
    }
}

/// The next message of this type; nothing but news about the source may come before it.
fn next_of(client: &mut Client, kind: &str) -> Value {
    loop {
        let message = client.next();
        if message["type"] == kind {
            return message;
        }
        assert!(message["type"].as_str().unwrap().starts_with("source_"), "{message}");
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

fn with_status(asked: &[Asked], status: u16) -> usize {
    asked.iter().filter(|asked| asked.status == status).count()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn changes_come_in_order_and_the_cursor_goes_back() {
    let backend = Backend::start();
    backend.publish(token("OLD", 0));
    let (server, mut client) = live(&backend, &[]);
    let mut late = Client::connect(&server);
    let answer = late.command(&json!({
        "type": "subscribe", "channels": ["odin.token.OLD.*"], "snapshot": true
    }));
    assert_eq!(answer["snapshot"]["messages"], 1, "the first answer is there before it is ready");
    for number in 1..=50 {
        backend.publish(token(if number % 2 == 0 { "BTC" } else { "ETH" }, number));
    }
    let events: Vec<Value> = (0..50).map(|_| next_event(&mut client)).collect();
    assert_eq!(numbers(&events), (1..=50).collect::<Vec<_>>());
    for (event, number) in events.iter().zip(1_u64..) {
        let channel =
            if number % 2 == 0 { "odin.token.BTC.update" } else { "odin.token.ETH.update" };
        assert_eq!((&event["channel"], &event["type"]), (&json!(channel), &json!("token_update")));
        assert_eq!(event["pos"], number + 1);
        assert_eq!(event["prev"], if number > 2 { number - 1 } else { 0 });
    }
    assert!(client.welcome["epoch"].as_str().unwrap().starts_with("http-"));
    let newest = "key=hunter2&since=0%20%26%C3%A9%3D51";
    let asked = backend.wait_until(|asked| asked.last().unwrap().uri.query() == Some(newest));
    assert_eq!((asked[0].uri.path(), asked[0].since()), ("/changes", None));
    assert!(asked[1..].iter().all(|asked| asked.since().is_some()), "{asked:#?}");
}

#[test]
fn unchanged_answers_cost_no_body() {
    for (conditions, header) in
        [(Conditions::EntityTag, "if-none-match"), (Conditions::Date, "if-modified-since")]
    {
        let backend = Backend::start();
        backend.conditions(conditions);
        let (_server, mut client) = live(&backend, &[]);
        backend.wait_until(|asked| with_status(asked, 304) >= 3);
        backend.publish(token("BTC", 1));
        assert_eq!(next_event(&mut client)["data"]["n"], 1);
        let before = with_status(&backend.asked(), 304);
        let asked = backend.wait_until(|asked| with_status(asked, 304) >= before + 3);
        // A condition belongs to the request that the answer was for.
        for pair in asked.windows(2) {
            if !pair[1].header(header).is_empty() {
                assert_eq!(pair[0].uri, pair[1].uri);
            }
        }
        client.assert_quiet();
    }
}

#[test]
fn an_outage_is_told_and_loses_nothing() {
    let backend = Backend::start();
    let (_server, mut client) = live(&backend, &[]);
    backend.publish(token("BTC", 1));
    let before = next_event(&mut client);
    backend.fail(Fault::Status(500, "x-none", ""));
    next_of(&mut client, "source_stale");
    for number in 2..=4 {
        backend.publish(token("BTC", number));
    }
    backend.heal();
    let events = client.next_events(3);
    assert_eq!(numbers(&events), [2, 3, 4]);
    assert_eq!(events[0]["prev"], before["pos"]);
    let told = client.next();
    assert_eq!((&told["type"], &told["pos"]), (&json!("source_live"), &json!(4)), "{told}");
    assert_eq!(told["epoch"], client.welcome["epoch"]);
}

#[test]
fn a_backend_that_is_away_is_waited_for() {
    let mut backend = Backend::start();
    backend.stop();
    let mut server = serve(&backend, &[]);
    server.wait_for_log("Connection refused");
    server.wait_ready(503);
    assert!(server.get("/ready").contains("\"source\":\"connecting\""));
    backend.launch();
    server.wait_ready(200);
    let mut client = Client::connect(&server);
    client.subscribe(&["odin.token.>"]);
    backend.publish(token("BTC", 1));
    assert_eq!(next_event(&mut client)["data"]["n"], 1);
    backend.stop();
    next_of(&mut client, "source_stale");
    backend.publish(token("BTC", 2));
    backend.launch();
    assert_eq!(client.next_event()["data"]["n"], 2);
    next_of(&mut client, "source_live");
}

#[test]
fn a_lost_cursor_is_a_resync_with_everything_after_it() {
    for lost in ["410", "400", "reset", "too long"] {
        let backend = Backend::start();
        let (_server, mut client) = live(&backend, &["--http-source-max-body-bytes", "1024"]);
        backend.publish(token("BTC", 1));
        assert_eq!(next_event(&mut client)["data"]["n"], 1);
        match lost {
            "410" => backend.forget(),
            "400" => backend.fail_once(Fault::Status(400, "x-none", "")),
            "reset" => {
                let tokens = [token("BTC", 1)];
                let body = json!({"cursor": backend.cursor(), "reset": true, "tokens": tokens});
                backend.fail_once(Fault::Body(body.to_string()));
            }
            _ => {
                let tokens = [json!({"ticker": "BTC", "pad": "x".repeat(1_024)})];
                let body = json!({"cursor": backend.cursor(), "tokens": tokens});
                backend.fail_once(Fault::Body(body.to_string()));
            }
        }
        let resync = next_of(&mut client, "resync");
        assert_eq!(resync["reason"], "history_lost", "{lost}");
        assert_eq!(resync["epoch"], client.welcome["epoch"]);
        backend.publish(token("BTC", 2));
        let events = [next_event(&mut client), next_event(&mut client)];
        assert_eq!(numbers(&events), [1, 2], "{lost}");
        assert_eq!((&events[0]["pos"], &events[0]["prev"]), (&json!(2), &json!(0)));
        let is_first = |asked: &Asked| asked.since().is_none();
        let from_now = backend.asked().iter().filter(|asked| is_first(asked)).count();
        assert_eq!(from_now, if lost == "reset" { 1 } else { 2 }, "{lost}");
    }
}

#[test]
fn a_backend_that_resets_all_the_time_makes_no_flood_of_reloads() {
    let backend = Backend::start();
    let (_server, mut client) = live(&backend, &[]);
    let body = json!({"cursor": backend.cursor(), "reset": true});
    backend.fail(Fault::Body(body.to_string()));
    next_of(&mut client, "resync");
    // The next answer is held for so long that the last one becomes too old.
    assert_eq!(client.next()["type"], "source_stale");
    assert_eq!(client.next()["type"], "resync");
}

#[test]
fn a_backend_that_asks_for_silence_gets_it() {
    let backend = Backend::start();
    let (mut server, mut client) = live(&backend, &[]);
    backend.fail_once(Fault::Status(429, "retry-after", "1"));
    server.wait_for_log("429 Too Many Requests");
    backend.publish(token("BTC", 1));
    assert_eq!(next_event(&mut client)["data"]["n"], 1);
    backend.fail(Fault::Status(503, "retry-after", "3600"));
    // Without the header there would be many more until it is stale.
    next_of(&mut client, "source_stale");
    assert_eq!(with_status(&backend.asked(), 503), 1);
}

#[test]
fn a_slow_backend_has_one_request_at_a_time() {
    let backend = Backend::start();
    let (_server, mut client) = live(&backend, &["--http-source-timeout-ms", "60000"]);
    backend.fail(Fault::Silence);
    next_of(&mut client, "source_stale");
    assert_eq!(with_status(&backend.asked(), 0), 1);
    backend.heal();
    next_of(&mut client, "source_live");
}

#[test]
fn every_unusable_answer_is_named_and_passed_over() {
    let backend = Backend::start();
    let (mut server, mut client) = live(&backend, &["--http-source-timeout-ms", "400"]);
    let body = |text: &str| Fault::Body(text.to_owned());
    let repeated = json!({"cursor": "0 &é=7", "tokens": [{"ticker": "BTC"}]}).to_string();
    let cases = [
        (body("<html>"), "not JSON as expected"),
        (body(r#"[{"ticker":"BTC"}]"#), "not a JSON object"),
        (body(r#"{"tokens":[]}"#), "that is a string or a number"),
        (body(r#"{"cursor":"","tokens":[]}"#), "has 0 bytes"),
        (Fault::Status(401, "x-none", ""), "check HTTP_SOURCE_TOKEN"),
        (Fault::Status(404, "x-none", ""), "check HTTP_SOURCE_URL"),
        (Fault::Status(302, "location", "/elsewhere"), "redirects are not followed"),
        (body(&repeated), "must move with every change"),
        (Fault::Status(304, "x-none", ""), "sets no condition"),
        (Fault::Silence, "no complete answer within 400ms"),
    ];
    for ((fault, text), number) in cases.into_iter().zip(1..) {
        backend.fail(fault);
        server.wait_for_log(text);
        backend.publish(token("BTC", number));
        backend.heal();
        assert_eq!(next_event(&mut client)["data"]["n"], number, "{text}");
    }
    assert!(backend.asked().iter().all(|asked| asked.uri.path() == "/changes"));
}

#[test]
fn what_a_channel_name_cannot_hold_of_a_symbol_is_percent_encoded() {
    let backend = Backend::start();
    let server = serve(&backend, &[]);
    server.wait_ready(200);
    let mut all = Client::connect(&server);
    all.subscribe(&["odin.token.*.update"]);
    for (number, (ticker, channel)) in
        (1..).zip([("USDC.e", "odin.token.USDC%2Ee.update"), ("A B", "odin.token.A%20B.update")])
    {
        let mut one = Client::connect(&server);
        assert_eq!(one.subscribe(&[channel])["total"], 1);
        backend.publish(token(ticker, number));
        // Whatever becomes of the other, this one comes.
        backend.publish(token("BTC", number));
        let event = next_event(&mut all);
        assert_eq!((&event["channel"], &event["data"]["n"]), (&json!(channel), &json!(number)));
        assert_eq!(event["data"]["ticker"], ticker, "the payload is as the backend gave it");
        assert_eq!(next_event(&mut all)["channel"], "odin.token.BTC.update");
        assert_eq!(next_event(&mut one)["channel"], channel);
    }
}

#[test]
fn changes_that_cannot_be_published_do_not_spoil_the_others() {
    let backend = Backend::start();
    let (mut server, mut client) = live(&backend, &[]);
    let body = json!({
        "cursor": backend.cursor(),
        "reset": true,
        "tokens": [{"ticker": ""}, 7, {"symbol": "ETH", "n": 1}, {"name": "x"}, {"id": 12, "n": 2}],
        "events": [
            {"channel": "odin.token.BTC.trade", "data": {"n": 3}},
            {"channel": "odin.token.>", "data": 1},
            {"channel": "other.place", "data": 1},
            {"channel": "odin.token.ETH.trade", "data": {"type": "resync", "data": {"n": 5}}},
            {"channel": "odin.global.trending", "data": {"type": "error", "data": {"n": 4}}},
        ],
    });
    backend.fail_once(Fault::Body(body.to_string()));
    next_of(&mut client, "resync");
    let events: Vec<Value> = (0..5).map(|_| next_event(&mut client)).collect();
    assert_eq!(numbers(&events), [1, 2, 3, 5, 4]);
    let named: Vec<_> =
        events.iter().map(|event| format!("{} {}", event["channel"], event["type"])).collect();
    let expected = [
        r#""odin.token.ETH.update" "token_update""#,
        r#""odin.token.12.update" "token_update""#,
        r#""odin.token.BTC.trade" "token_trade""#,
        r#""odin.token.ETH.trade" "resync""#,
        r#""odin.global.trending" "error""#,
    ];
    assert_eq!(named, expected);
    server.wait_for_log("the symbol of a token is empty");
    server.wait_for_log("\"unusable_total\":4");
    client.assert_quiet();
}

#[test]
fn a_ticker_that_no_channel_can_hold_is_percent_encoded() {
    let backend = Backend::start();
    let (server, mut client) = live(&backend, &[]);
    let tickers = [
        ("USDC.e", "USDC%2Ee"),
        ("USDC%2Ee", "USDC%252Ee"),
        ("*", "%2A"),
        (">", "%3E"),
        ("A B", "A%20B"),
        ("A\u{a0}B", "A%C2%A0B"),
        ("A\u{7}", "A%07"),
        ("A\u{85}", "A%C2%85"),
        ("é/$?", "é/$?"),
    ];
    let channel_of = |token: &str| format!("odin.token.{token}.update");
    let mut exact = Client::connect(&server);
    let channels = tickers.map(|(_, token)| channel_of(token));
    exact.subscribe(&channels.each_ref().map(String::as_str));
    for (number, (ticker, _)) in (0..).zip(tickers) {
        backend.publish(token(ticker, number));
    }
    for client in [&mut client, &mut exact] {
        for (ticker, token) in tickers {
            let event = next_event(client);
            assert_eq!(
                (&event["channel"], &event["data"]["ticker"]),
                (&json!(channel_of(token)), &json!(ticker))
            );
            assert_eq!(event["type"], "token_update");
        }
    }
}

#[test]
fn a_channel_over_the_limit_is_left_out_and_counted() {
    let backend = Backend::start();
    let (mut server, mut client) = live(&backend, &[]);
    // 256 bytes with what stands around it: the last one that fits, and two of one more.
    let fits = "x".repeat(238);
    backend.publish(token(&fits, 1));
    backend.publish(token(&format!("{fits}x"), 2));
    backend.publish(token(&format!("{}.", "x".repeat(236)), 3));
    backend.publish(token("BTC", 4));
    let events: Vec<Value> = (0..2).map(|_| next_event(&mut client)).collect();
    assert_eq!(numbers(&events), [1, 4]);
    server.wait_for_log("not a valid channel: message left out");
}

#[test]
fn the_token_is_sent_read_again_and_never_shown() {
    let path = file("token", "s3cret-one\n");
    let backend = Backend::start();
    let arguments = ["--http-source-token-file", path.to_str().unwrap(), "--log-level", "trace"];
    let mut server = serve(&backend, &arguments);
    server.wait_ready(200);
    assert_eq!(backend.asked()[0].header("authorization"), "Bearer s3cret-one");
    assert!(backend.asked()[0].header("user-agent").starts_with("odin-ws/"));
    std::fs::write(&path, "s3cret-two").unwrap();
    backend.fail_once(Fault::Status(401, "x-none", ""));
    let is_new = |asked: &Asked| asked.header("authorization") == "Bearer s3cret-two";
    backend.wait_until(|asked| asked.last().is_some_and(is_new));
    // A file that has gone is told, and the token stays.
    std::fs::remove_file(&path).unwrap();
    backend.fail_once(Fault::Status(401, "x-none", ""));
    server.wait_for_log("cannot be read");
    let refused = backend.asked().len();
    backend.wait_until(|asked| asked.len() > refused && asked.last().is_some_and(is_new));
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(0));
    let log = server.rest_of_log();
    assert!(log.contains("/changes?***") && log.contains("401 Unauthorized"), "{log}");
    assert!(!log.contains("s3cret") && !log.contains("hunter2"), "{log}");
}

#[test]
fn the_backend_has_to_be_signed_by_an_authority_that_is_trusted() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let backend = Backend::start_tls(config);
    let trusted = file("trusted.pem", &cert.pem());
    let (_server, mut client) =
        live(&backend, &["--http-source-ca-file", trusted.to_str().unwrap()]);
    backend.publish(token("BTC", 1));
    assert_eq!(next_event(&mut client)["data"]["n"], 1);
    let other = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = file("other.pem", &other.cert.pem());
    let mut server = serve(&backend, &["--http-source-ca-file", other.to_str().unwrap()]);
    server.wait_for_log("invalid peer certificate");
    server.wait_ready(503);
}

#[test]
fn wrong_settings_are_told_at_once_with_their_fix() {
    let environment = [
        ("HTTP_SOURCE_URL", "http://bob:hunter2@host/?key=hunter2"),
        ("HTTP_SOURCE_INTERVAL_MS", "5"),
        ("HTTP_SOURCE_TIMEOUT_MS", "soon"),
        ("HTTP_SOURCE_MAX_BODY_BYTES", "0"),
        ("HTTP_SOURCE_TOKEN", "hunter2 hunter2"),
        ("HTTP_SOURCE_CA_FILE", "/no/such.pem"),
    ];
    let (code, _, stderr) = run(&["serve", "--addr", "127.0.0.1:0"], &environment);
    assert_eq!(code, Some(2), "{stderr}");
    for part in [
        "6 settings are wrong",
        "\"http://***@host/?***\", which cannot be used (it holds a user or password: use HTTP_SOURCE_TOKEN)",
        "HTTP_SOURCE_INTERVAL_MS (--http-source-interval-ms) is \"5\": must be a whole number from 10 to 60000",
        "HTTP_SOURCE_TIMEOUT_MS (--http-source-timeout-ms) is \"soon\": must be a whole number from 100 to 60000",
        "HTTP_SOURCE_MAX_BODY_BYTES",
        "the token of HTTP_SOURCE_TOKEN cannot be sent",
        "/no/such.pem cannot be read",
    ] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");

    let empty = file("empty", "");
    let url = ("HTTP_SOURCE_URL", "http://127.0.0.1:1");
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("WS_SOURCE", "http")], "HTTP_SOURCE_URL (--http-source-url) is missing"),
        (&[("WS_SOURCE", "https")], "must be sim, jetstream, core or http"),
        (&[("HTTP_SOURCE_URL", "ftp://host")], "does not begin with http:// or https://"),
        (&[url, ("HTTP_SOURCE_TOKEN_FILE", "/no/such")], "/no/such cannot be read"),
        (&[url, ("HTTP_SOURCE_TOKEN_FILE", empty.to_str().unwrap())], "cannot be sent"),
        (&[url, ("HTTP_SOURCE_TOKEN", "a"), ("HTTP_SOURCE_TOKEN_FILE", "b")], "both set"),
    ];
    for (environment, part) in cases {
        let (code, _, stderr) = run(&["serve", "--addr", "127.0.0.1:0"], environment);
        assert_eq!(code, Some(2), "{environment:?}: {stderr}");
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
}
