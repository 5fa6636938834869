//! From queues to the wire: one send per connection, and what becomes of the rest.

use std::io::ErrorKind;
use std::rc::Rc;

use super::connection::State;
use super::engine::Shard;
use super::id::ConnId;
use super::limits::ANSWER_BYTES_PAUSE;
use super::outbox::Outbox;
use super::transmit::{Frame, event_frame_bytes};
use super::{Now, Wire};

impl Shard {
    /// The socket of a blocked connection takes bytes again.
    pub fn writable(&mut self, id: ConnId, wire: &mut impl Wire) {
        if let Some(connection) = self.find(id) {
            connection.is_blocked = false;
            self.flush(id, wire);
        }
    }

    /// Sends what waits for up to `max` of the connections that the last events touched, the
    /// first touched first; whether more are left.
    pub fn flush_some(&mut self, max: usize, now: Now, wire: &mut impl Wire) -> bool {
        for _ in 0..max {
            let Some(index) = self.touched.pop_front() else { break };
            if let Some(connection) = self.connections.at(index) {
                connection.is_touched = false;
                connection.sent_ms = now.monotonic_ms as u32;
                let id = connection.id;
                self.flush(id, wire);
            }
        }
        self.resume_waiting(now, wire);
        // Moving what a socket did not take into its outbox may have found that full.
        self.close_slow(now);
        self.has_touched()
    }

    /// Whether [`Self::flush_some`] has something to send.
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty() || self.waiting_resumes.has_due()
    }

    /// When connections that were held back may be sent to; `None` if there are none.
    pub fn next_batch_ms(&self) -> Option<u64> {
        self.batches.next_ms()
    }

    /// Has [`Self::flush_some`] send to the connections that are due.
    pub fn release_batches(&mut self, now: Now) {
        self.batches.take_due(now.monotonic_ms, &mut self.touched);
    }

    pub(super) fn touch(&mut self, index: u32) {
        if let Some(connection) = self.connections.at(index)
            && !connection.is_touched
        {
            connection.is_touched = true;
            self.touched.push_back(index);
        }
    }

    /// Has what was queued sent in its turn, or at once if its events are held back.
    pub(super) fn touch_now(&mut self, id: ConnId, wire: &mut impl Wire) {
        if self.find(id).is_some_and(|connection| connection.batch_ms > 0) {
            self.flush(id, wire);
        } else {
            self.touch(id.index);
        }
    }

    /// Sends the events that wait for their turn before something else is said, so that they do
    /// not have to go through the queue.
    pub(super) fn flush_pending(&mut self, id: ConnId, wire: &mut impl Wire) {
        if self.find(id).is_some_and(|connection| connection.pending > 0) {
            self.flush(id, wire);
        }
    }

    /// Flushes early when a turn's answers have grown long, and gives up on a client that asks
    /// for more than its budget while it reads nothing.
    pub(super) fn flush_if_long(&mut self, id: ConnId, wire: &mut impl Wire) {
        let outbox = self.find(id).and_then(|connection| connection.outbox.as_ref());
        if outbox.is_none_or(|outbox| outbox.memory_bytes() < ANSWER_BYTES_PAUSE) {
            return;
        }
        self.flush(id, wire);
        if self.is_over_budget(id, 0) {
            self.stats.budget_closed += 1;
            self.abort(id, wire);
        }
    }

    /// Sends what waits for one connection until nothing does or the socket is full, and settles
    /// what it is charged.
    pub(super) fn flush(&mut self, id: ConnId, wire: &mut impl Wire) {
        self.send_waiting(id, wire);
        let Some(connection) = self.find(id) else { return };
        // The others have their turn before the next portion.
        if connection.catch_up.is_some() && !connection.is_blocked {
            self.touch(id.index);
        }
        self.settle(id.index);
    }

    fn send_waiting(&mut self, id: ConnId, wire: &mut impl Wire) {
        let mut has_portion = false;
        loop {
            let Some(connection) = self.connections.find(id) else { return };
            if connection.is_blocked {
                return;
            }
            match &connection.outbox {
                Some(outbox) => self.batch.collect(outbox.frames(), outbox.front_sent()),
                None if connection.pending > 0 => {
                    let newest = connection.replay.newest(connection.pending as usize);
                    let deflate = connection.deflate;
                    let frames = newest
                        .map(|(seq, event)| Frame::Event { seq, tail: event.tail_for(deflate) });
                    self.batch.collect(frames, 0);
                }
                None if !has_portion && connection.catch_up.is_some() => {
                    has_portion = self.take_portion(id.index);
                    continue;
                }
                None => return self.finish_if_due(id, wire),
            }
            self.stats.sends += 1;
            match wire.send(id, self.batch.bytes()) {
                Ok(sent) => {
                    self.stats.bytes += sent as u64;
                    self.take_sent(id, sent);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.outbox_of(id.index);
                    self.mark_blocked(id, wire);
                    return;
                }
                Err(_) => return self.abort(id, wire),
            }
        }
    }

    fn take_sent(&mut self, id: ConnId, sent: usize) {
        let (offered, frames) = (self.batch.bytes().len(), self.batch.frames());
        let Some(connection) = self.find(id) else { return };
        if let Some(outbox) = &mut connection.outbox {
            outbox.advance(sent);
            if outbox.is_empty() {
                connection.outbox = None;
                // Nothing came behind the events that found it full, so no hole would tell of them.
                if connection.is_open() {
                    connection.pending = u32::from(connection.drops_in_row);
                }
            }
        } else if sent == offered && frames > 0 {
            connection.pending -= frames as u32;
            connection.drops_in_row = 0;
        } else {
            self.queue_pending(id.index, sent);
        }
    }

    fn mark_blocked(&mut self, id: ConnId, wire: &mut impl Wire) {
        if let Some(connection) = self.find(id) {
            connection.is_blocked = true;
            wire.blocked(id);
        }
    }

    fn finish_if_due(&mut self, id: ConnId, wire: &mut impl Wire) {
        if let Some(connection) = self.find(id)
            && let State::Finishing { is_shut_down } = &mut connection.state
            && !std::mem::replace(is_shut_down, true)
        {
            wire.finish(id);
        }
    }

    /// The connection's outbox, into which its pending events move if there was none.
    pub(super) fn outbox_of(&mut self, index: u32) -> &mut Outbox {
        self.queue_pending(index, 0)
    }

    /// Moves the pending events, of which `sent` bytes are on the wire, into the outbox.
    fn queue_pending(&mut self, index: u32, mut sent: usize) -> &mut Outbox {
        let pending = std::mem::take(&mut self.connections[index].pending);
        for newest in (1..=pending).rev() {
            let connection = &self.connections[index];
            let replay = &connection.replay;
            let Some((seq, event)) = replay.newest(newest as usize).next() else { break };
            let bytes = event_frame_bytes(seq, event.tail_for(connection.deflate));
            if sent >= bytes {
                sent -= bytes;
                continue;
            }
            let event = Rc::clone(event);
            self.queue_live(index, seq, &event);
            // The first to move finds room always: only it can be partly sent.
            if let Some(outbox) = &mut self.connections[index].outbox {
                outbox.advance(std::mem::take(&mut sent));
            }
        }
        self.connections[index].outbox()
    }
}
