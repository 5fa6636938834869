//! One connection's task, and the shard's way to all sockets of the executor.
//!
//! Sending takes the short way: `sendmsg` without waiting on the socket itself, for almost every
//! send succeeds at once. Only a socket that is full goes through glommio, in the connection's
//! task, which registers for readiness. Reading goes through one scratch buffer per shard: an
//! idle connection holds no buffer. Bounds: [`READS_PER_TURN`]; the table has a slot per
//! connection.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use socket2::SockRef;

use super::worker::{Worker, turn};
use crate::heap::allocation_bytes;
use crate::shard::{ConnId, Wire};

/// Reads of one connection before the others have their turn.
const READS_PER_TURN: usize = 4;

/// Heap of a connected socket and its task: glommio's stream with its poll source, and the future
/// of [`serve`]. Measured: a test compares the sum of all figures with the allocator's.
const SOCKET_HEAP_BYTES: usize = 1_040;

#[derive(Debug)]
struct Slot {
    id: ConnId,
    fd: RawFd,
    task: Waker,
    is_blocked: bool,
}

/// The sockets of one executor, by connection.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Option<Slot>>,
}

impl Sockets {
    /// Adds a connection, or its task's newest waker.
    fn register(&mut self, id: ConnId, fd: RawFd, task: &Waker) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        match &mut self.slots[index] {
            Some(slot) if slot.id == id => {
                if !slot.task.will_wake(task) {
                    slot.task = task.clone();
                }
            }
            slot => *slot = Some(Slot { id, fd, task: task.clone(), is_blocked: false }),
        }
    }

    fn remove(&mut self, id: ConnId) {
        if self.find(id).is_some() {
            self.slots[id.index as usize] = None;
        }
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize)?.as_mut().filter(|slot| slot.id == id)
    }

    /// Heap of the table, and of the socket and the task of each connection in it.
    pub(super) fn memory_bytes(&self, sockets: usize) -> usize {
        allocation_bytes(self.slots.capacity() * size_of::<Option<Slot>>())
            + sockets * SOCKET_HEAP_BYTES
    }

    /// Every blocked connection with the bytes that the kernel still holds for it.
    pub(super) fn blocked(&self) -> Vec<(ConnId, usize)> {
        let blocked = self.slots.iter().flatten().filter(|slot| slot.is_blocked);
        blocked.map(|slot| (slot.id, unsent_bytes(slot.fd))).collect()
    }

    /// Sets whether the socket waits to be writable; returns whether it did.
    fn set_blocked(&mut self, id: ConnId, is_blocked: bool) -> bool {
        self.find(id).is_some_and(|slot| std::mem::replace(&mut slot.is_blocked, is_blocked))
    }
}

impl Wire for Sockets {
    fn send(&mut self, id: ConnId, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(slot) = self.find(id) else { return Err(io::ErrorKind::NotConnected.into()) };
        let fd = borrow(slot.fd);
        SockRef::from(&fd).send_vectored_with_flags(slices, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    }

    fn blocked(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            slot.is_blocked = true;
            slot.task.wake_by_ref();
        }
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            let fd = borrow(slot.fd);
            // It fails only if the peer has ended the connection already, which the task sees.
            SockRef::from(&fd).shutdown(std::net::Shutdown::Write).unwrap_or_default();
        }
    }

    fn abort(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            let fd = borrow(slot.fd);
            // A reset frees what the kernel still holds for a client that does not read it. If
            // the option cannot be set, the close is an ordinary one.
            SockRef::from(&fd).set_linger(Some(Duration::ZERO)).unwrap_or_default();
            slot.task.wake_by_ref();
        }
    }
}

/// The socket of a slot, for one system call.
#[expect(unsafe_code, reason = "glommio's stream offers its descriptor as a number only")]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: a slot is made by the task that owns the stream and removed by the same task before
    // it drops the stream, so the descriptor is open as long as the slot exists; and it is used
    // only within one call on the executor's own thread, during which that task cannot run.
    unsafe { BorrowedFd::borrow_raw(fd) }
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

/// Serves one accepted connection until the shard has forgotten it.
pub(super) async fn serve(worker: Rc<Worker>, mut stream: TcpStream) {
    let id = worker.accepted();
    while std::future::poll_fn(|cx| poll(&worker, id, &mut stream, cx)).await == Next::Turn {
        turn().await;
    }
    worker.sockets.borrow_mut().remove(id);
}

/// What a connection's task does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// More may be at hand; the others come first.
    Turn,
    /// The shard has forgotten the connection.
    End,
}

fn poll(worker: &Worker, id: ConnId, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<Next> {
    // Its place may be another connection's by now, whose slot is not this one's to touch.
    if !worker.shard.borrow().is_alive(id) {
        return Poll::Ready(Next::End);
    }
    worker.sockets.borrow_mut().register(id, stream.as_raw_fd(), cx.waker());
    for _ in 0..READS_PER_TURN {
        if !worker.shard.borrow().is_alive(id) {
            return Poll::Ready(Next::End);
        }
        poll_write(worker, id, stream, cx);
        if !worker.shard.borrow().wants_read(id) {
            return if worker.shard.borrow().is_alive(id) {
                Poll::Pending
            } else {
                Poll::Ready(Next::End)
            };
        }
        let mut scratch = worker.scratch.borrow_mut();
        match Pin::new(&mut *stream).poll_read(cx, &mut scratch) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(count)) if count > 0 => {
                let mut shard = worker.shard.borrow_mut();
                let mut sockets = worker.sockets.borrow_mut();
                shard.receive(id, &mut scratch[..count], worker.now(), &mut *sockets);
            }
            Poll::Ready(Ok(_) | Err(_)) => {
                worker.shard.borrow_mut().lost(id);
                return Poll::Ready(Next::End);
            }
        }
    }
    Poll::Ready(Next::Turn)
}

/// Writes what waits for a blocked socket; when it takes no more, the task is registered for its
/// readiness.
fn poll_write(worker: &Worker, id: ConnId, stream: &mut TcpStream, cx: &mut Context<'_>) {
    let mut shard = worker.shard.borrow_mut();
    let mut sockets = worker.sockets.borrow_mut();
    let mut scratch = worker.scratch.borrow_mut();
    while sockets.set_blocked(id, false) {
        let count = shard.copy_unsent(id, &mut scratch);
        match Pin::new(&mut *stream).poll_write(cx, &scratch[..count]) {
            Poll::Pending => {
                sockets.set_blocked(id, true);
                return;
            }
            Poll::Ready(Ok(written)) => {
                shard.wrote(id, written, &mut *sockets);
            }
            Poll::Ready(Err(_)) => return shard.lost(id),
        }
    }
}
