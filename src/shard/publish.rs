//! What the source's feed does: an event is logged, matched, numbered and queued per connection,
//! and each connection that it touched gets one send for the whole batch.
//!
//! Per delivery: a reference counted without atomics, a place in the replay ring, a number. No
//! lock, no allocation, no clock; the channel is hashed once per event.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::State;
use super::engine::Shard;
use super::id::ConnId;
use super::limits::{DELIVERIES_PER_TURN, DROPS_IN_ROW_MAX, FRAMES_PER_SEND};
use super::newest::NewestEvents;
use super::recent::{LoggedEvent, RecentLog};
use super::{Now, Wire};
use crate::event::Event;
use crate::feed::{Feed, SourceStatus};
use crate::position::{Base, Epoch};
use crate::protocol::close::CloseReason;
use crate::protocol::message::{Resync, ServerMessage, SourceState};

impl Shard {
    /// Takes items from the front of `feed` until it is empty or a turn's work is done. What they
    /// cause is sent by [`Self::flush_some`].
    pub fn publish(&mut self, feed: &mut VecDeque<Feed>, now: Now, wire: &mut impl Wire) {
        let before = self.stats.deliveries;
        while let Some(item) = feed.pop_front() {
            match item {
                Feed::Event(event) => self.publish_event(event, now, wire),
                Feed::Epoch { epoch, base } => self.on_epoch(epoch, base, wire),
                Feed::Status(status) => self.on_source(status, now, wire),
            }
            if self.stats.deliveries - before >= DELIVERIES_PER_TURN as u64 {
                break;
            }
        }
        self.resume_waiting(now, wire);
        self.close_slow(now);
    }

    fn publish_event(&mut self, event: Arc<Event>, now: Now, wire: &mut impl Wire) {
        let event = Rc::new(LoggedEvent::new(event, &self.events_alive));
        self.log.push(&event, now.monotonic_ms, &self.settings.limits);
        self.waiting_resumes.reached(event.pos());
        self.newest.update(&event);
        self.stats.events += 1;
        self.events_seen += 1;
        // Copied first: a delivery that finds its socket gone changes the index.
        let mut matched = std::mem::take(&mut self.matched);
        self.index.for_each_match(event.event().channel(), &mut |subscribers| {
            matched.extend(subscribers.iter().map(|subscriber| subscriber.connection));
        });
        for index in matched.drain(..) {
            self.deliver(index, &event, now, wire);
        }
        self.matched = matched;
        self.close_slow(now);
    }

    fn deliver(&mut self, index: u32, event: &Rc<LoggedEvent>, now: Now, wire: &mut impl Wire) {
        let Some(mut connection) = self.connections.at(index) else { return };
        if connection.last_event == self.events_seen {
            return;
        }
        connection.last_event = self.events_seen;
        if connection.outbox.is_some() && !connection.is_blocked {
            // An answer waits for its turn: an event behind it must not be taken for a backlog.
            let id = connection.id;
            self.flush(id, wire);
            let Some(left) = self.connections.at(index) else { return };
            connection = left;
        }
        if connection.catch_up.is_some() {
            self.queue_behind(index, event);
            return;
        }
        if connection.deflate.is_some() {
            event.event().deflate(&mut self.deflater, self.settings.limits.deflate_bytes_min);
        }
        let limits = &self.settings.limits.client;
        let seq = connection.replay.push(event, limits.replay_messages);
        self.stats.deliveries += 1;
        if connection.outbox.is_some() {
            self.queue_live(index, seq, event);
            return;
        }
        connection.pending += 1;
        let (id, pending) = (connection.id, connection.pending as usize);
        if !std::mem::replace(&mut connection.is_touched, true) {
            match connection.due_ms(now) {
                Some(due_ms) => self.batches.insert(index, due_ms),
                None => self.touched.push_back(index),
            }
        }
        // The ring, which is the queue here, forgets what is beyond it.
        if pending >= limits.replay_messages.max(FRAMES_PER_SEND) {
            self.flush(id, wire);
        }
    }

    /// Has an event deflated if the connection wants that and nobody has wanted it before.
    pub(super) fn deflate_for(&mut self, index: u32, event: &LoggedEvent) {
        if self.connections[index].deflate.is_some() {
            event.event().deflate(&mut self.deflater, self.settings.limits.deflate_bytes_min);
        }
    }

    /// Queues an event for a connection that is blocked, or counts a drop.
    pub(super) fn queue_live(&mut self, index: u32, seq: u64, event: &Rc<LoggedEvent>) {
        let connection = &mut self.connections[index];
        let outbox = connection.outbox();
        if outbox.offer_live(seq, event, &self.settings.limits.client).is_ok() {
            connection.drops_in_row = 0;
        } else {
            self.stats.dropped += 1;
            connection.drops_in_row = connection.drops_in_row.saturating_add(1);
            if connection.drops_in_row >= DROPS_IN_ROW_MAX {
                self.slow.push(connection.id);
            }
        }
        self.settle(index);
    }

    /// Closes the clients whose queue refused too many events in a row.
    pub(super) fn close_slow(&mut self, now: Now) {
        while let Some(id) = self.slow.pop() {
            let Some(connection) = self.find(id).filter(|connection| connection.is_open()) else {
                continue;
            };
            if let Some(outbox) = &mut connection.outbox {
                outbox.discard_unsent();
            }
            self.stats.slow_closed += 1;
            self.close(id, CloseReason::SlowClient, now);
            self.touch(id.index);
        }
    }

    fn on_epoch(&mut self, epoch: Epoch, base: Base, wire: &mut impl Wire) {
        self.log = RecentLog::new(base);
        self.abandon_catch_ups();
        self.waiting_resumes.reached(u64::MAX);
        self.newest = NewestEvents::default();
        if let Some(before) = self.epoch.replace(epoch.clone()) {
            let reason = if before == epoch { "history_lost" } else { "stream_recreated" };
            let resync = ServerMessage::Resync(Resync { epoch: &epoch.0, reason }).to_frame();
            self.tell_everyone(&resync, wire);
        }
    }

    fn on_source(&mut self, status: SourceStatus, now: Now, wire: &mut impl Wire) {
        let before = std::mem::replace(&mut self.source, status);
        // Whoever came while the source was not live was told so at once.
        if (before == SourceStatus::Live) != (status == SourceStatus::Live) {
            let frame = self.source_frame(now);
            self.tell_everyone(&frame, wire);
        }
    }

    /// How the source is doing, as a message.
    pub(super) fn source_frame(&self, now: Now) -> Vec<u8> {
        let newest = self.log.newest();
        let state = SourceState {
            epoch: self.epoch.as_ref().map(|epoch| &*epoch.0),
            pos: newest.pos.0,
            ts: newest.ts_ms,
            server_time: now.unix_ms,
        };
        (match self.source {
            SourceStatus::Live => ServerMessage::SourceLive(state),
            _ => ServerMessage::SourceStale(state),
        })
        .to_frame()
    }

    fn tell_everyone(&mut self, frame: &[u8], wire: &mut impl Wire) {
        let open: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|connection| matches!(connection.state, State::Open))
            .map(|connection| connection.id)
            .collect();
        for id in open {
            self.flush_pending(id, wire);
            self.queue(id, frame.to_vec());
            self.touch_now(id, wire);
        }
    }
}
