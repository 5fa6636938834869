//! The sockets of one executor, by connection, and the shard's way to them.
//!
//! Sending and receiving are plain system calls that do not wait; the ring only tells when they
//! are worth while. An idle connection takes its place in the table here and nothing else: no
//! task, no buffer, no timer. Bound: `sockets_max` sockets of the instance.

use std::collections::VecDeque;
use std::io;
use std::mem::replace;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, SocketFlags, acceptfrom_with, recv, send};
use socket2::{SockRef, Socket};

use super::doorbell::Doorbell;
use super::ring::{Ready, Ring, Signal};
use crate::heap::allocation_bytes;
use crate::shard::{Census, ConnId, Wire};

/// The token of the listening socket, which is no connection's: no table is that long.
const LISTENER: u64 = u32::MAX as u64;

/// The token of the doorbell.
const DOORBELL: u64 = LISTENER - 1;

/// Bits of a connection's generation that are part of its token; the ring needs the rest.
const GENERATION_BITS: u32 = 30;

#[derive(Debug)]
struct Slot {
    fd: OwnedFd,
    generation: u32,
    is_blocked: bool,
    /// In the queue of sockets to read.
    is_queued: bool,
    /// The peer has ended its side: reading goes on until that is seen.
    has_ended: bool,
    /// There is something to read, which the shard does not want yet.
    is_paused: bool,
}

/// What a turn of the ring asks its caller to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Accept connections.
    Accept,
    /// Read this one.
    Read(ConnId),
    /// Its socket takes bytes again.
    Write(ConnId),
}

/// The sockets of one executor.
#[derive(Debug)]
pub(super) struct Sockets {
    ring: Ring,
    doorbell: Arc<Doorbell>,
    listener: Option<Socket>,
    /// The kernel may have connections that nobody has accepted yet.
    may_accept: bool,
    slots: Vec<Option<Slot>>,
    /// Sockets that may have something to read.
    readable: VecDeque<ConnId>,
    open: usize,
    census: Arc<Census>,
    sockets_max: u64,
}

impl Sockets {
    /// No sockets but `listener`, which is watched from now on.
    ///
    /// # Errors
    /// The kernel refuses the ring, or the process has no descriptor left.
    pub(super) fn new(
        listener: Socket,
        census: Arc<Census>,
        sockets_max: u64,
    ) -> io::Result<(Self, Signal)> {
        listener.set_nonblocking(true)?;
        let doorbell = Arc::new(Doorbell::new()?);
        let mut ring = Ring::new()?;
        ring.watch(listener.as_raw_fd(), LISTENER)?;
        ring.watch(doorbell.as_raw_fd(), DOORBELL)?;
        ring.poll_completions()?;
        let signal = ring.signal()?;
        let sockets = Self {
            ring,
            doorbell,
            listener: Some(listener),
            may_accept: true,
            slots: Vec::new(),
            readable: VecDeque::new(),
            open: 0,
            census,
            sockets_max,
        };
        Ok((sockets, signal))
    }

    /// Submits and closes what was queued and collects what has become ready;
    /// [`Self::next_event`] tells.
    ///
    /// # Errors
    /// The kernel refused, which it does only to a process that is out of memory.
    pub(super) fn poll_ready(&mut self) -> io::Result<()> {
        self.ring.poll_completions()
    }

    /// As [`Self::poll_ready`], and sleeps in the ring until a socket is ready or the doorbell
    /// rings, for `at_most` so long.
    ///
    /// # Errors
    /// The kernel refused, which it does only to a process that is out of memory.
    pub(super) fn doze(&mut self, at_most: Duration) -> io::Result<()> {
        self.ring.wait(at_most)
    }

    /// What another thread wakes this one with.
    pub(super) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Whether something was queued that [`Self::poll_ready`] is to submit.
    pub(super) fn has_queued(&mut self) -> bool {
        self.ring.has_queued()
    }

    /// Whether [`Self::next_event`] has nothing to tell.
    pub(super) fn is_idle(&self) -> bool {
        !self.ring.has_ready() && !self.may_accept && self.readable.is_empty()
    }

    /// Whether the executor may sleep until the ring's [`Signal`] wakes it.
    pub(super) fn may_park(&mut self) -> bool {
        self.is_idle() && self.ring.quiet()
    }

