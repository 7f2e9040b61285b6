//! A server that hands out and takes in large transfers that stop half-way until they are told to go on, so that what fails
//! does so in their midst. Whoever has one can say whether it is whole.

use std::net::SocketAddr;

use anyhow::Context as _;
use aws_lc_rs::digest;
use postern_proto::record::hex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// How much is written at once.
const BLOCK: usize = 1 << 20;

/// The word that asks for a download, and that which announces an upload.
const DOWN: u8 = b'd';
const UP: u8 = b'u';

/// How many rounds of halves may go on: a transfer that began in one round ends in the next.
pub type Round = watch::Receiver<u64>;

/// How a transfer ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended in order, and every byte was there.
    Whole,
    /// It was broken off, and its client knows.
    Broken,
    /// It ended in order, and something is missing or wrong.
    Lie,
}

/// Block `number` of every transfer: a byte lost, doubled or moved anywhere changes the hash.
fn write_block(block: &mut [u8], number: u64) {
    for (at, byte) in block.iter_mut().take(8).zip(number.to_le_bytes()) {
        *at = byte;
    }
}

fn hash_of(mib: u64) -> String {
    let mut block = crate::content::bytes(11, BLOCK);
    let mut context = digest::Context::new(&digest::SHA256);
    for number in 0..mib {
        write_block(&mut block, number);
        context.update(&block);
    }
    hex(context.finish().as_ref())
}

/// Sends `mib` blocks, and waits in the midst for the next round.
async fn send(stream: &mut TcpStream, mib: u64, mut round: Round, halfway: impl FnOnce()) -> std::io::Result<()> {
    let begun = *round.borrow();
    let mut block = crate::content::bytes(11, BLOCK);
    let mut halfway = Some(halfway);
    for number in 0..mib {
        if number == mib / 2 {
            if let Some(halfway) = halfway.take() {
                halfway();
            }
            let _ = round.wait_for(|now| *now > begun).await;
        }
        write_block(&mut block, number);
        stream.write_all(&block).await?;
    }
    stream.shutdown().await
}

/// Reads to the end, which must be one in order; the hash and the length.
async fn receive(stream: &mut TcpStream) -> std::io::Result<(String, u64)> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut buffer, mut length) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok((hex(context.finish().as_ref()), length)),
            read => {
                context.update(buffer.get(..read).unwrap_or_default());
                length += read as u64;
            }
        }
    }
}

/// Serves for ever. `accepted` counts the transfers that began.
pub async fn serve(listener: TcpListener, mib: u64, round: Round, accepted: watch::Sender<u64>) {
    let mut transfers = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let (round, accepted) = (round.clone(), accepted.clone());
        transfers.spawn(async move {
            // A health check says nothing.
            let Ok(word) = stream.read_u8().await else { return };
            accepted.send_modify(|count| *count += 1);
            // Its client judges how it ended.
            let _ = match word {
                DOWN => send(&mut stream, mib, round, || ()).await,
                _ => answer(&mut stream).await,
            };
        });
        while transfers.try_join_next().is_some() {}
    }
}

async fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let (hash, _) = receive(stream).await?;
    stream.write_all(hash.as_bytes()).await?;
    stream.shutdown().await
}

/// Downloads `mib` blocks. `halfway` is called when the first half is there.
pub async fn download(from: SocketAddr, mib: u64, halfway: impl FnOnce()) -> anyhow::Result<Outcome> {
    let mut stream = TcpStream::connect(from).await.context("cannot connect")?;
    stream.write_all(&[DOWN]).await?;
    let (mut buffer, mut length) = (vec![0; 256 * 1024], 0);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut halfway = Some(halfway);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => {
                context.update(buffer.get(..read).unwrap_or_default());
                length += read as u64;
                if length >= mib / 2 * BLOCK as u64
                    && let Some(halfway) = halfway.take()
                {
                    halfway();
                }
            }
            Err(_) => return Ok(Outcome::Broken),
        }
    }
    let whole = hex(context.finish().as_ref()) == hash_of(mib);
    Ok(if whole { Outcome::Whole } else { Outcome::Lie })
}

/// Uploads `mib` blocks, the second half in the next round.
pub async fn upload(to: SocketAddr, mib: u64, round: Round, halfway: impl FnOnce()) -> anyhow::Result<Outcome> {
    let mut stream = TcpStream::connect(to).await.context("cannot connect")?;
    stream.write_all(&[UP]).await?;
    let mut answer = Vec::new();
    let sent = send(&mut stream, mib, round, halfway).await.is_ok();
    if !sent || stream.read_to_end(&mut answer).await.is_err() {
        return Ok(Outcome::Broken);
    }
    Ok(if answer == hash_of(mib).as_bytes() { Outcome::Whole } else { Outcome::Lie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transfer_waits_half_way_and_a_whole_one_is_told_from_one_that_was_cut_short() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rounds, round) = watch::channel(0);
        let (accepted, count) = watch::channel(0);
        let serving = tokio::spawn(serve(listener, 4, round.clone(), accepted));
        let (told, tell) = tokio::sync::oneshot::channel();
        let halfway = move || {
            let _ = told.send(());
        };
        let up = tokio::spawn(upload(address, 4, round, halfway));
        tell.await.unwrap();
        assert!(!up.is_finished());
        rounds.send_modify(|round| *round += 1);
        assert_eq!(up.await.unwrap().unwrap(), Outcome::Whole);
        // This one is longer than what its client expects.
        let down = tokio::spawn(download(address, 3, || ()));
        while *count.borrow() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        rounds.send_modify(|round| *round += 1);
        assert_eq!(down.await.unwrap().unwrap(), Outcome::Lie);
        serving.abort();
    }
}
