//! A stream that turns over while the server lags behind it.

use std::time::Duration;

use async_nats::jetstream::stream::Config;

use super::{BTC, ETH, Instance, Market, Mode, OTHER, Witness, in_both_modes, shared_stream};

const SOL: &str = "odin.token.SOL.trade";

/// A thousand messages a second for three seconds, of which the server takes 300 a second.
const ROUNDS: usize = 60;
const PER_ROUND: usize = 50;
const ROUND: Duration = Duration::from_millis(45);

/// Clients that come and go, and the rounds after which the next of them does.
const CLIENTS: usize = 4;
const ROUNDS_PER_CLIENT: usize = 3;

in_both_modes!(a_server_that_lags);

/// Goes on where the client stood, or afresh if it stands nowhere.
fn reconnect(client: &mut Witness, instance: &Instance, channels: &[&str]) -> Witness {
    let place = client.place();
    client.leave();
    match place {
        Some(place) => Witness::resume("coming and going", instance, channels, &place),
        None => Witness::of("coming and going", instance, channels),
    }
}

fn a_server_that_lags(mode: Mode) {
    let mut market = Market::open(&Config { max_messages: 400, ..shared_stream() });
    let old = market.instance_with(mode, &["--max-nats-rate", "300"]);
    let channels = |client: usize| [["odin.token.>"], [BTC]][client % 2];
    let live = Witness::of("live", &old, &["odin.token.>"]);
    let mut present: Vec<Witness> =
        (0..CLIENTS).map(|it| Witness::of("coming and going", &old, &channels(it))).collect();
    let mut gone = Vec::new();
    for round in 0..ROUNDS {
        market.burst(&[BTC, OTHER, ETH, OTHER, SOL], PER_ROUND);
        if round.is_multiple_of(ROUNDS_PER_CLIENT) {
            let client = round / ROUNDS_PER_CLIENT % CLIENTS;
            let next = reconnect(&mut present[client], &old, &channels(client));
            gone.push(std::mem::replace(&mut present[client], next));
        }
        present[round % CLIENTS].heartbeat();
        std::thread::sleep(ROUND);
    }
    market.publish(BTC);
    let fresh = market.instance(mode);
    let mut resumed = Vec::new();
    for client in &gone {
        let Some(place) = client.place() else { continue };
        for (name, instance) in [("resumed", &old), ("resumed on a fresh instance", &fresh)] {
            resumed.push(Witness::resume(name, instance, &["odin.token.>"], &place));
        }
    }
    let all = std::iter::once(&live).chain(&present).chain(&gone).chain(&resumed);
    market.assert_no_false_claim(&all.collect::<Vec<_>>());
    assert!(market.missing(&live, BTC) > 0, "nothing was discarded unread");
}
