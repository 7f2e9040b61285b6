//! A SOCKS5 proxy that leads every stream to the target, wherever the client wants to go: what tun2proxy, which can
//! only talk to proxies, is measured with. Beyond the handshake it copies as the plain proxy does.

use std::{io, net::SocketAddr, process::ExitCode};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::copy::{self, carry};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const SUCCEEDED: u8 = 0;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Runs until it is killed. Its address goes to stdout as the others' does.
pub(crate) fn run(args: &copy::Args) -> anyhow::Result<ExitCode> {
    let target = args.target;
    copy::listen_and(move |stream| shake_hands_and_carry(stream, target))
}

async fn shake_hands_and_carry(mut near: TcpStream, target: SocketAddr) -> io::Result<()> {
    let [version, methods] = read(&mut near).await?;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    near.read_exact(&mut vec![0; methods.into()]).await?;
    near.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let [_, _, _, kind] = read(&mut near).await?;
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => near.read_u8().await?.into(),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let port = 2;
    near.read_exact(&mut vec![0; length + port]).await?;
    let any = [0; 6];
    near.write_all(&[&[VERSION, SUCCEEDED, 0, IPV4], &any[..]].concat()).await?;
    carry(near, target).await
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
