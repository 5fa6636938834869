//! The bare sender: a process that does what any WebSocket server must do for an event, and
//! nothing else. Each thread has its own listener, connections and core, as a server's shards have.
//! What a delivery costs is one `send` of a frame that is ready.
//!
//! It is told what to do by lines on standard input (`begin RATE FRAME_BYTES`, `end`) and answers
//! on standard output: its address first, after `end` a line `sent N refused M`. It ends with
//! standard input.
//!
//! Bounds: [`LINE_BYTES_MAX`] of a line; a connection is kept until the process ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::accept::{PendingConnections, Subscribers};
use crate::engine::event::SENT_MEMBER;
use crate::schedule::{Schedule, WallClock, sharpen_sleep, sleep_until};
use crate::settings::Settings;
use crate::ws::frame::{put_server_frame, server_header_bytes};

/// Connections that wait to be accepted, as the server has them.
const BACKLOG: i32 = 8_192;

/// SO_SNDBUF of a connection, as the server has it.
const SEND_BUFFER_BYTES: usize = 65_536;

/// Bytes of a command.
const LINE_BYTES_MAX: u64 = 200;

/// What the threads send.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    began: Instant,
    /// Events per second.
    rate: f64,
    /// Mean bytes of a frame.
    frame_bytes: f64,
}

/// What all threads share.
#[derive(Debug, Default)]
struct Shared {
    is_stopped: AtomicBool,
    sent: AtomicU64,
    refused: AtomicU64,
}

/// Runs the process until standard input ends.
///
/// # Errors
/// What the system refused.
pub fn run(settings: &Settings) -> Result<(), String> {
    let arguments = &settings.arguments;
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let threads = arguments.sender_threads.unwrap_or(cores.len().max(1));
    let refused = |error: std::io::Error| format!("the bare sender: {error}");
    let shared = Arc::new(Shared::default());
    let mut addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut plans = Vec::new();
    let (done, all_done) = channel();
    for thread in 0..threads {
        let listener = listen(addr).map_err(refused)?;
        addr = listener.local_addr().map_err(refused)?.as_socket().unwrap_or(addr);
        let pending =
            PendingConnections::new(listener.into(), settings.channels.clone()).map_err(refused)?;
        let core = cores.get(thread % cores.len().max(1)).copied();
        let (plan, inbox) = channel();
        plans.push(plan);
        let (shared, done) = (Arc::clone(&shared), done.clone());
        let start = std::thread::Builder::new().name("bare".into());
        let body = move || {
            // If the thread cannot be pinned, the kernel chooses its core.
            core.map(core_affinity::set_for_current);
            serve(pending, &inbox, &shared);
            done.send(()).unwrap_or_default();
        };
        start.spawn(body).map_err(refused)?;
    }
    println!("ws://{addr}/");
    obey(&plans, &shared, (&all_done, threads));
    Ok(())
}

fn obey(plans: &[Sender<Plan>], shared: &Shared, (all_done, threads): (&Receiver<()>, usize)) {
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    while input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line).is_ok_and(|count| count > 0) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["begin", rate, frame_bytes] => {
                if let (Ok(rate), Ok(frame_bytes)) = (rate.parse(), frame_bytes.parse()) {
                    let plan = Plan { began: Instant::now(), rate, frame_bytes };
                    // A thread that has ended has printed why.
                    plans.iter().for_each(|to| to.send(plan).unwrap_or_default());
                }
            }
            ["end"] => {
                shared.is_stopped.store(true, Ordering::Relaxed);
                all_done.iter().take(threads).for_each(drop);
                let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
                println!("sent {} refused {}", read(&shared.sent), read(&shared.refused));
            }
            _ => eprintln!("the bare sender does not know {:?}", line.trim()),
        }
        line.clear();
    }
}

fn listen(addr: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit these options (tcp(7)).
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts until there is a plan, then sends until it is stopped. The connections are kept: the
/// peers read what is on its way.
fn serve(mut pending: PendingConnections, inbox: &Receiver<Plan>, shared: &Shared) {
    let plan = loop {
        if let Ok(plan) = inbox.try_recv() {
            break plan;
        }
        if shared.is_stopped.load(Ordering::Relaxed) || pending.serve_ready().is_err() {
            return;
        }
    };
    let subscribers = pending.into_subscribers();
    send(&subscribers, plan, shared);
    std::mem::forget(subscribers);
}

fn send(to: &Subscribers, plan: Plan, shared: &Shared) {
    sharpen_sleep();
    let clock = WallClock::read();
    let mut schedule = Schedule::new(plan.began, plan.rate);
    let mut frame = Vec::new();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (mut sent, mut refused, mut events) = (0, 0, 0_u64);
    while !shared.is_stopped.load(Ordering::Relaxed) {
        let due = schedule.due();
        if !sleep_until(due) {
            continue;
        }
        let (channel, receivers) = to.of_event(events);
        // Two lengths alternate so that their mean is the wanted one.
        let bytes = |events: u64| (events as f64 * plan.frame_bytes) as usize;
        let length = bytes(events + 1) - bytes(events);
        ready_frame(&mut frame, channel, (clock.unix_us(due), events + 1), length);
        for socket in receivers {
            match socket.send_with_flags(&frame, flags) {
                Ok(count) if count == frame.len() => sent += 1,
                // The buffer is full or the peer is gone; the run counts the event as missing.
                _ => refused += 1,
            }
        }
        events += 1;
        schedule.advance();
    }
    shared.sent.fetch_add(sent, Ordering::Relaxed);
    shared.refused.fetch_add(refused, Ordering::Relaxed);
}

/// An event in a frame of `length` bytes that is the same for all its receivers: `seq` stands
/// still, which the clients' check lets pass, and `prev` says that none is known.
fn ready_frame(frame: &mut Vec<u8>, channel: &str, (sent_us, pos): (u64, u64), length: usize) {
    let header = server_header_bytes(length.saturating_sub(4));
    let mut text = format!(
        "{{\"seq\":1,\"type\":\"bare\",\"channel\":\"{channel}\",\"ts\":{},\"pos\":{pos},\
         \"prev\":0,\"data\":{{{SENT_MEMBER}{sent_us},\"pad\":\"",
        sent_us / 1_000
    );
    let padding = length.saturating_sub(header + text.len() + 3);
    text.extend(std::iter::repeat_n('x', padding));
    text.push_str("\"}}");
    frame.clear();
    put_server_frame(frame, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::EventReader;

    #[test]
    fn a_ready_frame_has_its_length_and_is_an_event() {
        let mut frame = Vec::new();
        for length in [300, 741, 70_000] {
            ready_frame(&mut frame, "odin.token.LT1.trade", (1_732_150_000_120_999, 7), length);
            assert_eq!(frame.len(), length);
            let start = if frame[1] == 127 { 10 } else { 4 };
            let (seq, event) = EventReader::default().read(&frame[start..]).unwrap().unwrap();
            assert_eq!((seq, event.pos, event.prev), (1, 7, 0));
            assert_eq!(event.sent_us, Some(1_732_150_000_120_999));
            serde_json::from_slice::<serde_json::Value>(&frame[start..]).unwrap();
        }
    }
}
