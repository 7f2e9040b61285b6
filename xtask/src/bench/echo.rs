//! The yardstick for names: a UDP socket that sends each query back as if it were its answer, and looks nothing up. How long
//! that takes is what the machine's scheduler and the load itself add to every server's times.

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::ExitCode,
    thread,
};

use anyhow::Context;

/// Runs until it is killed, with a thread for each core, as posternd has. Its address goes to stdout as the others' does.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a socket on loopback")?;
    anstream::println!("{}", serde_json::json!({ "ready": true, "listen": socket.local_addr()? }));
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| echo(&socket));
        }
    });
    Ok(ExitCode::FAILURE)
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    // What cannot be read or sent is a lost query.
    loop {
        let Ok((length, asker)) = socket.recv_from(&mut buffer) else { continue };
        let [_, _, flags, _, _, _, _, answers, ..] = &mut buffer;
        (*flags, *answers) = (*flags | 0x80, 1);
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), asker);
    }
}