    /// The next thing to do. A socket that may have more to read is to be put back with
    /// [`Self::read_later`].
    pub(super) fn next_event(&mut self) -> Option<Event> {
        while let Some(ready) = self.ring.next_ready() {
            match ready {
                Ready::Readable { token: LISTENER, is_watched, .. } => {
                    self.may_accept = true;
                    if let Some(listener) = self.listener.as_ref().filter(|_| !is_watched) {
                        let fd = listener.as_raw_fd();
                        self.watch(fd, LISTENER);
                    }
                }
                Ready::Readable { token: DOORBELL, is_watched, .. } => {
                    // Why it rang is found by doing what there is to do.
                    if !is_watched {
                        let fd = self.doorbell.as_raw_fd();
                        self.watch(fd, DOORBELL);
                    }
                }
                Ready::Readable { token, has_ended, is_watched } => {
                    let Some((id, slot)) = self.find_token(token) else { continue };
                    slot.has_ended |= has_ended;
                    let fd = slot.fd.as_raw_fd();
                    self.read_later(id);
                    if !is_watched {
                        self.watch(fd, token);
                    }
                }
                Ready::Writable { token } => {
                    if let Some((id, slot)) = self.find_token(token) {
                        slot.is_blocked = false;
                        return Some(Event::Write(id));
                    }
                }
            }
        }
        if replace(&mut self.may_accept, false) {
            return Some(Event::Accept);
        }
        while let Some(id) = self.readable.pop_front() {
            if let Some(slot) = self.find(id) {
                slot.is_queued = false;
                return Some(Event::Read(id));
            }
        }
        None
    }

    /// Accepts one connection, with the address of its peer, which the shard then names with
    /// [`Self::add`]; `None` if the kernel has no more. One that is over the limit of sockets is
    /// closed at once.
    ///
    /// # Errors
    /// The process has no descriptor or memory for it; it stays in the kernel's queue.
    pub(super) fn accept(&mut self) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
        let Some(listener) = &self.listener else { return Ok(None) };
        loop {
            match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((socket, peer)) if self.census.take_socket(self.sockets_max) => {
                    return Ok(Some((socket, address_of(peer))));
                }
                Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The accepting stopped before the kernel had no more.
    pub(super) fn accept_later(&mut self) {
        self.may_accept = true;
    }

    /// Adds an accepted connection.
    pub(super) fn add(&mut self, id: ConnId, fd: OwnedFd) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.watch(fd.as_raw_fd(), token(id));
        self.open += 1;
        self.slots[index] = Some(Slot {
            fd,
            generation: id.generation,
            is_blocked: false,
            is_queued: false,
            has_ended: false,
            is_paused: false,
        });
    }

    /// Reads what is there into `scratch`, without waiting; 0 at the end of the connection.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; anything else means that the connection is lost.
    pub(super) fn read(&mut self, id: ConnId, scratch: &mut [u8]) -> io::Result<usize> {
        let Some(slot) = self.find(id) else { return Err(io::ErrorKind::NotConnected.into()) };
        slot.is_paused = false;
        let (count, _) = recv(&slot.fd, scratch, RecvFlags::DONTWAIT)?;
        Ok(count)
    }

    /// Whether there can be more to read after a read that did not fill its buffer: only the end.
    pub(super) fn has_ended(&mut self, id: ConnId) -> bool {
        self.find(id).is_some_and(|slot| slot.has_ended)
    }

