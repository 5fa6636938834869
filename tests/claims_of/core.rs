//! The `core` source: what the process is too slow for is dropped without a trace in the messages.

use std::time::Duration;

use super::{BTC, ETH, Instance, Market, Witness};

const ALL: [&str; 1] = ["odin.token.>"];

/// More than the client library holds for a subscription.
const FLOOD: usize = 30_000;

/// Times that clients resume after the flood, and how long they wait in between.
const RESUMES: usize = 24;
const AGAIN: Duration = Duration::from_millis(200);

fn flooded(arguments: &[&str], held_up: Option<Duration>) -> (Market, Vec<Witness>) {
    let mut market = Market::without_stream("none");
    let url = market.broker.url();
    let old = Instance::start(&[&["--source", "core", "--nats-url", &url], arguments].concat());
    let live = Witness::of("live", &old, &ALL);
    market.flood(&[BTC, ETH], 4);
    live.wait_for(4);
    let place = live.place().expect("a position");
    if held_up.is_some() {
        old.hold_up();
    }
    market.flood(&[BTC, ETH, BTC], FLOOD);
    if let Some(duration) = held_up {
        std::thread::sleep(duration);
        old.let_go_on();
    }
    let mut witnesses = vec![live];
    for _ in 0..RESUMES {
        let now = witnesses[0].place();
        for place in std::iter::once(&place).chain(&now) {
            witnesses.push(Witness::resume("resumed", &old, &ALL, place));
        }
        witnesses[0].heartbeat();
        std::thread::sleep(AGAIN);
    }
    market.flood(&[BTC, ETH], 4);
    market.assert_no_false_claim(&witnesses.iter().collect::<Vec<_>>());
    (market, witnesses)
}

#[test]
fn a_server_that_lags() {
    let (market, witnesses) = flooded(&["--max-nats-rate", "4000"], None);
    assert!(market.missing(&witnesses[0], BTC) > 0, "nothing was dropped");
    witnesses[0].wait_for_resync();
}

#[test]
fn a_server_that_is_held_up() {
    flooded(&[], Some(Duration::from_secs(2)));
}
