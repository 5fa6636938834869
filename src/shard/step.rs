//! What a shard does in its turns: publishes what the source's feed brings, and works through what
//! was marked, a bounded number of each at a time. Here everything is sent.
//!
//! Per delivery: a reference counted without atomics, a place in the replay ring, a number. No
//! lock, no allocation, no clock; the channel is hashed once per event.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

use super::announcement::Announcement;
use super::commands::Commands;
use super::connection::State;
use super::deadlines::Due;
use super::delivery::Offered;
use super::drain::{DrainPlan, Phase, TOLD_PER_STEP};
use super::engine::Shard;
use super::history::LoggedEvent;
use super::id::ConnId;
use super::limits::{
    ANNOUNCED_PER_STEP, DEADLINES_PER_STEP, DELIVERIES_PER_TURN, RESUMES_PER_TURN,
};
use super::{Now, Wire};
use crate::event::Event;
use crate::feed::{Feed, SourceStatus};
use crate::position::{Base, Epoch};
use crate::protocol::close::CloseReason;
use crate::protocol::frame::{self, Opcode};
use crate::protocol::message::{Resync, ServerMessage};

impl Shard {
    /// Takes items from the front of `feed` until it is empty or a turn's work is done; none while
    /// an announcement is under way. What they cause is sent by [`Self::step`].
    pub fn publish(&mut self, feed: &mut VecDeque<Feed>, now: Now, wire: &mut impl Wire) {
        let before = self.stats.deliveries;
        while self.announcement.is_none()
            && let Some(item) = feed.pop_front()
        {
            match item {
                Feed::Event(event) => self.publish_event(event, now, wire),
                Feed::Epoch { epoch, base } => self.on_epoch(epoch, base, now),
                Feed::Loss(base) => self.history.lose(base),
                Feed::Notice => self.on_notice(),
                Feed::Newest(event) => self.history.confirm_newest(event),
                Feed::NewestComplete => self.history.set_newest_given(),
                Feed::Kept(kept) => self.history.set_kept(kept),
                Feed::Status(status) => self.on_source(status, now),
            }
            if self.stats.deliveries - before >= DELIVERIES_PER_TURN as u64 {
                break;
            }
        }
    }

    /// Does a bounded part of what was marked, and sends what waits for up to `sends_max`
    /// connections, the first marked first; whether more is left.
    pub fn step(&mut self, sends_max: usize, now: Now, wire: &mut impl Wire) -> bool {
        self.announce();
        for _ in 0..DEADLINES_PER_STEP {
            let Some(id) = self.turns.next_fired() else { break };
            self.check_deadlines(id, now);
            // At once: what is said to many must not wait in as many queues.
            self.send(id, now, wire);
        }
        self.resume_waiting(now);
        for _ in 0..sends_max {
            let Some(place) = self.turns.next_touched() else { break };
            if let Some(connection) = self.connections.at(place) {
                connection.marks.take_turn();
                let id = connection.id;
                self.send(id, now, wire);
            }
        }
        self.end_aborted(wire);
        self.has_work()
    }

    /// Whether [`Self::step`] has something to do.
    pub fn has_work(&self) -> bool {
        self.turns.has_work() || self.waiting.has_due() || self.announcement.is_some()
    }

