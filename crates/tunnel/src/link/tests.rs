//! The link against rustls' own connections, in both roles: what one seals the other opens.

use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    CipherSuite, ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::crypto_provider;

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Configurations that trust each other and know one cipher suite.
fn configs(suite: CipherSuite) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let mut provider = crypto_provider();
    provider.cipher_suites.retain(|known| known.suite() == suite);
    let provider = Arc::new(provider);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["peer".to_owned()]).unwrap().self_signed(&key).unwrap();
    let certificate = CertificateDer::from(certificate.der().to_vec());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connecting, listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

fn name() -> ServerName<'static> {
    ServerName::try_from("peer").unwrap()
}

/// A link, and rustls at its other end.
async fn link_and_rustls(suite: CipherSuite, as_client: bool) -> (Box<Link>, tokio_rustls::TlsStream<TcpStream>) {
    let (client, server) = configs(suite);
    let (near, far) = sockets().await;
    if as_client {
        let (link, peer) = tokio::join!(connect(near, client, name()), TlsAcceptor::from(server).accept(far));
        (link.unwrap().link, peer.unwrap().into())
    } else {
        let connector = TlsConnector::from(client);
        let (link, peer) = tokio::join!(accept(near, server), connector.connect(name(), far));
        (link.unwrap().link, peer.unwrap().into())
    }
}

impl Link {
    async fn send_all(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(RECORDS * FULL) {
            std::future::poll_fn(|cx| Poll::Ready(self.send(cx, &mut part.to_vec()))).await.unwrap();
            std::future::poll_fn(|cx| self.poll_flush(cx)).await.unwrap();
        }
    }

    async fn recv(&mut self) -> Result<Vec<u8>, LinkError> {
        let mut plain = vec![0; 64 * 1024];
        let count = std::future::poll_fn(|cx| self.poll_recv(cx, &mut plain)).await?;
        plain.truncate(count);
        Ok(plain)
    }

    async fn recv_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            all.extend(self.recv().await.unwrap());
        }
        all
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

fn block_on<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(30), work).await.unwrap() })
}

#[test]
fn every_suite_in_both_roles_speaks_with_rustls() {
    block_on(async {
        for suite in SUITES {
            for as_client in [true, false] {
                let (mut link, mut peer) = link_and_rustls(suite, as_client).await;
                let sent = noise(1_000_003);
                let mut received = vec![0; sent.len()];
                let reading = async { peer.read_exact(&mut received).await.map(drop) };
                let ((), read) = tokio::join!(link.send_all(&sent), reading);
                read.unwrap();
                assert!(received == sent, "{suite:?} out");
                let writing = async {
                    peer.write_all(&sent).await.unwrap();
                    peer.flush().await.unwrap();
                };
                let ((), received) = tokio::join!(writing, link.recv_exactly(sent.len()));
                assert!(received == sent, "{suite:?} in");
                peer.shutdown().await.unwrap();
                assert!(link.recv().await.unwrap().is_empty(), "an orderly end");
            }
        }
    });
}

#[test]
fn keys_are_renewed_when_the_peer_does_it_and_when_the_cipher_wants_it() {
    block_on(async {
        for suite in SUITES {
            for as_client in [true, false] {
                let (mut link, mut peer) = link_and_rustls(suite, as_client).await;
                // As if the cipher could seal only three records with a key.
                link.limit = 3;
                for round in 0..20_usize {
                    let sent = noise(round * 7001 + 1);
                    let mut received = vec![0; sent.len()];
                    let (_, read) = tokio::join!(link.send_all(&sent), peer.read_exact(&mut received));
                    read.unwrap();
                    assert!(received == sent);
                    // It renews its own key and wants ours renewed.
                    match &mut peer {
                        tokio_rustls::TlsStream::Client(peer) => peer.get_mut().1.refresh_traffic_keys().unwrap(),
                        tokio_rustls::TlsStream::Server(peer) => peer.get_mut().1.refresh_traffic_keys().unwrap(),
                    }
                    let writing = async {
                        peer.write_all(&sent).await.unwrap();
                        peer.flush().await.unwrap();
                    };
                    let ((), received) = tokio::join!(writing, link.recv_exactly(sent.len()));
                    assert!(received == sent);
                }
                assert!(link.sealing.records() <= 3 + RECORDS as u64);
            }
        }
    });
}

