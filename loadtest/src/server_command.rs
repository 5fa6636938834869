//! `--server-cmd`: a server that is started for the run and ends with it.
//!
//! Bound: [`READY_SECONDS`] until it serves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest time until it serves.
const READY_SECONDS: u64 = 60;

/// The interval between two checks whether it serves.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct ServerCommand {
    child: Child,
}

impl ServerCommand {
    /// Starts it and waits until it listens at `addr` and does not answer `GET /ready` with 503.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn start(line: &str, addr: SocketAddr) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let program = words.next().ok_or("--server-cmd is empty")?;
        if TcpStream::connect(addr).is_ok() {
            return Err(format!("--server-cmd: somebody serves at {addr} already"));
        }
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("--server-cmd: {program}: {error}"))?;
        let mut server = Self { child };
        let until = Instant::now() + Duration::from_secs(READY_SECONDS);
        while Instant::now() < until {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("--server-cmd: it ended at once, {status}"));
            }
            if is_ready(addr) {
                return Ok(server);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(format!("--server-cmd: it does not serve at {addr} after {READY_SECONDS} s"))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerCommand {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

fn is_ready(addr: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr) else { return false };
    let request = format!("GET /ready HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let mut status = [0; 12];
    let is_answered = stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut status).is_ok();
    is_answered && &status[9..] != b"503"
}
