//! What is removed while the broker is away from the server: the message that the server read last,
//! and messages that it has not read.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, StorageType};

use super::scene::Scene;
use super::{BTC, ETH, Mode, in_both_modes, own_stream, shared_stream};

in_both_modes!(
    the_message_that_was_read_last,
    the_message_that_was_read_last_and_the_next,
    everything_in_a_restart,
);

/// The broker is killed and comes back, and these are deleted before the server is there again:
/// the last message that it read, or the first that it did not.
fn removed(mode: Mode, is_unread_removed: bool) {
    for stream in [own_stream(), shared_stream()] {
        let mut scene = Scene::of(&Config { storage: StorageType::File, ..stream }, mode);
        let read = scene.market.publish(BTC);
        scene.market.assert_no_false_claim(&[&scene.live]);
        scene.held_up(Duration::ZERO, |market| {
            market.kill();
            market.launch();
            let unread = market.publish(BTC);
            market.publish(ETH);
            market.delete(&[read]);
            if is_unread_removed {
                market.delete(&[unread]);
            }
        });
        if is_unread_removed {
            scene.assert_loss_is_told();
        } else {
            scene.assert_no_false_claim();
        }
    }
}

fn the_message_that_was_read_last(mode: Mode) {
    removed(mode, false);
}

fn the_message_that_was_read_last_and_the_next(mode: Mode) {
    removed(mode, true);
}

fn everything_in_a_restart(mode: Mode) {
    let mut scene = Scene::of(&Config { storage: StorageType::File, ..own_stream() }, mode);
    scene.held_up(Duration::ZERO, |market| {
        market.kill();
        market.launch();
        market.publish(BTC);
        market.with_stream(async |stream| stream.purge().await.unwrap());
    });
    scene.assert_loss_is_told();
}
