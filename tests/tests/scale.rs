//! The measuring of large organisations, on a small one.

use postern_tests::{
    binaries::binaries,
    scale::{Figures, Size, measure},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_is_grown_asked_followed_and_comes_back() -> anyhow::Result<()> {
    postern_tunnel::tls::install_crypto_provider();
    binaries()?;
    let size = Size { resources: 600, accounts: 60, roles: 6, devices: 80, connections: 8, touched: 40 };
    let mut figures = Figures::new(false);
    measure(size, &mut figures).await?;
    let said: Vec<&str> = figures.all().iter().map(|figure| figure.what.as_str()).collect();
    for found in [
        "search by name, one found (1 on the page)",
        "tag query (100 on the page)",
        "lease for one resource, another denied (1 given)",
        "one tag edit that touches 40 accounts, 8 of them connected",
        "until the last device was back",
        "simulated: until 40 devices were told",
    ] {
        assert!(said.contains(&found), "{found} is not among {said:#?}");
    }
    Ok(())
}
