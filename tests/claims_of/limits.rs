//! Streams that discard by their limits while the server is held up.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, RetentionPolicy};

use super::scene::Scene;
use super::{BTC, ETH, Market, Mode, in_both_modes, own_stream, shared_stream};
use crate::support::GUARD;

const HELD_UP: Duration = Duration::from_millis(500);

in_both_modes!(
    bytes,
    bytes_of_a_shared_stream,
    messages,
    age_and_nothing_follows,
    age_of_a_shared_stream,
    age_of_a_message,
    interest_of_nobody_else,
);

/// The server is held up while most of what is published is discarded.
fn discarded(mode: Mode, stream: &Config) {
    let mut scene = Scene::of(stream, mode);
    scene.held_up(HELD_UP, |market| market.burst(&[BTC, ETH, BTC, ETH, BTC], 5_000));
    scene.assert_loss_is_told();
}

fn bytes(mode: Mode) {
    discarded(mode, &Config { max_bytes: 20_000, ..own_stream() });
}

fn bytes_of_a_shared_stream(mode: Mode) {
    discarded(mode, &Config { max_bytes: 20_000, ..shared_stream() });
}

fn messages(mode: Mode) {
    discarded(mode, &Config { max_messages: 200, ..shared_stream() });
}

fn wait_until_aged_away(market: &Market, left: u64) {
    let deadline = Instant::now() + GUARD;
    let held = || market.with_stream(async |stream| stream.cached_info().state.messages);
    while held() > left {
        assert!(Instant::now() < deadline, "the messages do not age away");
    }
}

fn aged(mode: Mode, stream: Config) {
    let max_age = Duration::from_secs(1);
    let stream = Config { max_age, duplicate_window: max_age, ..stream };
    let mut scene = Scene::of(&stream, mode);
    scene.held_up(Duration::ZERO, |market| {
        market.fill();
        market.burst(&[BTC, ETH], 4);
        wait_until_aged_away(market, 0);
    });
    scene.assert_loss_is_told();
}

fn age_and_nothing_follows(mode: Mode) {
    aged(mode, own_stream());
}

fn age_of_a_shared_stream(mode: Mode) {
    aged(mode, shared_stream());
}

/// One message lives shorter than the others.
fn age_of_a_message(mode: Mode) {
    let mut scene = Scene::of(&Config { allow_message_ttl: true, ..own_stream() }, mode);
    scene.held_up(Duration::ZERO, |market| {
        market.fill();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", "1s");
        market.publish_with(BTC, headers);
        market.publish(BTC);
        let before = market.with_stream(async |stream| stream.cached_info().state.messages);
        wait_until_aged_away(market, before - 1);
    });
    scene.assert_loss_is_told();
}

/// A stream that keeps messages only as long as a consumer wants them: an ordered consumer that
/// acknowledges nothing keeps none.
fn interest_of_nobody_else(mode: Mode) {
    let stream = Config { retention: RetentionPolicy::Interest, ..own_stream() };
    let mut scene = Scene::of(&stream, mode);
    scene.held_up(HELD_UP, |market| {
        market.burst(&[BTC, ETH], 3_000);
        market.with_stream(async |stream| stream.purge().filter(ETH).await.unwrap());
    });
    scene.assert_no_false_claim();
}
