//! Somebody else takes messages from the server's consumer.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::AckKind;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::scene::Scene;
use super::{BTC, Market, Mode, in_both_modes, own_stream};

/// Requests of the thief for one message each. They stand in line with the server's own, and the
/// broker serves each of the line in turn.
const REQUESTS: usize = 5;

/// A message that the thief gets comes within this time.
const DELIVERED_WITHIN: Duration = Duration::from_millis(300);

in_both_modes!(
    a_message_is_taken_and_nothing_follows,
    a_message_is_taken_and_acknowledged,
    a_message_is_taken_and_others_follow,
);

/// Publishes until the thief has got a message.
fn steal(scene: &mut Scene, acknowledges: bool) {
    let market = &mut scene.market;
    let mut loot = stand_in_line(market);
    let is_stolen = |loot: &mut Subscriber, market: &Market| {
        market.with_context(async |context| {
            let Ok(message) = tokio::time::timeout(DELIVERED_WITHIN, loot.next()).await else {
                return false;
            };
            let message = message.expect("a subscription that lasts");
            assert!(message.reply.is_some(), "not a message of the stream: {message:?}");
            if acknowledges {
                let reply = message.reply.unwrap();
                let acknowledgement = AckKind::Ack.into();
                context.client().publish(reply, acknowledgement).await.unwrap();
            }
            true
        })
    };
    for _ in 0..4 * REQUESTS {
        market.publish(BTC);
        if is_stolen(&mut loot, market) {
            return market.with_context(async |context| {
                loot.unsubscribe().await.unwrap();
                context.client().flush().await.unwrap();
            });
        }
    }
    panic!("the thief gets nothing");
}

/// Asks the server's consumer for messages, as the server does.
fn stand_in_line(market: &Market) -> Subscriber {
    let consumers: Vec<String> =
        market.with_stream(async |stream| stream.consumer_names().try_collect().await.unwrap());
    let [consumer] = &consumers[..] else { panic!("not one consumer: {consumers:?}") };
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.ODIN_TOKENS.{consumer}");
    market.with_context(async |context| {
        let client = context.client();
        let inbox = client.new_inbox();
        let loot = client.subscribe(inbox.clone()).await.unwrap();
        for _ in 0..REQUESTS {
            let request = json!({"batch": 1, "expires": 30_000_000_000_u64}).to_string();
            let publishing =
                client.publish_with_reply(subject.clone(), inbox.clone(), request.into());
            publishing.await.unwrap();
        }
        client.flush().await.unwrap();
        loot
    })
}

/// It comes within 10 s all the same, or is told to be lost.
fn a_message_is_taken_and_nothing_follows(mode: Mode) {
    let mut scene = Scene::of(&own_stream(), mode);
    steal(&mut scene, false);
    scene.assert_no_false_claim();
}

fn a_message_is_taken_and_acknowledged(mode: Mode) {
    let mut scene = Scene::of(&own_stream(), mode);
    steal(&mut scene, true);
    scene.assert_no_false_claim();
}

fn a_message_is_taken_and_others_follow(mode: Mode) {
    let mut scene = Scene::of(&own_stream(), mode);
    steal(&mut scene, false);
    for _ in 0..3 {
        scene.market.publish(BTC);
    }
    scene.assert_no_false_claim();
}
