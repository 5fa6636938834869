//! A message to everybody, given to some connections at a time.
//!
//! No event is published until everybody has it, and a connection that says something meanwhile is
//! told first: so it has its place in the order of each connection. Bound: one at a time.

use std::collections::BTreeSet;

/// A message that some connections still have to be told.
#[derive(Debug)]
pub(super) struct Announcement {
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Whether what connections have missed does not connect to what follows.
    pub ends_backlogs: bool,
    /// Connections that were accepted later know it from their welcome.
    pub last_number: u64,
    /// The place of the first connection that was not told yet.
    next_place: u32,
    /// Places further on whose connections know it already.
    told: BTreeSet<u32>,
}

impl Announcement {
    /// Nobody was told yet of those that were accepted, of whom `last_number` is the last.
    pub(super) fn new(frame: Vec<u8>, ends_backlogs: bool, last_number: u64) -> Self {
        Self { frame, ends_backlogs, last_number, next_place: 0, told: BTreeSet::new() }
    }

    /// Takes the next of `places`; `None` if there is none.
    pub(super) fn next_place(&mut self, places: u32) -> Option<u32> {
        let place = self.next_place;
        self.next_place += 1;
        (place < places).then_some(place)
    }

    /// Whether the connection `number` at `place` has to be told: true once.
    pub(super) fn take(&mut self, place: u32, number: u64) -> bool {
        if number > self.last_number || place + 1 < self.next_place {
            return false;
        }
        // Those further on are noted, until the walk comes to their places.
        let is_its_turn = place + 1 == self.next_place;
        if is_its_turn { !self.told.remove(&place) } else { self.told.insert(place) }
    }
}
