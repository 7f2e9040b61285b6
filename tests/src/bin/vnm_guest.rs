//! What posternd is to netd, in small: asks for a virtual network and answers in it. For tests of isolation.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use clap::Parser as _;
    use postern_tests::vnm::guest::{Options, run};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Options::parse()))
}

#[cfg(not(target_os = "linux"))]
fn main() {}
