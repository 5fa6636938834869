//! Messages with heads that a client library cannot parse, or takes for something else.

use super::scene::Scene;
use super::{BTC, Mode, in_both_modes, own_stream};

in_both_modes!(latin_1, a_line_without_a_colon, a_name_with_a_space, what_looks_like_a_status);

/// A message with one of these heads comes like any other, or is told to be lost.
fn published(mode: Mode, heads: &[&[u8]]) {
    let mut scene = Scene::of(&own_stream(), mode);
    for head in heads {
        scene.market.publish_raw(BTC, head);
        scene.market.publish(BTC);
        scene.live.heartbeat();
    }
    scene.market.assert_no_false_claim(&[&scene.live]);
    for head in heads {
        // And nothing follows.
        scene.market.publish_raw(BTC, head);
        scene.market.assert_no_false_claim(&[&scene.live]);
    }
    scene.assert_no_false_claim();
}

fn latin_1(mode: Mode) {
    published(mode, &[b"NATS/1.0\r\nX-Name: caf\xe9\r\n\r\n"]);
}

fn a_line_without_a_colon(mode: Mode) {
    published(mode, &[b"NATS/1.0\r\nno header at all\r\n\r\n"]);
}

fn a_name_with_a_space(mode: Mode) {
    published(mode, &[b"NATS/1.0\r\nX Name: a\r\n\r\n"]);
}

fn what_looks_like_a_status(mode: Mode) {
    let heads: [&[u8]; 6] = [
        b"NATS/1.0 409 Consumer Deleted\r\nA: b\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\n: a\r\n\r\n",
    ];
    published(mode, &heads);
}
