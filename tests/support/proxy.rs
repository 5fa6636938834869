//! A network between the server and its broker that a test can cut: connections stay open and
//! nothing passes, as when a cable is pulled.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often a connection without traffic is looked at.
const LOOK: Duration = Duration::from_millis(20);

pub struct Proxy {
    addr: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    /// Passes what comes on a free port of the loopback on to `url`.
    pub fn to(url: &str) -> Self {
        let target: SocketAddr = url.replace("nats://", "").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else { continue };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to) in [(client, server), back] {
                    let cut = Arc::clone(&cut);
                    thread::spawn(move || pass(from, to, &cut));
                }
            }
        });
        Self { addr, is_cut }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// What was held back passes now, as TCP would have sent it again.
    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    from.set_read_timeout(Some(LOOK)).unwrap();
    let mut buffer = vec![0; 65_536];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => 0,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => 0,
        };
        while is_cut.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            // Either side may be gone already.
            drop(to.shutdown(std::net::Shutdown::Both));
            return;
        }
    }
}
