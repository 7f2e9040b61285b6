//! How streams end: orderly, by a reset, by a cut, by a broken connection. A cut one never looks complete.

use std::{io, time::Duration};

use postern_proto::frame::ResetCode;
use postern_tunnel::stream::EndCause;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    transfer::noise,
    world::{Gateway, Local, Org, Plan, Relay, Route, Target, within},
};

/// A gateway and one opened stream through it, over which one byte went each way.
struct Stream {
    gateway: Gateway,
    relay: Relay,
    local: Local,
    target: TcpStream,
    entry: std::sync::Arc<postern_tunnel::client::Entry>,
}

async fn stream() -> Stream {
    begin(true).await
}

/// Without anybody in between, who would take what a gateway has sent when that is gone.
async fn direct_stream() -> Stream {
    begin(false).await
}

async fn begin(relayed: bool) -> Stream {
    let org = Org::new();
    let target = Target::bind().await;
    let address = target.address;
    let gateway = Gateway::start(&org, Duration::from_millis(50), move |_| Plan::Dial(address)).await;
    let relay = Relay::to(gateway.address).await;
    let entry = if relayed { gateway.entry_through(&relay, org.client()) } else { gateway.entry(org.client()) };
    let mut local = Local::connect(Route::to(&[&entry])).await;
    let mut target = target.accept().await;
    local.app.write_all(b"?").await.unwrap();
    assert_eq!(within(target.read_u8()).await.unwrap(), b'?');
    target.write_all(b"!").await.unwrap();
    assert_eq!(within(local.app.read_u8()).await.unwrap(), b'!');
    Stream { gateway, relay, local, target, entry }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads until the connection ends, which must be by a reset.
async fn expect_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = within(stream.read_to_end(&mut rest)).await;
    assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_end_first_and_the_other_goes_on() {
    let mut first = stream().await;
    first.local.app.shutdown().await.unwrap();
    assert_eq!(within(first.target.read(&mut [0])).await.unwrap(), 0);
    let sent = noise(1, 3 << 20);
    let mut received = Vec::new();
    let writing = async {
        first.target.write_all(&sent).await.unwrap();
        first.target.shutdown().await.unwrap();
    };
    within(async { tokio::join!(writing, async { first.local.app.read_to_end(&mut received).await.unwrap() }) }).await;
    assert!(received == sent);
    assert_eq!(first.local.end().await.cause, EndCause::Done);
    assert_eq!(first.gateway.ended().await.cause, EndCause::Done);

    let mut second = stream().await;
    second.target.shutdown().await.unwrap();
    assert_eq!(within(second.local.app.read(&mut [0])).await.unwrap(), 0);
    let mut received = Vec::new();
    let writing = async {
        second.local.app.write_all(&sent).await.unwrap();
        second.local.app.shutdown().await.unwrap();
    };
    within(async { tokio::join!(writing, async { second.target.read_to_end(&mut received).await.unwrap() }) }).await;
    assert!(received == sent);
    assert_eq!(second.local.end().await.cause, EndCause::Done);
    assert_eq!(second.gateway.ended().await.cause, EndCause::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_the_program_resets_the_target() {
    let mut stream = stream().await;
    reset(stream.local.app);
    expect_reset(&mut stream.target).await;
    assert_eq!(within(stream.local.task).await.unwrap().cause, EndCause::LocalReset);
    assert_eq!(stream.gateway.ended().await.cause, EndCause::PeerReset(ResetCode::ClientReset));
    // One spare stands ready; the connection of the broken stream is not beside it.
    assert!(stream.entry.idle() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_the_target_resets_the_program() {
    let mut stream = stream().await;
    reset(stream.target);
    expect_reset(&mut stream.local.app).await;
    assert_eq!(stream.local.end().await.cause, EndCause::PeerReset(ResetCode::TargetReset));
    assert_eq!(stream.gateway.ended().await.cause, EndCause::LocalReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_noticed_when_its_side_had_ended_before_and_nothing_moves() {
    let mut program = stream().await;
    program.local.app.shutdown().await.unwrap();
    assert_eq!(within(program.target.read(&mut [0])).await.unwrap(), 0);
    reset(program.local.app);
    assert_eq!(within(program.local.task).await.unwrap().cause, EndCause::LocalReset);
    assert_eq!(program.gateway.ended().await.cause, EndCause::PeerReset(ResetCode::ClientReset));

    let mut target = stream().await;
    target.target.shutdown().await.unwrap();
    assert_eq!(within(target.local.app.read(&mut [0])).await.unwrap(), 0);
    reset(target.target);
    expect_reset_after_end(&mut target.local.app).await;
    assert_eq!(target.gateway.ended().await.cause, EndCause::LocalReset);
    assert_eq!(target.local.end().await.cause, EndCause::PeerReset(ResetCode::TargetReset));
}

/// After an orderly end of its peer's writing, a program learns of a reset when it writes.
async fn expect_reset_after_end(stream: &mut TcpStream) {
    within(async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_connection_broke_never_looks_complete() {
    for ended in [false, true] {
        let mut stream = stream().await;
        if ended {
            // The program said that it was done; what it waits for is cut all the same.
            stream.local.app.shutdown().await.unwrap();
            assert_eq!(within(stream.target.read(&mut [0])).await.unwrap(), 0);
        }
        stream.target.write_all(b"the first half").await.unwrap();
        let mut half = [0; 14];
        within(stream.local.app.read_exact(&mut half)).await.unwrap();
        stream.relay.cut();
        expect_reset(&mut stream.local.app).await;
        assert_eq!(stream.local.end().await.cause, EndCause::LinkLost);
        assert_eq!(stream.gateway.ended().await.cause, EndCause::LinkLost);
        if !ended {
            expect_reset(&mut stream.target).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_in_the_middle_resets_both_sides() {
    let mut stream = stream().await;
    // More than all the buffers on the way hold.
    let sent = noise(7, 64 << 20);
    let dying = async {
        let mut some = vec![0; 100_000];
        stream.target.read_exact(&mut some).await.unwrap();
        stream.gateway.task.abort();
    };
    let (sending, ()) = within(async { tokio::join!(stream.local.app.write_all(&sent), dying) }).await;
    assert_eq!(sending.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    expect_reset(&mut stream.target).await;
    assert_eq!(stream.gateway.ended().await.cause, EndCause::Cut(ResetCode::Internal));
    assert_eq!(stream.local.end().await.cause, EndCause::LinkLost);
}

/// Sends until nothing is taken any more anywhere on the way.
async fn fill(socket: &TcpStream) {
    for _ in 0..20 {
        while socket.try_write(&[7; 65536]).is_ok() {}
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_resets_the_program_though_it_reads_nothing() {
    let stream = direct_stream().await;
    fill(&stream.target).await;
    stream.gateway.task.abort();
    let end = within(stream.local.task).await.unwrap();
    assert_eq!(end.cause, EndCause::LinkLost);
    let mut app = stream.local.app;
    expect_reset(&mut app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_resets_the_target_though_it_reads_nothing() {
    let mut stream = direct_stream().await;
    fill(&stream.local.app).await;
    stream.local.task.abort();
    assert_eq!(stream.gateway.ended().await.cause, EndCause::LinkLost);
    expect_reset(&mut stream.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_program_gets_all_of_a_transfer_that_was_complete_before_its_gateway_died() {
    let mut stream = direct_stream().await;
    stream.local.app.shutdown().await.unwrap();
    assert_eq!(within(stream.target.read(&mut [0])).await.unwrap(), 0);
    let death = stream.gateway.task.abort_handle();
    let (sent, mut received) = (noise(3, 24 << 20), vec![0; 24 << 20]);
    // The program reads only until the gateway has got rid of everything, the end too.
    let mut at = 0;
    let sending = async {
        stream.target.write_all(&sent).await.unwrap();
        stream.target.shutdown().await.unwrap();
        stream.gateway.ended().await
    };
    tokio::pin!(sending);
    let end = loop {
        tokio::select! {
            biased;
            end = &mut sending => break end,
            () = tokio::time::sleep(Duration::from_millis(1)) => {
                let most = received.len().min(at + 32768);
                if let Ok(count) = stream.local.app.try_read(&mut received[at..most]) {
                    at += count;
                }
            }
        }
    };
    assert_eq!(end.cause, EndCause::Done);
    death.abort();
    // Long enough for its death to be noticed.
    tokio::time::sleep(Duration::from_secs(4)).await;
    within(stream.local.app.read_exact(&mut received[at..])).await.unwrap();
    assert_eq!(within(stream.local.app.read(&mut [0])).await.unwrap(), 0);
    assert!(received == sent);
    assert_eq!(stream.local.end().await.cause, EndCause::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_an_idle_stream_at_both_sides_and_says_why() {
    let mut by_node = stream().await;
    by_node.gateway.server.handler().controls.lock().unwrap()[0].cut(ResetCode::Revoked);
    expect_reset(&mut by_node.local.app).await;
    expect_reset(&mut by_node.target).await;
    assert_eq!(by_node.local.end().await.cause, EndCause::PeerReset(ResetCode::Revoked));
    assert_eq!(by_node.gateway.ended().await.cause, EndCause::Cut(ResetCode::Revoked));

    let mut by_client = stream().await;
    by_client.local.control.cut(ResetCode::Disconnected);
    by_client.local.control.cut(ResetCode::Revoked);
    expect_reset(&mut by_client.local.app).await;
    expect_reset(&mut by_client.target).await;
    assert_eq!(by_client.local.end().await.cause, EndCause::Cut(ResetCode::Disconnected));
    assert_eq!(by_client.gateway.ended().await.cause, EndCause::PeerReset(ResetCode::Disconnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_a_busy_stream_though_nobody_reads() {
    let mut stream = stream().await;
    // Neither the program nor the target reads: every buffer fills up in both directions.
    let full = |socket: &TcpStream| while socket.try_write(&[0; 65536]).is_ok() {};
    for _ in 0..20 {
        full(&stream.local.app);
        full(&stream.target);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream.gateway.server.handler().controls.lock().unwrap()[0].cut(ResetCode::Revoked);
    assert_eq!(stream.gateway.ended().await.cause, EndCause::Cut(ResetCode::Revoked));
    expect_reset(&mut stream.target).await;
    // What had arrived before is handed out first, as by any TCP connection that is reset.
    expect_reset(&mut stream.local.app).await;
    let end = within(stream.local.task).await.unwrap();
    assert!(matches!(end.cause, EndCause::LinkLost | EndCause::PeerReset(ResetCode::Revoked)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_refuses_new_streams_while_old_ones_run() {
    let org = Org::new();
    let echo = Target::echo().await;
    let mut gateway = Gateway::start(&org, Duration::from_secs(15), move |_| Plan::Dial(echo)).await;
    let entry = gateway.entry(org.client());
    let mut old = Local::connect(Route::to(&[&entry])).await;
    old.app.write_all(b"a").await.unwrap();
    assert_eq!(within(old.app.read_u8()).await.unwrap(), b'a');
    gateway.stop.cancel();
    let new = Local::connect(Route::to(&[&entry])).await;
    let EndCause::Refused(problem) = new.end().await.cause else { panic!("opened while draining") };
    assert_eq!((problem.status, problem.code.as_str()), (503, "draining"));
    old.app.write_all(b"b").await.unwrap();
    assert_eq!(within(old.app.read_u8()).await.unwrap(), b'b');
    assert_eq!(gateway.server.streams(), 1);
    old.app.shutdown().await.unwrap();
    assert_eq!(old.end().await.cause, EndCause::Done);
    within(&mut gateway.task).await.unwrap();
    assert_eq!(gateway.ended().await.cause, EndCause::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_outlast_the_drain_time_are_cut() {
    let mut stream = stream().await;
    stream.gateway.stop.cancel();
    expect_reset(&mut stream.local.app).await;
    expect_reset(&mut stream.target).await;
    within(&mut stream.gateway.task).await.unwrap();
    assert_eq!(stream.gateway.ended().await.cause, EndCause::Cut(ResetCode::Draining));
    assert_eq!(stream.local.end().await.cause, EndCause::PeerReset(ResetCode::Draining));
}