    /// There may be more to read: the others come first.
    pub(super) fn read_later(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id)
            && !replace(&mut slot.is_queued, true)
        {
            self.readable.push_back(id);
        }
    }

    /// The shard wants nothing of this connection now.
    pub(super) fn pause(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            slot.is_paused = true;
        }
    }

    /// Forgets a connection and closes its socket.
    pub(super) fn remove(&mut self, id: ConnId) {
        if self.find(id).is_none() {
            return;
        }
        let Some(slot) = self.slots[id.index as usize].take() else { return };
        if let Err(error) = self.ring.forget(slot.fd, token(id), slot.is_blocked) {
            tracing::error!(%error, "cannot cancel the poll of a socket: it stays open");
        }
        self.open -= 1;
        self.census.release_socket();
    }

    /// Listens no more: the kernel refuses who comes, and resets whom nobody has accepted.
    pub(super) fn stop_listening(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let forgotten = self.ring.forget(listener.into(), LISTENER, false);
        // Whoever comes now is to be refused, not when the shard has time.
        if let Err(error) = forgotten.and_then(|()| self.ring.poll_completions()) {
            tracing::error!(%error, "cannot cancel the poll of the listening socket");
        }
    }

    /// Sockets in the table.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Heap of the table.
    pub(super) fn memory_bytes(&self) -> usize {
        allocation_bytes(self.slots.capacity() * size_of::<Option<Slot>>())
            + allocation_bytes(self.readable.capacity() * size_of::<ConnId>())
            + self.ring.memory_bytes()
    }

    /// Every blocked connection with the bytes that the kernel still holds for it.
    pub(super) fn blocked(&self) -> Vec<(ConnId, usize)> {
        let slots = (0..).zip(&self.slots);
        slots
            .filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
            .filter(|(_, slot)| slot.is_blocked)
            .map(|(index, slot)| {
                (ConnId { index, generation: slot.generation }, unsent_bytes(slot.fd.as_raw_fd()))
            })
            .collect()
    }

    /// A watch that cannot be put leaves the connection to its deadlines.
    fn watch(&mut self, fd: RawFd, token: u64) {
        if let Err(error) = self.ring.watch(fd, token) {
            tracing::error!(%error, "cannot watch a socket");
        }
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.index as usize)?.as_mut();
        slot.filter(|slot| slot.generation == id.generation)
    }

    fn find_token(&mut self, wanted: u64) -> Option<(ConnId, &mut Slot)> {
        let index = wanted as u32;
        let slot = self.slots.get_mut(index as usize)?.as_mut()?;
        let id = ConnId { index, generation: slot.generation };
        (token(id) == wanted).then_some((id, slot))
    }
}

/// The peer's address. A client that came by IPv4 to a listener of both kinds has its IPv4 address.
/// The kernel names every peer of a TCP socket; one that it did not name would be 0.0.0.0.
fn address_of(peer: Option<SocketAddrAny>) -> SocketAddr {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let peer = peer.map_or(unknown, |peer| SocketAddr::try_from(peer).unwrap_or(unknown));
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// What the ring knows a connection by.
fn token(id: ConnId) -> u64 {
    let generation = id.generation & ((1 << GENERATION_BITS) - 1);
    u64::from(generation) << 32 | u64::from(id.index)
}

impl Wire for Sockets {
    fn send(&mut self, id: ConnId, bytes: &[u8]) -> io::Result<usize> {
        let Some(slot) = self.find(id) else { return Err(io::ErrorKind::NotConnected.into()) };
        Ok(send(&slot.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn blocked(&mut self, id: ConnId) {
        let Some(slot) = self.find(id) else { return };
        slot.is_blocked = true;
        let fd = slot.fd.as_raw_fd();
        if let Err(error) = self.ring.await_writable(fd, token(id)) {
            tracing::error!(%error, "cannot wait for a socket");
        }
    }

    fn resume(&mut self, id: ConnId) {
        if self.find(id).is_some_and(|slot| replace(&mut slot.is_paused, false)) {
            self.read_later(id);
        }
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            // It fails only if the peer has ended the connection already, which a read tells.
            SockRef::from(&slot.fd).shutdown(std::net::Shutdown::Write).unwrap_or_default();
        }
    }

    fn abort(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            // A reset frees what the kernel still holds for a client that does not read it. If
            // the option cannot be set, the close is an ordinary one.
            SockRef::from(&slot.fd).set_linger(Some(Duration::ZERO)).unwrap_or_default();
        }
        self.remove(id);
    }
}

/// Bytes in the send queue of a socket (SIOCOUTQ of tcp(7)); 0 if the kernel does not say.
#[expect(unsafe_code, reason = "no safe wrapper of this request is among the dependencies")]
fn unsent_bytes(fd: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int to the address, which is that of a live int; a descriptor
    // that is closed or no socket is answered with an error.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_by_its_own_address() {
        for (named, expected) in [
            ("192.0.2.1:50000", "192.0.2.1:50000"),
            ("[::ffff:192.0.2.1]:50000", "192.0.2.1:50000"),
            ("[2001:db8::1]:50000", "[2001:db8::1]:50000"),
        ] {
            let named: SocketAddr = named.parse().unwrap();
            let peer = address_of(Some(SocketAddrAny::from(named)));
            assert_eq!(peer, expected.parse().unwrap(), "{named}");
        }
    }

    #[test]
    fn an_accepted_socket_comes_with_the_address_of_its_client() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_, peer) = acceptfrom_with(&listener, SocketFlags::CLOEXEC).unwrap();
        assert_eq!(address_of(peer), client.local_addr().unwrap());
    }
}
