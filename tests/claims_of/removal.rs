//! Messages that somebody removes from a stream before the server has read them.

use std::time::Duration;

use super::scene::Scene;
use super::{BTC, ETH, Market, Mode, OTHER, in_both_modes, own_stream, shared_stream};

const HELD_UP: Duration = Duration::from_millis(1_500);

in_both_modes!(
    deleted,
    deleted_and_nothing_follows,
    erased,
    purged_by_subject,
    purged_by_subject_and_nothing_follows,
    purged_but_for_the_newest,
    purged_up_to_a_sequence,
    the_newest_three_of_an_own_stream,
    everything_is_purged,
    only_what_others_published,
);

/// The server is held up while four messages are published and two or more of them removed.
fn removed(mode: Mode, remove: impl FnOnce(&Market, &[u64])) {
    let mut scene = Scene::of(&shared_stream(), mode);
    scene.held_up(HELD_UP, |market| {
        market.fill();
        let positions = [BTC, OTHER, BTC, ETH].map(|channel| market.publish(channel));
        remove(market, &positions);
    });
    scene.assert_loss_is_told();
}

fn deleted(mode: Mode) {
    removed(mode, |market, positions| market.delete(&[positions[0], positions[2]]));
}

fn deleted_and_nothing_follows(mode: Mode) {
    removed(mode, |market, positions| market.delete(&positions[2..]));
}

fn erased(mode: Mode) {
    removed(mode, |market, positions| market.erase(&[positions[0], positions[2]]));
}

fn purged_by_subject(mode: Mode) {
    removed(mode, |market, _| {
        market.with_stream(async |stream| stream.purge().filter(BTC).await.unwrap());
    });
}

fn purged_by_subject_and_nothing_follows(mode: Mode) {
    removed(mode, |market, _| {
        market.with_stream(async |stream| stream.purge().filter("odin.token.>").await.unwrap());
    });
}

fn purged_but_for_the_newest(mode: Mode) {
    removed(mode, |market, _| {
        market.with_stream(async |stream| stream.purge().filter(BTC).keep(1).await.unwrap());
    });
}

fn purged_up_to_a_sequence(mode: Mode) {
    removed(mode, |market, positions| {
        let end = positions[3];
        market.with_stream(async |stream| {
            stream.purge().filter(BTC).sequence(end).await.unwrap();
        });
    });
}

fn the_newest_three_of_an_own_stream(mode: Mode) {
    let mut scene = Scene::of(&own_stream(), mode);
    scene.held_up(HELD_UP, |market| {
        market.fill();
        let positions = [BTC, ETH, BTC].map(|channel| market.publish(channel));
        market.delete(&positions);
    });
    scene.assert_loss_is_told();
}

fn everything_is_purged(mode: Mode) {
    for stream in [own_stream(), shared_stream()] {
        let mut scene = Scene::of(&stream, mode);
        scene.held_up(Duration::ZERO, |market| {
            market.fill();
            market.publish(BTC);
            market.with_stream(async |stream| stream.purge().await.unwrap());
        });
        scene.assert_loss_is_told();
    }
}

/// Nothing that is served is lost. That may be told all the same, but nobody may miss anything.
fn only_what_others_published(mode: Mode) {
    let mut scene = Scene::of(&shared_stream(), mode);
    scene.held_up(HELD_UP, |market| {
        let positions = [BTC, OTHER, OTHER, ETH].map(|channel| market.publish(channel));
        market.delete(&positions[1..3]);
    });
    scene.assert_no_false_claim();
}