    /// When connections that are held back may be sent to; `None` if there are none.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.turns.next_due_ms()
    }

    /// Has [`Self::step`] send to the connections that were held back and are due.
    pub fn release_held(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.scratch.due);
        self.turns.take_due(now.monotonic_ms(), &mut due);
        for place in due.drain(..) {
            let Some(connection) = self.connections.at(place) else { continue };
            connection.marks.release();
            // It may have been sent to meanwhile.
            match connection.delivery.held_until_ms(now) {
                Some(due_ms) => self.turns.hold(place, due_ms, &mut connection.marks),
                None => self.turns.touch(place, &mut connection.marks),
            }
        }
        self.scratch.due = due;
    }

    /// The socket of a blocked connection takes bytes again.
    pub fn writable(&mut self, id: ConnId, now: Now, wire: &mut impl Wire) {
        if let Some(connection) = self.connections.find(id) {
            connection.delivery.unblocked();
            self.send(id, now, wire);
        }
    }

    /// `/ready` fails from now on; everything else goes on.
    pub fn retire(&mut self) {
        self.phase = Phase::Retiring;
    }

    /// Has all clients leave within `window_ms`: [`Self::drain`] does, step by step. What is not
    /// upgraded yet is ended at once. The caller listens no more.
    pub fn begin_drain(&mut self, window_ms: u64, now: Now) {
        let mut clients = Vec::new();
        for connection in self.connections.iter_mut() {
            match connection.state {
                State::Open => {
                    clients.push((connection.id, connection.number));
                    connection.leave_at(0);
                }
                State::Handshake(_) => self.turns.abort(connection.id),
                State::Closing | State::Finishing { .. } => {}
            }
        }
        let plan = DrainPlan::new(&clients, self.settings.shard, window_ms, now);
        self.phase = Phase::Draining(plan);
    }

    /// One step of a drain, every [`super::DRAIN_STEP_MS`]; at once again if it returns that there
    /// are more clients to tell. What it says is sent by [`Self::step`].
    pub fn drain(&mut self, now: Now) -> bool {
        for _ in 0..TOLD_PER_STEP {
            let next = self.phase.plan().and_then(|plan| plan.next_to_tell(now));
            let Some((id, when)) = next else { break };
            if let Some(connection) = self.connections.find(id).filter(|it| it.is_open()) {
                connection.answer(&ServerMessage::ServerDraining(when));
                self.turns.touch(id.index, &mut connection.marks);
            }
        }
        let mut left = self.phase.plan().map_or(0, |plan| plan.closes_max());
        while left > 0
            && let Some(id) = self.phase.plan().and_then(|plan| plan.next_to_close(now))
        {
            if self.connections.find(id).is_some_and(|connection| connection.is_open()) {
                self.close(id, CloseReason::Restarting, now);
                self.stats.drain_closed += 1;
                left -= 1;
            }
        }
        self.phase.plan().is_some_and(|plan| plan.has_more_to_tell())
    }

    /// Closes what is open, with 1001, and ends what is not upgraded yet; [`Self::step`] says so to
    /// the clients. The caller listens no more.
    pub fn shut_down(&mut self, now: Now) {
        let ids: Vec<ConnId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            match self.connections.find(id).map(|connection| &connection.state) {
                Some(State::Handshake(_)) => self.turns.abort(id),
                Some(State::Open) => self.close(id, CloseReason::ShuttingDown, now),
                _ => {}
            }
        }
    }

    /// Ends what is left at once.
    pub fn abort_all(&mut self, wire: &mut impl Wire) {
        for connection in self.connections.iter() {
            self.turns.abort(connection.id);
        }
        self.end_aborted(wire);
    }

    /// Sends what waits for one connection until nothing does or the socket is full, but one
    /// portion of a backlog at most: the others have their turn before the next.
    pub(super) fn send(&mut self, id: ConnId, now: Now, wire: &mut impl Wire) {
        let mut has_portion = false;
        loop {
            let Some(connection) = self.connections.find(id) else { return };
            let limits = &self.settings.limits.client;
            let delivery = &mut connection.delivery;
            if delivery.is_blocked() {
                break;
            }
            if !delivery.fill(&mut self.scratch.send) {
                if has_portion || !delivery.has_backlog() {
                    break;
                }
                has_portion = true;
                let taken = delivery.take_portion(limits, &mut self.scratch.encoder);
                self.stats.deliveries += taken as u64;
                continue;
            }
            self.stats.sends += 1;
            match wire.send(id, self.scratch.send.bytes()) {
                Ok(sent) => {
                    self.stats.bytes += sent as u64;
                    delivery.sent(sent, &self.scratch.send, now);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let overflow = delivery.blocked(limits);
                    self.stats.postponed += overflow.postponed as u64;
                    wire.blocked(id);
                    if overflow.is_too_slow {
                        self.close_slow(id, now);
                    }
                }
                Err(_) => {
                    self.lost(id);
                    return wire.abort(id);
                }
            }
        }
        self.has_sent(id, wire);
    }

    /// What follows once a connection was sent to.
    fn has_sent(&mut self, id: ConnId, wire: &mut impl Wire) {
        let Some(connection) = self.connections.find(id) else { return };
        let delivery = &mut connection.delivery;
        if delivery.resumes_reading() {
            wire.resume(id);
        }
        if !delivery.is_blocked() {
            if delivery.has_backlog() {
                self.turns.touch(id.index, &mut connection.marks);
            } else if let State::Finishing { is_shut_down } = &mut connection.state
                && !std::mem::replace(is_shut_down, true)
            {
                wire.finish(id);
            }
        }
        let memory = connection.memory();
        let before = std::mem::replace(&mut connection.charged, memory);
        self.charged.settle(before, memory);
    }

    fn publish_event(&mut self, event: Arc<Event>, now: Now, wire: &mut impl Wire) {
        let (number, event) = self.history.take(event, now, &self.settings.limits);
        self.waiting.reached(event.pos());
        self.stats.events += 1;
        // Copied first: a client that is closed as slow changes the index.
        let mut matched = std::mem::take(&mut self.scratch.matched);
        self.index.for_each_match(event.channel(), &mut |subscribers| {
            matched.extend(subscribers.iter().map(|subscriber| subscriber.connection));
        });
        for place in matched.drain(..) {
            self.deliver(place, (number, &event), now);
        }
        self.scratch.matched = matched;
        while let Some(place) = self.turns.next_urgent() {
            if let Some(id) = self.connections.at(place).map(|connection| connection.id) {
                self.send(id, now, wire);
            }
        }
    }

    #[inline]
    fn deliver(&mut self, place: u32, event: (u64, &Rc<LoggedEvent>), now: Now) {
        let Some(connection) = self.connections.at(place) else { return };
        let limits = &self.settings.limits.client;
        let offered = connection.delivery.offer(event, limits, &mut self.scratch.encoder, now);
        self.stats.deliveries += u64::from(offered.is_numbered());
        match offered {
            Offered::Ready => self.turns.touch(place, &mut connection.marks),
            Offered::Held(due_ms) => self.turns.hold(place, due_ms, &mut connection.marks),
            Offered::Urgent => self.turns.hurry(place),
            Offered::Ignored => {}
            Offered::Behind | Offered::Queued => {
                let id = connection.id;
                self.settle(id);
            }
            Offered::Postponed => {
                self.stats.postponed += 1;
                let id = connection.id;
                self.settle(id);
            }
            Offered::BacklogFull => {
                let id = connection.id;
                self.close_slow(id, now);
            }
            Offered::TooSlow => {
                self.stats.postponed += 1;
                let id = connection.id;
                self.close_slow(id, now);
            }
        }
    }

    /// Closes a client that reads too slowly for what it is to be sent.
    fn close_slow(&mut self, id: ConnId, now: Now) {
        let connection = self.connections.find(id);
        if let Some(connection) = connection.filter(|connection| connection.is_open()) {
            self.stats.dropped += connection.delivery.abandon() as u64;
            self.stats.slow_closed += 1;
            self.close(id, CloseReason::SlowClient, now);
            self.settle(id);
        }
    }

    fn on_epoch(&mut self, epoch: Epoch, base: Base, now: Now) {
        let reason = self.history.begin(epoch, base);
        self.waiting.reached(u64::MAX);
        match reason {
            Some(reason) => self.tell_to_resync(reason),
            // Whoever is here was told that there is none yet, and is to know whose events follow.
            None => self.tell_source(now),
        }
    }

    fn on_notice(&mut self) {
        let was_served = self.stats.accepted > 0;
        let reason = self.history.tell(was_served);
        self.waiting.reached(u64::MAX);
        self.tell_to_resync(reason);
    }

    fn tell_to_resync(&mut self, reason: &'static str) {
        let Some(epoch) = self.history.epoch() else { return };
        let resync = ServerMessage::Resync(Resync { epoch, reason });
        self.tell_everyone(Announcement::new(resync.to_frame(), true, self.stats.accepted));
    }

    fn tell_source(&mut self, now: Now) {
        let frame = self.history.source_message(now).to_frame();
        self.tell_everyone(Announcement::new(frame, false, self.stats.accepted));
    }

    fn on_source(&mut self, status: SourceStatus, now: Now) {
        // Whoever came while the source was not live was told so at once.
        if self.history.set_source(status) {
            self.tell_source(now);
        }
    }

    fn tell_everyone(&mut self, announcement: Announcement) {
        self.announcement = Some(Box::new(announcement));
        self.announce();
    }

    /// Tells some more connections what is announced.
    fn announce(&mut self) {
        let Some(mut announcement) = self.announcement.take() else { return };
        for _ in 0..ANNOUNCED_PER_STEP {
            let Some(place) = announcement.next_place(self.connections.places()) else { return };
            self.tell_of(&mut announcement, place);
        }
        self.announcement = Some(announcement);
    }

    /// Tells a connection what is announced, before something else is said to it.
    pub(super) fn tell(&mut self, place: u32) {
        if let Some(mut announcement) = self.announcement.take() {
            self.tell_of(&mut announcement, place);
            self.announcement = Some(announcement);
        }
    }

    fn tell_of(&mut self, announcement: &mut Announcement, place: u32) {
        let connection = self.connections.at(place).filter(|connection| connection.is_open());
        if let Some(connection) = connection
            && announcement.take(place, connection.number)
        {
            if announcement.ends_backlogs {
                connection.delivery.drop_backlog();
            }
            connection.delivery.answer(announcement.frame.clone());
            self.turns.touch(place, &mut connection.marks);
        }
    }

    /// Carries out some of the resumes that wait no more.
    fn resume_waiting(&mut self, now: Now) {
        for _ in 0..RESUMES_PER_TURN {
            let Some((number, waiting)) = self.waiting.next_due() else { return };
            // The epoch may have come, but not the position.
            let is_ahead = |point| self.history.is_ahead(point);
            let is_early = now.monotonic_ms() < waiting.deadline_ms
                && waiting.command.resume.as_ref().is_some_and(is_ahead);
            if is_early {
                self.waiting.put_back(number, waiting);
                continue;
            }
            self.tell(waiting.id.index);
            if let Some(mut commands) = self.commands(waiting.id) {
                commands.subscribe(&waiting.command);
                let Commands { connection, turns, .. } = commands;
                turns.touch(waiting.id.index, &mut connection.marks);
            }
        }
    }

    /// Closes those that wait for what the log has forgotten, and forgets those that are done.
    pub(super) fn check_backlogs(&mut self, now: Now) {
        if self.announcement.is_some() {
            // The log may be a new one, of which some connections do not know yet.
            return;
        }
        let (connections, history) = (&mut self.connections, &self.history);
        let mut slow = Vec::new();
        self.turns.retain_catching_up(|id| {
            let Some(connection) = connections.find(id) else { return false };
            let Some(oldest) = connection.delivery.oldest_of_backlog() else {
                connection.marks.end_catching_up();
                return false;
            };
            if history.has_forgotten(oldest.pos()) {
                slow.push(id);
            }
            true
        });
        for id in slow {
            self.close_slow(id, now);
        }
    }

    /// Queues what the deadlines of a connection ask for.
    fn check_deadlines(&mut self, id: ConnId, now: Now) {
        let shard = self.settings.shard;
        loop {
            let Some(connection) = self.connections.find(id) else { return };
            if now.monotonic_ms() < connection.timer_ms() {
                return;
            }
            let next_ms = match connection.due(now, &self.settings.limits, shard) {
                Due::Nothing { next_ms } => return self.schedule(id, next_ms),
                Due::Leave(when) => {
                    connection.answer(&ServerMessage::ServerDraining(when));
                    continue;
                }
                Due::SignOfLife { next_ms } => {
                    connection.delivery.answer(frame::encode(Opcode::Pong, &[]));
                    next_ms
                }
                Due::Ping { next_ms } => {
                    connection.ping(now);
                    next_ms
                }
                Due::Close(reason) => {
                    self.stats.age_closed += u64::from(reason == CloseReason::Aged);
                    return self.close(id, reason, now);
                }
                Due::Abort => return self.turns.abort(id),
            };
            return self.schedule(id, next_ms);
        }
    }

    /// Charges what a connection has grown since the last time, or releases what it freed.
    pub(super) fn settle(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.find(id) {
            let memory = connection.memory();
            let before = std::mem::replace(&mut connection.charged, memory);
            self.charged.settle(before, memory);
        }
    }

    /// Ends the connections that are marked for it, and has their sockets closed without lingering.
    pub(super) fn end_aborted(&mut self, wire: &mut impl Wire) {
        while let Some(id) = self.turns.next_aborted() {
            if self.connections.find(id).is_some() {
                self.lost(id);
                wire.abort(id);
            }
        }
    }
}
