//! A balancer of layer 4: carries bytes to one of several servers, in turn, and passes over those that do not answer.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Where a balancer is, and who is behind it.
#[derive(Clone)]
pub struct Entrance {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
}

/// A balancer on a port from the kernel. It ends when it is dropped, and every connection with it.
pub struct Balancer {
    entrance: Entrance,
    _accepting: JoinSet<()>,
}

impl Balancer {
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another address of this machine.
    pub async fn start_at(host: IpAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let servers: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&servers)));
        Ok(Self { entrance: Entrance { address, servers }, _accepting: accepting })
    }

    #[must_use]
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }
}

impl Entrance {
    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// One more server.
    pub fn add(&self, server: SocketAddr) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
    }
}

async fn accept(listener: TcpListener, servers: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut connections = JoinSet::new();
    for turn in 0_usize.. {
        let Ok((client, _)) = listener.accept().await else { return };
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !servers.is_empty() {
            let first = turn % servers.len();
            servers.rotate_left(first);
        }
        connections.spawn(carry(client, servers));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, servers: Vec<SocketAddr>) {
    for server in servers {
        if let Ok(mut server) = TcpStream::connect(server).await {
            // However it ends, both ends see it.
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
