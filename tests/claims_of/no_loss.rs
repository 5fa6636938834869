//! Nothing is lost: then nobody is told of a loss, and every resume recovers. Without this the
//! other tests would pass a server that never claims anything.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, StorageType};

use super::scene::Scene;
use super::{BTC, ETH, Mode, OTHER, in_both_modes, own_stream, shared_stream};

in_both_modes!(a_burst_while_held_up, a_burst_of_a_shared_stream, a_restart);

fn burst_while_held_up(mode: Mode, stream: &Config) {
    let mut scene = Scene::of(stream, mode);
    let channels = if stream.subjects == ["odin.>"] { [BTC, OTHER] } else { [BTC, ETH] };
    scene.held_up(Duration::ZERO, |market| market.burst(&channels, 5_000));
    scene.assert_all_recover();
}

fn a_burst_while_held_up(mode: Mode) {
    burst_while_held_up(mode, &own_stream());
}

fn a_burst_of_a_shared_stream(mode: Mode) {
    burst_while_held_up(mode, &shared_stream());
}

fn a_restart(mode: Mode) {
    let mut scene = Scene::of(&Config { storage: StorageType::File, ..own_stream() }, mode);
    scene.held_up(Duration::ZERO, |market| {
        market.kill();
        market.launch();
        for channel in [BTC, ETH, BTC] {
            market.publish(channel);
        }
    });
    scene.assert_all_recover();
}
