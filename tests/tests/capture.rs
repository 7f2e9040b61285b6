//! What a gateway passes on to a relay is sealed: everything that goes through the gateway's network is recorded, and what the
//! program and the resource say is not in it.
//!
//! ```text
//! client (1) ── DMZ (0: control plane, gateway) ── private network (2: relay, resource)
//! ```

use postern_proto::resource::Kind;
use postern_tests::{
    capture::Capture,
    client, need_namespace, need_program,
    site::{self, DMZ},
    stack::{How, Stack},
    target::Behaviour,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What the program says and the resource repeats: nowhere else, and in the clear it is found whole.
const MARKER: &[u8] = b"a-word-that-no-gateway-may-ever-read-0123456789";
const TIMES: usize = 200;

#[test]
fn a_recording_at_the_gateway_shows_nothing_of_what_goes_to_a_relay() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(Capture::PROGRAM);
    site::run(2, async |site| {
        let launcher = site.launcher(1);
        let words: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let mut stack = Stack::builder().host(DMZ).user_launcher(&words).start().await?;
        let how = How { launcher: site.launcher(2), ..How::default() };
        stack.add_relay_with("relay-1", 1, &how).await?;
        let target = site.target(2, Behaviour::Echo).await?;
        let resource = stack.create_resource("echo", Kind::Tcp, target.address()).await?;
        stack.set_egress(resource, "name:relay-1").await?;
        stack.add_rule(stack.role, &[resource]).await?;
        stack.user().knows("echo").await?;
        let address = stack.user().connect("echo").await?;
        let far = |status: &postern_local_api::message::ResourceStatus| {
            status.route.as_ref().is_some_and(|route| route.hops.len() == 2)
        };
        stack.user().resource_when("echo", far).await?;

        let folder = stack.folder().to_owned();
        let (gateway, private) = (Capture::start(&site, 0, &folder).await?, Capture::start(&site, 2, &folder).await?);
        site.within(1, move || async move {
            let mut stream = client::open(address).await?;
            for _ in 0..TIMES {
                stream.write_all(MARKER).await?;
                let mut answer = vec![0; MARKER.len()];
                stream.read_exact(&mut answer).await?;
                anyhow::ensure!(answer == MARKER, "something else came back");
            }
            Ok(())
        })
        .await?;
        // The control: at the resource it is seen in both directions.
        let (seen, length) = private.occurrences(MARKER).await?;
        assert!(seen >= 2 * TIMES, "{seen} of {} are in {length} bytes at the resource", 2 * TIMES);
        let (seen, length) = gateway.occurrences(MARKER).await?;
        let carried = 4 * TIMES * MARKER.len();
        assert!(length > carried, "{length} bytes were recorded at the gateway: the traffic is not in it");
        assert_eq!(seen, 0, "the gateway's network saw what was said, in {length} bytes");
        stack.stop().await
    })
}