#[test]
fn a_peer_that_renews_its_keys_without_end_is_given_up() {
    block_on(async {
        let (mut link, mut peer) = link_and_rustls(SUITES[0], true).await;
        let tokio_rustls::TlsStream::Server(server) = &mut peer else { panic!("a client") };
        for _ in 0..=MOST_RENEWALS {
            server.get_mut().1.refresh_traffic_keys().unwrap();
            server.flush().await.unwrap();
        }
        assert!(matches!(link.recv().await, Err(LinkError::Record(RecordError::BadContent))));
    });
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_not_lost() {
    block_on(async {
        for as_client in [true, false] {
            let (client, server) = configs(SUITES[0]);
            let (near, far) = sockets().await;
            let said = b"said at once".as_slice();
            // The peer's last handshake message and its first data go out together.
            let (mut link, received) = if as_client {
                let peer = async {
                    let mut peer = TlsAcceptor::from(server).accept(far).await.unwrap();
                    peer.write_all(said).await.unwrap();
                    peer.flush().await.unwrap();
                    peer
                };
                let (link, _peer) = tokio::join!(connect(near, client, name()), peer);
                let mut link = link.unwrap().link;
                let received = link.recv_exactly(said.len()).await;
                (link, received)
            } else {
                let peer = async {
                    let connector = TlsConnector::from(client);
                    let mut peer = connector.connect(name(), far).await.unwrap();
                    peer.write_all(said).await.unwrap();
                    peer.flush().await.unwrap();
                    peer
                };
                let (link, _peer) = tokio::join!(accept(near, server), peer);
                let mut link = link.unwrap().link;
                let received = link.recv_exactly(said.len()).await;
                (link, received)
            };
            assert_eq!(received, said);
            assert!(matches!(link.recv().await, Err(LinkError::Closed(_))), "the peer was dropped");
        }
    });
}

#[test]
fn a_connection_that_breaks_is_not_an_orderly_end() {
    block_on(async {
        let (mut link, peer) = link_and_rustls(SUITES[0], true).await;
        assert!(link.is_alive());
        drop(peer);
        assert!(matches!(link.recv().await, Err(LinkError::Closed(_))));
        assert!(!link.is_alive());
    });
}

#[test]
fn a_goodbye_is_one_for_rustls_too() {
    block_on(async {
        let (link, mut peer) = link_and_rustls(SUITES[0], true).await;
        link.close();
        assert_eq!(peer.read(&mut [0; 10]).await.unwrap(), 0);
        let (link, mut peer) = link_and_rustls(SUITES[0], true).await;
        drop(link);
        let end = peer.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn an_idle_link_whose_peer_closed_takes_no_stream() {
    block_on(async {
        let (mut link, mut peer) = link_and_rustls(SUITES[0], true).await;
        assert!(link.is_alive());
        peer.shutdown().await.unwrap();
        while link.is_alive() {
            tokio::task::yield_now().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Neither role panics, hangs or is fooled, whatever the other side says in the handshake.
    #[test]
    fn a_handshake_with_nonsense_fails(
        as_client: bool,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in prop::sample::select(vec![20u8, 21, 22, 23]),
        framed: bool,
    ) {
        let (client, server) = configs(SUITES[0]);
        let mut said = bytes;
        if framed {
            let length = u16::try_from(said.len()).unwrap().to_be_bytes();
            said.splice(0..0, [kind, 3, 3, length[0], length[1]]);
        }
        block_on(async {
            let (near, mut far) = sockets().await;
            far.write_all(&said).await.unwrap();
            far.shutdown().await.unwrap();
            let drain = async {
                let mut rest = Vec::new();
                let _ = far.read_to_end(&mut rest).await;
            };
            let shaken = async {
                if as_client { connect(near, client, name()).await } else { accept(near, server).await }.is_ok()
            };
            let (shaken, ()) = tokio::join!(shaken, drain);
            assert!(!shaken);
        });
    }

    /// The same when the other side begins rightly and one byte of it is changed. Where TLS does not protect the byte (the
    /// version in the first record's header), both sides agree all the same.
    #[test]
    fn a_handshake_with_one_byte_changed_fails_or_both_sides_agree(as_client: bool, at: prop::sample::Index, by in 1..=255u8) {
        let (client, server) = configs(SUITES[0]);
        block_on(async {
            let (client_end, mut client_relay) = sockets().await;
            let (server_end, mut server_relay) = sockets().await;
            let relay = async {
                let (from, to) = if as_client {
                    (&mut server_relay, &mut client_relay)
                } else {
                    (&mut client_relay, &mut server_relay)
                };
                let (mut from_read, mut from_write) = from.split();
                let (mut to_read, mut to_write) = to.split();
                let changed = async {
                    let mut flight = vec![0; 4096];
                    let count = from_read.read(&mut flight).await.unwrap_or(0);
                    if count > 0 {
                        flight[at.index(count)] ^= by;
                        let _ = to_write.write_all(&flight[..count]).await;
                    }
                    let _ = tokio::io::copy(&mut from_read, &mut to_write).await;
                };
                tokio::select! {
                    () = changed => {}
                    _ = tokio::io::copy(&mut to_read, &mut from_write) => {}
                }
            };
            let shaking = async {
                let (client, server) = tokio::join!(connect(client_end, client, name()), accept(server_end, server));
                if let (Ok(mut client), Ok(mut server)) = (client, server) {
                    client.link.send_all(b"agreed").await;
                    assert_eq!(server.link.recv_exactly(6).await, b"agreed");
                }
            };
            tokio::select! {
                () = shaking => {}
                () = relay => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(300)) => {}
            }
        });
    }
}
