//! A broker that comes back with an older store: it lost what it had acknowledged, and gives the
//! positions out again.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, StorageType};

use super::{BTC, ETH, Market, Mode, Witness, in_both_modes, own_stream};
use crate::support::GUARD;

in_both_modes!(
    after_a_quiet_market,
    after_a_quiet_market_while_held_up,
    what_was_sent_is_lost,
    what_was_sent_is_lost_and_given_out_again,
);

const ALL: [&str; 1] = ["odin.token.>"];

fn in_files() -> Config {
    Config { storage: StorageType::File, ..own_stream() }
}

/// Everything has aged away when the server starts, and the last position was 10. The broker comes
/// back with a store in which it was 5.
fn quiet_market(mode: Mode, is_held_up: bool) {
    let max_age = Duration::from_secs(1);
    let mut market = Market::open(&Config { max_age, duplicate_window: max_age, ..in_files() });
    for _ in 0..5 {
        market.publish(BTC);
    }
    let last = market.save();
    for _ in 0..5 {
        market.publish(BTC);
    }
    let deadline = Instant::now() + GUARD;
    while market.with_stream(async |stream| stream.cached_info().state.messages) > 0 {
        assert!(Instant::now() < deadline, "the messages do not age away");
    }
    let old = market.instance(mode);
    let live = Witness::of("live", &old, &ALL);
    let place = live.place().expect("a position");
    assert_eq!(place.0["pos"], 10);
    market.lose_after(last);
    if is_held_up {
        old.hold_up();
    }
    market.launch();
    for _ in 0..5 {
        market.publish(BTC);
    }
    if is_held_up {
        old.let_go_on();
    }
    let mut witnesses = vec![live];
    for _ in 0..4 {
        witnesses.push(Witness::resume("resumed meanwhile", &old, &ALL, &place));
    }
    market.assert_no_false_claim(&witnesses.iter().collect::<Vec<_>>());
    let fresh = market.instance(mode);
    let early = witnesses.len();
    witnesses.push(Witness::resume("resumed later", &old, &ALL, &place));
    witnesses.push(Witness::resume("resumed on a fresh instance", &fresh, &ALL, &place));
    market.publish(BTC);
    market.assert_no_false_claim(&witnesses.iter().collect::<Vec<_>>());
    for witness in &witnesses[early..] {
        assert!(!witness.is_recovered(), "{} recovered", witness.name);
    }
}

fn after_a_quiet_market(mode: Mode) {
    quiet_market(mode, false);
}

fn after_a_quiet_market_while_held_up(mode: Mode) {
    quiet_market(mode, true);
}

/// Three messages that this instance had sent are lost: whoever was away then misses them.
fn sent_is_lost(mode: Mode, again: &[&str]) {
    let mut market = Market::open(&in_files());
    let old = market.instance(mode);
    let live = Witness::of("live", &old, &ALL);
    for channel in [ETH, BTC, BTC] {
        market.publish(channel);
    }
    live.wait_for(3);
    let place = live.place().expect("a position");
    let last = market.save();
    for channel in [BTC, ETH, BTC] {
        market.publish(channel);
    }
    live.wait_for(6);
    let lost = live.place().expect("a position");
    market.lose_after(last);
    market.launch();
    for channel in again {
        market.publish(channel);
    }
    let mut witnesses = vec![live];
    for _ in 0..6 {
        for place in [&place, &lost] {
            witnesses.push(Witness::resume("resumed meanwhile", &old, &ALL, place));
        }
    }
    market.assert_no_false_claim(&witnesses.iter().collect::<Vec<_>>());
    witnesses[0].wait_for_resync();
    let fresh = market.instance(mode);
    witnesses.push(Witness::resume("resumed on a fresh instance", &fresh, &ALL, &place));
    let early = witnesses.len();
    witnesses.push(Witness::resume("resumed later", &old, &ALL, &place));
    for instance in [&old, &fresh] {
        witnesses.push(Witness::resume("resumed at a lost message", instance, &ALL, &lost));
    }
    for channel in [BTC, ETH, BTC] {
        market.publish(channel);
    }
    market.assert_no_false_claim(&witnesses.iter().collect::<Vec<_>>());
    for witness in &witnesses[early..] {
        assert!(!witness.is_recovered(), "{} recovered", witness.name);
    }
}

fn what_was_sent_is_lost(mode: Mode) {
    sent_is_lost(mode, &[]);
}

fn what_was_sent_is_lost_and_given_out_again(mode: Mode) {
    sent_is_lost(mode, &[ETH, ETH, ETH, BTC]);
}
