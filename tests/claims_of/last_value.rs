//! Streams that keep the newest message of each channel only: a burst discards what was not read.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, StorageType};

use super::scene::Scene;
use super::{BTC, Market, Mode, Witness, in_both_modes, own_stream};
use crate::support::GUARD;

const BURST: usize = 20_000;
const VALUES: usize = 50;

const ALL: [&str; 1] = ["odin.token.>"];

in_both_modes!(
    a_burst,
    a_burst_while_held_up,
    a_burst_while_held_up_for_long,
    a_restart_and_one_newer_value,
    a_restart_and_a_newer_newest_value,
    a_restart_and_a_newer_oldest_value,
);

fn last_values() -> Config {
    Config { max_messages_per_subject: 1, ..own_stream() }
}

fn a_burst(mode: Mode) {
    let mut scene = Scene::of(&last_values(), mode);
    scene.market.burst(&[BTC], BURST);
    scene.assert_loss_is_told();
}

fn burst_while_held_up(mode: Mode, milliseconds: u64) {
    let mut scene = Scene::of(&last_values(), mode);
    let duration = Duration::from_millis(milliseconds);
    scene.held_up(duration, |market| market.burst(&[BTC], BURST));
    scene.assert_loss_is_told();
}

fn a_burst_while_held_up(mode: Mode) {
    burst_while_held_up(mode, 500);
}

fn a_burst_while_held_up_for_long(mode: Mode) {
    burst_while_held_up(mode, 2_500);
}

/// A snapshot is complete with every value, or it is not called complete; in the end it is.
fn restart(mode: Mode, newer: usize) {
    let stream = Config { storage: StorageType::File, ..last_values() };
    let mut market = Market::open(&stream);
    let channels: Vec<String> = (0..VALUES).map(|n| format!("odin.token.T{n}.price")).collect();
    let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
    market.burst(&channels, VALUES);
    let old = market.instance(mode);
    let live = Witness::of("live", &old, &ALL);
    let place = live.place().expect("a position");
    old.hold_up();
    market.kill();
    market.launch();
    market.publish(channels[newer]);
    let held = market.held();
    old.let_go_on();
    let deadline = Instant::now() + GUARD;
    loop {
        let is_read = !live.numbers().is_empty();
        let mut witness = Witness::connect("snapshot", &old);
        witness.held.clone_from(&held);
        let snapshot = witness.snapshot(&ALL);
        if snapshot["complete"] == true {
            assert_eq!(snapshot["messages"], VALUES, "{snapshot}");
            market.assert_no_false_claim(&[&witness]);
            if is_read {
                break;
            }
        }
        assert!(Instant::now() < deadline, "never complete: {snapshot}");
    }
    let fresh = market.instance(mode);
    let mut witnesses = vec![live];
    for (name, instance) in [("resumed", &old), ("resumed on a fresh instance", &fresh)] {
        witnesses.push(Witness::resume(name, instance, &ALL, &place));
    }
    market.publish(channels[newer]);
    market.assert_no_false_claim(&witnesses.iter().collect::<Vec<_>>());
}

fn a_restart_and_one_newer_value(mode: Mode) {
    restart(mode, VALUES / 2);
}

fn a_restart_and_a_newer_newest_value(mode: Mode) {
    restart(mode, VALUES - 1);
}

fn a_restart_and_a_newer_oldest_value(mode: Mode) {
    restart(mode, 0);
}
