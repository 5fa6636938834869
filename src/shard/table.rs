//! The shard's connections, in pages that are never moved: a table that grew by doubling would
//! copy all of them at once, and hold up to as much again that nobody uses.
//!
//! Bound: the sockets that the caller accepts. Memory: [`PAGE`] places at a time, and 4 bytes for
//! each place that was used and is free again.

use std::ops::{Index, IndexMut};

use super::connection::Connection;
use super::id::ConnId;
use crate::heap::allocation_bytes;

/// Places of a page: 48 KiB.
const PAGE: usize = 256;

/// Connections by index. A place is used again, the last to become free first.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    pages: Vec<Vec<Option<Connection>>>,
    free: Vec<u32>,
    used: usize,
}

impl ConnectionTable {
    /// The index that the next connection gets.
    pub(super) fn next_index(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.used as u32)
    }

    /// Takes a connection, whose index is [`Self::next_index`].
    pub(super) fn insert(&mut self, connection: Connection) {
        if let Some(index) = self.free.pop() {
            self.pages[index as usize / PAGE][index as usize % PAGE] = Some(connection);
            return;
        }
        if self.used.is_multiple_of(PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages[self.used / PAGE].push(Some(connection));
        self.used += 1;
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.find(id)?;
        self.free.push(id.index);
        self.pages[id.index as usize / PAGE][id.index as usize % PAGE].take()
    }

    /// The connection that has the place now.
    #[inline]
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Connection> {
        self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)?.as_mut()
    }

    /// The connection, if it still exists.
    #[inline]
    pub(super) fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.at(id.index).filter(|connection| connection.id == id)
    }

    /// The connection, if it still exists.
    pub(super) fn get(&self, id: ConnId) -> Option<&Connection> {
        let place = self.pages.get(id.index as usize / PAGE)?.get(id.index as usize % PAGE)?;
        place.as_ref().filter(|connection| connection.id == id)
    }

    /// All of them, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.pages.iter_mut().flatten().flatten()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.pages.iter().flatten().flatten()
    }

    /// Places that were ever used: every index is below.
    pub(super) fn places(&self) -> u32 {
        self.used as u32
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.used - self.free.len()
    }

    /// Heap of the table.
    pub(super) fn memory_bytes(&self) -> usize {
        self.pages.len() * allocation_bytes(PAGE * size_of::<Option<Connection>>())
            + allocation_bytes(self.pages.capacity() * size_of::<Vec<Option<Connection>>>())
            + allocation_bytes(self.free.capacity() * size_of::<u32>())
    }
}

impl Index<u32> for ConnectionTable {
    type Output = Connection;

    fn index(&self, index: u32) -> &Connection {
        let place = &self.pages[index as usize / PAGE][index as usize % PAGE];
        place.as_ref().expect("the index of a connection that exists")
    }
}

impl IndexMut<u32> for ConnectionTable {
    fn index_mut(&mut self, index: u32) -> &mut Connection {
        self.at(index).expect("the index of a connection that exists")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::simulation::PEER;

    #[test]
    fn places_are_used_again_and_ids_are_not() {
        let mut table = ConnectionTable::default();
        let mut generation = 0;
        let mut insert = |table: &mut ConnectionTable| {
            generation += 1;
            let id = ConnId { index: table.next_index(), generation };
            table.insert(Connection::new(id, PEER, 0, 0, 0));
            id
        };
        let ids: Vec<ConnId> = (0..600).map(|_| insert(&mut table)).collect();
        assert!((0..).zip(&ids).all(|(index, id)| id.index == index));
        for id in &ids[100..300] {
            assert!(table.remove(*id).is_some());
            assert!(table.remove(*id).is_none());
        }
        assert_eq!((table.len(), table.iter().count()), (400, 400));
        let again = insert(&mut table);
        assert_eq!(again.index, 299);
        assert!(table.get(ids[299]).is_none() && table.find(again).is_some());
        assert_eq!((table.pages.len(), table.at(100_000).is_none()), (3, true));
    }
}
