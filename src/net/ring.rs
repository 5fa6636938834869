//! A private io_uring of the executor that tells when sockets are ready, for any number of them at
//! no memory of ours.
//!
//! A socket is watched by one multishot poll (`io_uring_prep_poll_multishot(3)`, Linux 5.13),
//! which the kernel answers each time something new happens, as edge-triggered epoll does, until
//! it is cancelled. Completions are read from memory shared with the kernel, without a system
//! call unless the kernel has some to make.
//!
//! Requests are queued and submitted together: by [`Ring::poll_completions`], by [`Ring::wait`],
//! or when the queue is full. Nothing is submitted, and the kernel is not entered, when nothing is
//! queued and the kernel has nothing to tell.
//!
//! glommio's executor sleeps in a ring of its own, and cannot be asked to wait for this one; so
//! completions are told to an eventfd, which glommio reads. It counts, so none is missed between
//! asking the ring and the next wait.
//!
//! **Why this is safe.** The kernel reads and writes memory of the process only where an entry
//! points to it. The three kinds of entries that are made here (polls and their cancellation, all
//! without a buffer) point to none, so nothing has to live as long as a request.
//!
//! **Why a queued entry means the socket that was meant.** An entry names its socket by the number
//! of a descriptor, and a number that was closed is given to the next socket. So whoever watches a
//! descriptor hands it over to close it: [`Ring::forget`] takes it, and keeps it open until every
//! entry queued before is submitted. A submitted poll holds its own reference to the file, so the
//! number may be used again from then on. The same order makes the close effective: the poll's
//! cancellation is submitted before the descriptor is closed, so no poll keeps the connection open.
//!
//! **Why nobody sleeps over a queued entry.** [`Ring::wait`] submits and waits in one call;
//! [`Ring::quiet`], which is asked before the executor sleeps in its own ring, denies it as long as
//! something is queued.
//!
//! Bounds: [`ENTRIES`] requests are queued, and as many descriptors at most wait to be closed; the
//! kernel keeps completions that find no place among [`COMPLETIONS`] and ends the poll, which is
//! put again.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use glommio::io::BufferedFile;
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::heap::allocation_bytes;

/// Requests that wait to be submitted together, 64 bytes each.
const ENTRIES: u32 = 64;

/// Completions that wait to be seen, 16 bytes each; the kernel sizes the table in which it finds
/// a poll to cancel by it, 256 buckets from here on.
const COMPLETIONS: u32 = 8_192;

/// What is watched for: `poll(2)`'s POLLIN, and the end of what the peer sends.
const READABLE: i16 = libc::POLLIN | libc::POLLRDHUP;

/// The end of the connection, one way or both: what was read short may be followed by an end.
const ENDED: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

const CANCELED: i32 = -libc::ECANCELED;

/// What is ready. The token is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// Something came, or the peer ended the connection or it failed (`has_ended`). Unless
    /// `is_watched`, the watch is over and has to be put again.
    Readable { token: u64, has_ended: bool, is_watched: bool },
    /// The socket takes bytes again.
    Writable { token: u64 },
}

/// Which request a completion answers, in the two highest bits of its user data.
mod kind {
    pub(super) const READABLE: u64 = 0 << 62;
    pub(super) const WRITABLE: u64 = 1 << 62;
    pub(super) const REMOVED: u64 = 2 << 62;
    pub(super) const MASK: u64 = 3 << 62;
}

/// The ring, and the eventfd that says that there is something in it.
pub(super) struct Ring {
    uring: IoUring,
    eventfd: OwnedFd,
    /// Descriptors that entries in the queue may name: closed once these are submitted.
    closing: Vec<OwnedFd>,
    /// Completions that were seen and not taken yet.
    ready: VecDeque<Ready>,
}

