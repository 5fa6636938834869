//! Streams that copy another one, and discard by rules of their own.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, Source};

use super::scene::Scene;
use super::{BTC, ETH, Market, Mode, in_both_modes, own_stream};
use crate::support::GUARD;

in_both_modes!(a_mirror_of_the_newest_values, a_mirror_that_is_purged);

/// A market whose server reads a mirror with these settings.
fn mirror(mirror: Config) -> Market {
    let market = Market::without_stream("MIRROR");
    market.with_context(async |context| {
        context.create_stream(own_stream()).await.unwrap();
        let origin = Source { name: own_stream().name, ..Source::default() };
        let name = "MIRROR".to_owned();
        let config = Config { name, subjects: Vec::new(), mirror: Some(origin), ..mirror };
        context.create_stream(config).await.unwrap();
    });
    market
}

/// Publishes on two channels, and waits until the mirror has it.
fn burst(market: &mut Market) {
    market.burst(&[BTC, ETH], 5_000);
    let last = market.truth.last_pos();
    let deadline = Instant::now() + GUARD;
    while market.with_stream(async |stream| stream.cached_info().state.last_sequence) < last {
        assert!(Instant::now() < deadline, "the mirror does not follow");
    }
}

fn a_mirror_of_the_newest_values(mode: Mode) {
    let market = mirror(Config { max_messages_per_subject: 1, ..own_stream() });
    let mut scene = Scene::at(market, mode);
    scene.held_up(Duration::ZERO, burst);
    scene.assert_loss_is_told();
}

fn a_mirror_that_is_purged(mode: Mode) {
    let mut scene = Scene::at(mirror(own_stream()), mode);
    scene.held_up(Duration::ZERO, |market| {
        burst(market);
        market.with_stream(async |stream| stream.purge().filter(BTC).await.unwrap());
    });
    scene.assert_loss_is_told();
}
