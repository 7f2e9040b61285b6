//! Recordings of everything that goes through a network of a [`Site`].

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{process::Process, site::Site};

/// All packets of one network.
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// The program that it needs; the test is skipped when it is missing.
    pub const PROGRAM: &str = "tcpdump";

    /// Starts recording in network `number`, into a file of `folder`.
    pub async fn start(site: &Site, number: usize, folder: &Path) -> anyhow::Result<Self> {
        let name = format!("capture-{number}");
        let file = folder.join(&name).with_extension("pcap");
        let mut command = site.network(number).command(Self::PROGRAM);
        command.args(["-i", "any", "-n", "-U", "-s", "0", "-B", "16384", "-Z", "root", "-w"]).arg(&file).arg("tcp");
        let process = Process::spawn(&name, &mut command, folder)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !process.log().contains("listening on") {
            anyhow::ensure!(Instant::now() < deadline, "tcpdump does not listen: {}", process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, file })
    }

    /// Ends the recording: how often `bytes` are in it, and how long it is.
    pub async fn occurrences(mut self, bytes: &[u8]) -> anyhow::Result<(usize, usize)> {
        // What the kernel has seen is handed over with the next packets or within a moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.process.stop().await?;
        let recorded = std::fs::read(&self.file).context("the recording cannot be read")?;
        Ok((recorded.windows(bytes.len()).filter(|window| *window == bytes).count(), recorded.len()))
    }
}
