//! Listening sockets: one per shard on the same address with SO_REUSEPORT, so that the kernel
//! spreads connections over the shards and no accept queue is shared.
//!
//! Bound: an address that is in use is tried again for [`crate::patience::LISTEN_PATIENCE`].

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::patience::while_in_use;

/// How to listen.
#[derive(Debug, Clone, Copy)]
pub struct ListenSettings {
    /// Where. Port 0 lets the kernel choose one, the same for every shard.
    pub addr: SocketAddr,
    /// Connections that the kernel holds until they are accepted, per shard. The kernel cuts it
    /// to `net.core.somaxconn`.
    pub backlog: i32,
    /// SO_SNDBUF of each connection, in bytes; the kernel doubles it for its own bookkeeping. It
    /// bounds what a client that does not read makes the kernel hold.
    pub send_buffer_bytes: usize,
}

/// The address cannot be listened on. The configuration's fault.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "{addr} is in use by another process: stop it, or choose another address with --addr \
         or WS_ADDR"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "no permission to listen on {addr}: choose a port from 1024 up with --addr or WS_ADDR, \
         or grant CAP_NET_BIND_SERVICE"
    )]
    Permission {
        /// The address.
        addr: SocketAddr,
    },
    /// Anything else, such as an address that no interface has.
    #[error("cannot listen on {addr}: {source}; check --addr or WS_ADDR")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// `count` listening sockets and the address that they have.
///
/// # Errors
/// The reason why the address cannot be had, with what to do.
pub(crate) fn listen(
    settings: &ListenSettings,
    count: usize,
) -> Result<(Vec<Socket>, SocketAddr), ListenError> {
    while_in_use(|| try_listen(settings, count)).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { addr: settings.addr },
        io::ErrorKind::PermissionDenied => ListenError::Permission { addr: settings.addr },
        _ => ListenError::Other { addr: settings.addr, source },
    })
}

fn try_listen(settings: &ListenSettings, count: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let mut addr = settings.addr;
    if addr.port() != 0 {
        // With SO_REUSEPORT a second server would silently share the port; without it the kernel
        // says so.
        let probe = new_socket(addr)?;
        probe.bind(&addr.into()).and_then(|()| probe.listen(1))?;
    }
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = open(settings, addr)?;
        if let Some(bound) = socket.local_addr()?.as_socket() {
            addr = bound;
        }
        sockets.push(socket);
    }
    Ok((sockets, addr))
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Options that are set here are inherited by accepted connections (tcp(7)), which saves two
/// system calls per connection.
fn open(settings: &ListenSettings, addr: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(addr)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(settings.send_buffer_bytes)?;
    socket.bind(&addr.into())?;
    socket.listen(settings.backlog)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(addr: &str) -> ListenSettings {
        let addr = addr.parse().unwrap();
        ListenSettings { addr, backlog: 16, send_buffer_bytes: 65_536 }
    }

    #[test]
    fn shards_share_one_port_and_strangers_do_not() {
        let (sockets, addr) = listen(&settings("127.0.0.1:0"), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        let again = listen(&settings(&addr.to_string()), 1);
        assert!(matches!(again, Err(ListenError::InUse { addr: named }) if named == addr));
        drop(sockets);
        listen(&settings(&addr.to_string()), 2).unwrap();
    }

    #[test]
    fn an_address_of_nobody_is_named() {
        let error = listen(&settings("192.0.2.1:3002"), 1).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:3002"), "{error}");
    }
}