/// The end of the eventfd that glommio reads.
#[derive(Debug)]
pub(super) struct Signal(BufferedFile);

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for this thread, with as much of batching as the kernel offers: completions that
    /// are made when the thread asks for them (6.1), when it enters the kernel anyway (5.19), or
    /// at once.
    ///
    /// # Errors
    /// What the kernel said to the plainest of them.
    pub(super) fn new() -> io::Result<Self> {
        let build = |prepare: fn(&mut io_uring::Builder)| {
            let mut builder = IoUring::builder();
            prepare(&mut builder);
            builder.setup_cqsize(COMPLETIONS).setup_clamp().build(ENTRIES)
        };
        let uring = build(|it| {
            it.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        })
        .or_else(|_| {
            build(|it| {
                it.setup_coop_taskrun().setup_taskrun_flag();
            })
        })
        .or_else(|_| build(|_| {}))?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let closing = Vec::with_capacity(ENTRIES as usize);
        Ok(Self { uring, eventfd, closing, ready: VecDeque::new() })
    }

    /// What to await when the ring is quiet.
    ///
    /// # Errors
    /// The process has no descriptor left.
    #[expect(unsafe_code, reason = "glommio opens files by path only")]
    pub(super) fn signal(&self) -> io::Result<Signal> {
        let eventfd = self.eventfd.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor is open and nothing else owns it: `into_raw_fd` gave it up.
        Ok(Signal(unsafe { BufferedFile::from_raw_fd(eventfd) }))
    }

    /// Watches a descriptor for something to read, or to accept, until it is forgotten.
    ///
    /// It is to be closed by [`Self::forget`] and not otherwise.
    ///
    /// # Errors
    /// The kernel takes no more requests.
    pub(super) fn watch(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd), READABLE as u32).multi(true).build();
        self.queue(poll.user_data(kind::READABLE | token))
    }

    /// Tells once when a watched socket can be written to.
    ///
    /// # Errors
    /// The kernel takes no more requests.
    pub(super) fn await_writable(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build();
        self.queue(poll.user_data(kind::WRITABLE | token))
    }

    /// Cancels what a descriptor is watched for, and closes it with the next submission.
    ///
    /// # Errors
    /// The kernel takes no more requests. The descriptor is closed all the same, but its socket
    /// stays open as long as the poll that could not be cancelled.
    pub(super) fn forget(
        &mut self,
        fd: OwnedFd,
        token: u64,
        is_writable_awaited: bool,
    ) -> io::Result<()> {
        // A poll remove (`IORING_OP_POLL_REMOVE`) leaves a poll alone that has just fired.
        let cancel = |kind| opcode::AsyncCancel::new(kind | token).build().user_data(kind::REMOVED);
        let mut result = self.queue(cancel(kind::READABLE));
        if is_writable_awaited {
            result = self.queue(cancel(kind::WRITABLE)).and(result);
        }
        // Queueing may have submitted and closed what was here: this one is closed the next time.
        self.closing.push(fd);
        result
    }

    /// Submits what is queued, closes what was forgotten, and collects what has become ready.
    /// Does not enter the kernel if there is nothing of the kind.
    ///
    /// # Errors
    /// The kernel refused, which it does only to a process that is out of memory.
    pub(super) fn poll_completions(&mut self) -> io::Result<()> {
        if self.wants_enter() {
            self.submit()?;
        }
        self.collect();
        Ok(())
    }

    /// As [`Self::poll_completions`], and sleeps until something is ready, for `at_most` so long.
    ///
    /// # Errors
    /// The kernel refused, which it does only to a process that is out of memory.
    pub(super) fn wait(&mut self, at_most: Duration) -> io::Result<()> {
        if !self.closing.is_empty() {
            // They are to be closed before the thread sleeps, not after.
            self.submit()?;
        }
        if !self.ready.is_empty() {
            return Ok(());
        }
        let timespec = types::Timespec::from(at_most);
        let result = self
            .uring
            .submitter()
            .submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec));
        self.collect();
        match result {
            Err(error) if !may_try_again(&error) => Err(error),
            // Time is up, or there is something, or the caller asks again.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Whether [`Self::next_ready`] has something to tell.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether requests wait to be submitted.
    pub(super) fn has_queued(&mut self) -> bool {
        !self.uring.submission().is_empty()
    }

    /// Whether the executor may sleep until [`Signal::wait`] wakes it: nothing is queued, nothing
    /// is ready, and what becomes ready from now on is told to the eventfd, which is empty.
    pub(super) fn quiet(&mut self) -> bool {
        let mut told = [0; size_of::<u64>()];
        // It is empty already if the kernel has told nothing; then this fails.
        preadv2(&self.eventfd, &mut [IoSliceMut::new(&mut told)], u64::MAX, ReadWriteFlags::NOWAIT)
            .unwrap_or_default();
        !self.wants_enter() && self.ready.is_empty() && self.uring.completion().is_empty()
    }

    /// What has become ready, the oldest first, as far as it was collected.
    pub(super) fn next_ready(&mut self) -> Option<Ready> {
        self.ready.pop_front()
    }

    /// Heap of the lists; the ring itself is the kernel's memory.
    pub(super) fn memory_bytes(&self) -> usize {
        allocation_bytes(self.ready.capacity() * size_of::<Ready>())
            + allocation_bytes(self.closing.capacity() * size_of::<OwnedFd>())
    }

    fn collect(&mut self) {
        for completion in self.uring.completion() {
            let token = completion.user_data() & !kind::MASK;
            let is_watched = cqueue::more(completion.flags());
            match (completion.user_data() & kind::MASK, completion.result()) {
                (kind::REMOVED, _) | (_, CANCELED) => {}
                (kind::WRITABLE, _) => self.ready.push_back(Ready::Writable { token }),
                (_, result) => {
                    // A poll that failed is told as an end, which reading the socket explains.
                    let has_ended = result < 0 || result as u32 & ENDED != 0;
                    self.ready.push_back(Ready::Readable { token, has_ended, is_watched });
                }
            }
        }
    }

    #[expect(unsafe_code, reason = "the ring cannot know what an entry points to")]
    fn queue(&mut self, entry: squeue::Entry) -> io::Result<()> {
        if self.uring.submission().is_full() {
            self.submit()?;
        }
        // SAFETY: the entries that this module makes point to no memory: see above.
        unsafe { self.uring.submission().push(&entry) }.map_err(io::Error::other)
    }

    /// Whether requests are queued, or the kernel has completions that it makes when entered.
    fn wants_enter(&mut self) -> bool {
        let queue = self.uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Submits all that is queued, then closes what was forgotten.
    fn submit(&mut self) -> io::Result<()> {
        loop {
            match self.enter() {
                Err(error) if !may_try_again(&error) => return Err(error),
                // Completions may wait for a place.
                Err(_) => self.collect(),
                Ok(_) => {}
            }
            if self.uring.submission().is_empty() {
                self.closing.clear();
                return Ok(());
            }
        }
    }

    /// Submits, and has the kernel make in the same call what it has deferred: completions of the
    /// polls that have just been put, and the end of those that have just been cancelled.
    #[expect(unsafe_code, reason = "the crate's `submit` makes only what was deferred before it")]
    fn enter(&mut self) -> io::Result<usize> {
        let queued = self.uring.submission().len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed that the kernel would read, and no entry points to memory.
        unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) }
    }
}

