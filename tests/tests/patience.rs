//! Programs that take their time: nobody is cut because he does not read for a while.

use std::time::Duration;

use postern_proto::resource::Kind;
use postern_tests::{
    stack::Stack,
    target::{Behaviour, Target},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// Longer than any timeout on unacknowledged bytes that a path may have: a pager waits for its user.
const PAUSE: Duration = Duration::from_secs(25);
const AFTERWARDS: usize = 100_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_is_not_cut() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Flood).await?;
    let stack = Stack::builder().resource("flood", Kind::Tcp, target.address()).start().await?;
    let mut stream = TcpStream::connect(stack.user().connect("flood").await?).await?;
    stream.read_u8().await?;
    // Every buffer on the way is full now, and the client's window is closed.
    tokio::time::sleep(PAUSE).await;
    let mut buffer = vec![0; 1 << 20];
    let mut left = AFTERWARDS;
    while left > 0 {
        let read = stream.read(&mut buffer).await?;
        assert!(read > 0, "the stream ended {left} bytes too early");
        left = left.saturating_sub(read);
    }
    drop(stream);
    target.wait_open(0, Duration::from_secs(10)).await?;
    stack.stop().await
}
