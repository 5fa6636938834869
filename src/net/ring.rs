//! A private io_uring of the executor that tells when sockets are ready, for any number of them at
//! no memory of ours.
//!
//! A socket is watched by one multishot poll (`io_uring_prep_poll_multishot(3)`, Linux 5.13),
//! which the kernel answers each time something new happens, as edge-triggered epoll does, until
//! it is cancelled. Completions are read from memory shared with the kernel, without a system
//! call unless it has some to make.
//!
//! glommio's executor sleeps in a ring of its own, and cannot be asked to wait for this one; so
//! completions are told to an eventfd, which glommio reads. It counts, so none is missed between
//! a look at the ring and the next wait.
//!
//! **Why this is safe.** The kernel reads and writes memory of the process only where an entry
//! points to it. The three kinds of entries that are made here (polls and their cancellation, all
//! without a buffer) point to none, so nothing has to live as long as a request. A request holds its own
//! reference to the file: closing the descriptor early is no error, but keeps the connection
//! open, so the caller forgets it here first. Every entry is submitted at once, while its
//! descriptor's number means the socket that the caller meant, and so that nobody can go to sleep
//! over one that is not.
//!
//! Bounds: the kernel keeps completions that find no place among [`COMPLETIONS`] and ends the
//! poll, which is put again.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use glommio::io::BufferedFile;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use crate::heap::allocation_bytes;

/// Requests that can wait for submission; one at a time does.
const ENTRIES: u32 = 8;

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
    pub const READABLE: u64 = 0 << 62;
    pub const WRITABLE: u64 = 1 << 62;
    pub const REMOVED: u64 = 2 << 62;
    pub const MASK: u64 = 3 << 62;
}

/// The ring, and the eventfd that says that there is something in it.
pub(super) struct Ring {
    uring: IoUring,
    eventfd: OwnedFd,
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
        Ok(Self { uring, eventfd, ready: VecDeque::new() })
    }

    /// What to await before looking for completions.
    ///
    /// # Errors
    /// The process has no descriptor left.
    #[expect(unsafe_code, reason = "glommio opens files by path only")]
    pub(super) fn signal(&self) -> io::Result<Signal> {
        let eventfd = self.eventfd.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor is open and nothing else owns it: `into_raw_fd` gave it up.
        Ok(Signal(unsafe { BufferedFile::from_raw_fd(eventfd) }))
    }

    /// Watches a socket for something to read, or to accept, until it is forgotten.
    ///
    /// # Errors
    /// The kernel takes no more requests.
    pub(super) fn watch(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd), READABLE as u32).multi(true).build();
        self.push(poll.user_data(kind::READABLE | token))
    }

    /// Tells once when a socket can be written to.
    ///
    /// # Errors
    /// The kernel takes no more requests.
    pub(super) fn await_writable(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build();
        self.push(poll.user_data(kind::WRITABLE | token))
    }

    /// Cancels what a socket is watched for, so that closing its descriptor closes it.
    ///
    /// # Errors
    /// The kernel takes no more requests.
    pub(super) fn forget(&mut self, token: u64, is_writable_awaited: bool) -> io::Result<()> {
        // A poll remove (`IORING_OP_POLL_REMOVE`) leaves a poll alone that has just fired.
        let remove = |kind| opcode::AsyncCancel::new(kind | token).build().user_data(kind::REMOVED);
        if is_writable_awaited {
            self.push(remove(kind::WRITABLE))?;
        }
        self.push(remove(kind::READABLE))
    }

    /// Looks what has become ready.
    ///
    /// # Errors
    /// The kernel refused, which it does only to a process that is out of memory.
    pub(super) fn look(&mut self) -> io::Result<()> {
        // Has the kernel make the completions that it has deferred.
        self.enter()?;
        self.collect();
        Ok(())
    }

    /// What has become ready, the oldest first, as far as [`Self::look`] has seen.
    pub(super) fn next_ready(&mut self) -> Option<Ready> {
        self.ready.pop_front()
    }

    /// Heap of the list of what is ready; the ring itself is the kernel's memory.
    pub(super) fn memory_bytes(&self) -> usize {
        allocation_bytes(self.ready.capacity() * size_of::<Ready>())
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
    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: the entries that this module makes point to no memory: see above.
        unsafe { self.uring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.enter()
    }

    /// Enters the kernel if there is something to submit or to complete.
    fn enter(&mut self) -> io::Result<()> {
        loop {
            match self.uring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Completions wait for a place.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => self.collect(),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Signal {
    /// Resolves when there may be completions that nobody has looked for since the last time.
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
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_is_forgotten_is_closed_also_if_something_has_just_come() {
        let mut ring = Ring::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        ring.watch(listener.as_raw_fd(), 1).unwrap();
        // The poll has fired, and nobody has looked.
        let _waiting = TcpStream::connect(addr).unwrap();
        ring.forget(1, false).unwrap();
        drop(listener);
        ring.look().unwrap();
        let refused = TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