/// Whether an enter failed for a reason that passes: a signal, completions that wait for a place,
/// or a time that is up.
fn may_try_again(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::ETIME))
}

impl Signal {
    /// Resolves when completions came since the eventfd was empty; it is empty again then.
    ///
    /// # Errors
    /// The kernel refused to read, which it does only to a process that is out of memory.
    pub(super) async fn wait(&self) -> io::Result<()> {
        self.0.read_at(0, size_of::<u64>()).await.map(drop).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn listener() -> (OwnedFd, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        (listener.into(), addr)
    }

    /// A connection, the server's end first.
    fn pair() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0.into(), client)
    }

    /// Everything that is ready, for the kernel makes only so many completions in one call.
    fn ready(ring: &mut Ring) -> Vec<Ready> {
        let mut all = Vec::new();
        while !ring.quiet() {
            ring.poll_completions().unwrap();
            all.extend(std::iter::from_fn(|| ring.next_ready()));
        }
        all
    }

    fn is_refused(addr: SocketAddr) -> bool {
        let kind = TcpStream::connect(addr).map_err(|error| error.kind());
        matches!(kind, Err(io::ErrorKind::ConnectionRefused))
    }

    fn is_ended(client: &mut TcpStream) -> bool {
        client.set_nonblocking(true).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_forgotten_is_closed_also_if_something_has_just_come() {
        for is_submitted in [true, false] {
            let mut ring = Ring::new().unwrap();
            let (listener, addr) = listener();
            ring.watch(listener.as_raw_fd(), 1).unwrap();
            if is_submitted {
                ring.poll_completions().unwrap();
            }
            // The poll has fired, or will as soon as it is submitted, and nobody has asked.
            let _waiting = TcpStream::connect(addr).unwrap();
            ring.forget(listener, 1, false).unwrap();
            ring.poll_completions().unwrap();
            assert!(is_refused(addr), "submitted: {is_submitted}");
        }
    }

    #[test]
    fn a_number_is_not_used_again_while_a_queued_entry_names_it() {
        let mut ring = Ring::new().unwrap();
        let (first, mut first_peer) = pair();
        let number = first.as_raw_fd();
        ring.watch(number, 1).unwrap();
        ring.await_writable(number, 1).unwrap();
        ring.forget(first, 1, true).unwrap();
        let (second, mut second_peer) = pair();
        assert_ne!(second.as_raw_fd(), number, "it is still open");
        ring.watch(second.as_raw_fd(), 2).unwrap();
        second_peer.write_all(b"x").unwrap();
        let of_second = Ready::Readable { token: 2, has_ended: false, is_watched: true };
        let told = ready(&mut ring);
        assert!(told.contains(&of_second), "{told:?}");
        // What may be told of the first names the first.
        assert!(told.iter().all(|ready| *ready == of_second
            || matches!(ready, Ready::Writable { token: 1 } | Ready::Readable { token: 1, .. })));
        assert!(is_ended(&mut first_peer));
        let (third, mut third_peer) = pair();
        ring.watch(third.as_raw_fd(), 3).unwrap();
        third_peer.write_all(b"x").unwrap();
        let of_third = Ready::Readable { token: 3, has_ended: false, is_watched: true };
        assert_eq!(ready(&mut ring), [of_third]);
    }

    #[test]
    fn any_number_of_sockets_may_be_watched_and_forgotten_in_one_round() {
        let mut ring = Ring::new().unwrap();
        let mut pairs: Vec<_> = (0..3 * u64::from(ENTRIES)).map(|token| (token, pair())).collect();
        for (token, (socket, client)) in &mut pairs {
            ring.watch(socket.as_raw_fd(), *token).unwrap();
            client.write_all(b"x").unwrap();
        }
        assert!(ring.has_queued() && !ring.quiet());
        let mut told: Vec<_> = ready(&mut ring)
            .into_iter()
            .map(|ready| match ready {
                Ready::Readable { token, .. } => token,
                Ready::Writable { .. } => unreachable!("nobody asked for it"),
            })
            .collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, (0..3 * u64::from(ENTRIES)).collect::<Vec<_>>());
        let mut clients = Vec::new();
        for (token, (socket, client)) in pairs {
            ring.forget(socket, token, false).unwrap();
            assert!(ring.closing.len() <= ENTRIES as usize);
            clients.push(client);
        }
        assert_eq!(ready(&mut ring), []);
        assert!(ring.closing.is_empty() && !ring.has_queued());
        // What was sent and not read makes each end a reset.
        for client in &mut clients {
            client.set_nonblocking(true).unwrap();
            assert_ne!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn waiting_submits_what_is_queued_and_closes_what_is_forgotten() {
        let mut ring = Ring::new().unwrap();
        let (gone, mut gone_peer) = pair();
        let (socket, mut client) = pair();
        ring.forget(gone, 1, false).unwrap();
        ring.watch(socket.as_raw_fd(), 2).unwrap();
        let writer = std::thread::spawn(move || {
            // Only after this end was closed, which the wait does before it sleeps.
            assert_eq!(gone_peer.read(&mut [0]).unwrap(), 0);
            client.write_all(b"x").unwrap();
            client
        });
        while !ring.has_ready() {
            ring.wait(LONG).unwrap();
        }
        assert!(matches!(ring.next_ready(), Some(Ready::Readable { token: 2, .. })));
        writer.join().unwrap();
    }

    #[test]
    fn a_wait_ends_with_its_time_and_does_not_begin_if_something_is_ready() {
        let mut ring = Ring::new().unwrap();
        ring.wait(Duration::from_millis(1)).unwrap();
        assert!(!ring.has_ready());
        let (socket, mut client) = pair();
        ring.watch(socket.as_raw_fd(), 1).unwrap();
        client.write_all(b"x").unwrap();
        ring.poll_completions().unwrap();
        ring.wait(LONG).unwrap();
        assert!(ring.has_ready());
    }

    #[test]
    fn the_ring_is_quiet_only_if_all_that_was_told_has_been_taken() {
        let mut ring = Ring::new().unwrap();
        assert!(ring.quiet());
        let (socket, mut client) = pair();
        ring.watch(socket.as_raw_fd(), 1).unwrap();
        assert!(!ring.quiet(), "an entry is queued");
        ring.poll_completions().unwrap();
        assert!(ring.quiet());
        client.write_all(b"x").unwrap();
        assert!(!ring.quiet(), "a completion is deferred");
        ring.poll_completions().unwrap();
        assert!(!ring.quiet(), "it was not taken");
        assert!(ring.next_ready().is_some());
        assert!(ring.quiet());
        // What comes now is told to the eventfd, which was empty.
        client.write_all(b"x").unwrap();
        let mut told = [0; 8];
        assert_eq!(rustix::io::read(&ring.eventfd, &mut told), Ok(8));
    }
}
