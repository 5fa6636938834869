//! A stream whose settings somebody changes while it is read.

use std::time::Duration;

use async_nats::HeaderMap;

use super::scene::Scene;
use super::{BTC, ETH, Mode, in_both_modes, own_stream, shared_stream};

const HELD_UP: Duration = Duration::from_secs(1);

in_both_modes!(
    one_message_per_subject,
    rolled_up_by_subject,
    rolled_up_altogether,
    fewer_messages_are_kept,
);

fn one_message_per_subject(mode: Mode) {
    for stream in [own_stream(), shared_stream()] {
        let mut scene = Scene::of(&stream, mode);
        scene.market.edit(|config| config.max_messages_per_subject = 1);
        scene.held_up(HELD_UP, |market| market.burst(&[BTC], 5_000));
        scene.assert_loss_is_told();
    }
}

fn rolled_up(mode: Mode, what: &str) {
    let mut scene = Scene::of(&own_stream(), mode);
    scene.market.edit(|config| config.allow_rollup = true);
    scene.held_up(HELD_UP, |market| {
        market.fill();
        for channel in [BTC, ETH, BTC] {
            market.publish(channel);
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", what);
        market.publish_with(BTC, headers);
    });
    scene.assert_loss_is_told();
}

fn rolled_up_by_subject(mode: Mode) {
    rolled_up(mode, "sub");
}

fn rolled_up_altogether(mode: Mode) {
    rolled_up(mode, "all");
}

fn fewer_messages_are_kept(mode: Mode) {
    let mut scene = Scene::of(&own_stream(), mode);
    scene.market.edit(|config| config.max_messages = 10);
    scene.held_up(HELD_UP, |market| market.burst(&[BTC, ETH], 3_000));
    scene.assert_loss_is_told();
}
