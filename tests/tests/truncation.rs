//! What was cut never looks complete, at either end: protocols whose messages end with the connection depend on it.

use std::time::Duration;

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client::{self, End},
    peer,
    stack::Stack,
    target::{Behaviour, Target},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const STREAMS: u64 = 20;

/// Who breaks off.
#[derive(Clone, Copy, Debug)]
enum Cut {
    GatewayDies,
    ServiceDies,
    AccessIsTaken,
    ResourceIsDisconnected,
    ServiceStops,
    ClientBreaksOff,
}

/// Uploads and downloads that are under way when `cut` happens.
async fn cut_in_the_middle(cut: Cut) -> anyhow::Result<()> {
    let up = Target::start(Behaviour::Count).await?;
    let down = Target::start(Behaviour::Flood).await?;
    let builder = Stack::builder().resource("up", Kind::Tcp, up.address());
    let mut stack = builder.resource("down", Kind::Tcp, down.address()).start().await?;
    let (to_up, to_down) = (stack.user().connect("up").await?, stack.user().connect("down").await?);
    let (mut uploads, mut downloads) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let mut upload = TcpStream::connect(to_up).await?;
        upload.write_all(&[7; 10_000]).await?;
        uploads.push(upload);
        let mut download = TcpStream::connect(to_down).await?;
        download.write_u8(7).await?;
        download.read_u8().await?;
        downloads.push(download);
    }
    up.wait_bytes(STREAMS * 10_000, Duration::from_secs(20)).await?;
    down.wait_bytes(STREAMS, Duration::from_secs(20)).await?;
    match cut {
        Cut::GatewayDies => stack.gateways.first_mut().context("no gateway")?.kill().await?,
        Cut::ServiceDies => stack.user_mut().kill().await?,
        Cut::AccessIsTaken => drop(stack.revoke_all().await?),
        Cut::ResourceIsDisconnected => {
            stack.user().disconnect("up").await?;
            stack.user().disconnect("down").await?;
        }
        Cut::ServiceStops => stack.user_mut().stop().await?,
        Cut::ClientBreaksOff => {
            for stream in uploads.drain(..).chain(downloads.drain(..)) {
                peer::reset(&stream.into_std()?)?;
            }
        }
    }
    for mut stream in uploads.into_iter().chain(downloads) {
        assert_eq!(client::end(&mut stream).await?, End::Reset, "{cut:?}: a client took it for complete");
    }
    up.wait_open(0, Duration::from_secs(20)).await?;
    down.wait_open(0, Duration::from_secs(20)).await?;
    assert_eq!(up.complete(), 0, "{cut:?}: a resource took a cut upload for complete");
    assert_eq!(down.complete(), 0, "{cut:?}: a resource took a cut download for complete");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_gateway_dies() -> anyhow::Result<()> {
    cut_in_the_middle(Cut::GatewayDies).await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_service_dies() -> anyhow::Result<()> {
    cut_in_the_middle(Cut::ServiceDies).await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_access_is_taken_away() -> anyhow::Result<()> {
    cut_in_the_middle(Cut::AccessIsTaken).await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_resource_is_disconnected() -> anyhow::Result<()> {
    cut_in_the_middle(Cut::ResourceIsDisconnected).await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_service_stops() -> anyhow::Result<()> {
    cut_in_the_middle(Cut::ServiceStops).await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_client_breaks_off() -> anyhow::Result<()> {
    cut_in_the_middle(Cut::ClientBreaksOff).await
}

/// The other way round: the resource breaks off, and the client must not take it for the end.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_resource_breaks_off() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let breaking = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut word = [0; 4];
            if stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(b"half of the answer").await?;
                peer::reset(&stream.into_std()?)?;
                return std::io::Result::Ok(());
            }
        }
    });
    let stack = Stack::builder().resource("breaks", Kind::Tcp, server).start().await?;
    let mut stream = TcpStream::connect(stack.user().connect("breaks").await?).await?;
    stream.write_all(b"word").await?;
    assert_eq!(client::end(&mut stream).await?, End::Reset);
    breaking.await??;
    stack.stop().await
}

/// Half-closed is not over: the answer to a message that ended arrives whole, however long it takes.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_one_direction_leaves_the_other_open() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Count).await?;
    let stack = Stack::builder().resource("count", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("count").await?;
    for length in [0, 1, 1_000, 65_536, 65_537, 262_140, 262_144, 10_000_000] {
        let answer = client::exchange(address, &vec![7; length]).await?;
        assert_eq!(String::from_utf8_lossy(&answer), length.to_string());
    }
    stack.stop().await
}
