//! What clients are told when messages are lost, one behaviour each.

use serde_json::{Value, json};

use super::limits;
use super::resume::{assert_refused, subscribe, world_with};
use crate::feed::Feed;
use crate::position::{Base, Epoch, StreamPos};
use crate::protocol::message::ResumeRefusal;

#[test]
fn what_came_between_a_loss_and_its_notice_proves_nothing() {
    let mut world = world_with(limits(), 3);
    let base = Base { after: None, whole_from: StreamPos(4) };
    world.feed([Feed::Loss(base)].into());
    world.publish_on(["t.A.x", "t.A.x"].into_iter());
    let untold = subscribe(&mut world, &["t.A.x"], "e", 4, 4);
    assert_refused(&untold, ResumeRefusal::NotProvable);
    world.feed([Feed::Notice].into());
    world.take_messages();
    let told = subscribe(&mut world, &["t.B.x"], "e", 4, 4);
    assert_refused(&told, ResumeRefusal::NotProvable);
    world.publish_on(["t.B.x"].into_iter());
    world.take_messages();
    let later = subscribe(&mut world, &["t.C.x"], "e", 6, 6);
    assert_eq!(later[0]["recovered"], true, "{later:?}");
}

#[test]
fn a_resync_ends_what_was_under_way() {
    let mut world = world_with(limits(), 300);
    let id = world.clients[0].id;
    world.wire.room.insert(id, 0);
    subscribe(&mut world, &["t.A.x"], "e", 10, 10);
    world.feed([Feed::Epoch { epoch: Epoch("f".into()), base: Base::default() }].into());
    world.wire.room.insert(id, usize::MAX);
    world.wire.blocked.clear();
    world.writable(id);
    let kinds: Vec<Value> = world.take_messages().iter().map(|it| it["type"].clone()).collect();
    assert_eq!(kinds, [json!("subscribed"), json!("resync")]);
    assert_eq!(world.shard.backlog_events.get(), 0);
}
