//! The virtual network as a whole: real postern-netd, control plane, gateway and posternd in a network of the test's own.

use postern_proto::resource::Kind;
use postern_tests::{
    client, need_namespace,
    network_bed::{self, add_virtual, enable},
    target::{Behaviour, Target},
};
use serde_json::json;

#[test]
fn a_resource_is_reached_at_its_own_address_and_gone_when_access_is_taken() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let before = bed.namespace.snapshot().await?;
        let network = enable(stack.user()).await?;
        let address = stack.user().listens("echo").await?;
        assert!(network.subnet.starts_with("100.72.0.0/"), "{network:?}");
        assert_eq!(address.port(), 7);
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        client::ask(&mut stream, &vec![7; 100_000]).await?;
        stack.revoke_all().await?;
        assert_eq!(client::end(&mut stream).await?, client::End::Reset);
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
        stack.user().postern(&["network", "disable"]).await?;
        bed.namespace.snapshot().await?.must_equal(&before)?;
        stack.stop().await
    })
}
