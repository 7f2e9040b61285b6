//! A resource under its real host name: the server's certificate is for that name, and unmodified clients verify it as
//! they do without Postern. No name is rewritten, no certificate made, no check turned off.

use std::{net::IpAddr, path::PathBuf};

use anyhow::ensure;
use postern_proto::resource::Kind;
use postern_tests::{
    authority::TestAuthority,
    need_namespace, need_program,
    network_bed::{self, NetworkBed, enable},
    servers::{Nginx, Postgres},
    stack::{Stack, id},
};
use serde_json::json;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A resource whose host and alias are `name`, which only gateways and the virtual network resolve.
async fn add(stack: &Stack, kind: Kind, name: &str, port: u16, bind_port: u16) -> anyhow::Result<()> {
    let body = json!({
        "name": name, "kind": kind, "host": name, "port": port, "allow_local": true,
        "bind": {"mode": "vnm", "dns_name": name, "port": bind_port},
    });
    let resource = id(&stack.api().post("/api/v1/resources", body).await?)?;
    stack.add_rule(stack.role, &[resource]).await?;
    stack.user().knows(name).await.map(drop)
}

/// The test CA's certificate in a file that programs in the namespace find.
fn trusted(bed: &NetworkBed, authority: &TestAuthority) -> anyhow::Result<PathBuf> {
    let file = bed.namespace.folder().join("test-ca.pem");
    std::fs::write(&file, authority.certificate())?;
    Ok(file)
}

#[test]
fn curl_verifies_a_web_server_by_its_real_name() -> anyhow::Result<()> {
    need_namespace!();
    for program in Nginx::PROGRAMS {
        need_program!(program);
    }
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let authority = TestAuthority::new()?;
        let server = Nginx::start_tls(&authority.issue("www.internal.example")?).await?;
        std::fs::write(server.root().join("page"), "by name")?;
        let (name, other) = ("www.internal.example", "other.internal.example");
        let stack = bed.stack().gateway_host(name, LOOPBACK).gateway_host(other, LOOPBACK).start().await?;
        let port = server.address().port();
        add(&stack, Kind::Http, name, port, 443).await?;
        add(&stack, Kind::Http, other, port, 443).await?;
        enable(stack.user()).await?;
        stack.user().listens(name).await?;
        stack.user().listens(other).await?;
        let ca = trusted(&bed, &authority)?;
        let ca = ca.to_str().unwrap_or_default();
        let curl = async |arguments: &[&str]| bed.command("curl", &[&["-sS", "-m", "60"], arguments].concat()).await;
        let shown = " %{ssl_verify_result} %{remote_port}";
        let page = curl(&["--cacert", ca, "-w", shown, "https://www.internal.example/page"]).await?;
        assert_eq!(page.success()?, "by name 0 443");
        // The check is a real one: neither another name nor another authority passes.
        let wrong_name = curl(&["--cacert", ca, "https://other.internal.example/page"]).await?;
        ensure!(wrong_name.status.code() == Some(60) && wrong_name.stdout.is_empty(), "{wrong_name:?}");
        let wrong_authority = curl(&["https://www.internal.example/page"]).await?;
        ensure!(wrong_authority.status.code() == Some(60) && wrong_authority.stdout.is_empty(), "{wrong_authority:?}");
        server.stop().await?;
        stack.stop().await
    })
}

#[test]
fn psql_verifies_a_database_by_its_real_name() -> anyhow::Result<()> {
    need_namespace!();
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let authority = TestAuthority::new()?;
        let server = Postgres::start_tls(&authority.issue("db.internal.example")?).await?;
        let (name, other) = ("db.internal.example", "replica.internal.example");
        let stack = bed.stack().gateway_host(name, LOOPBACK).gateway_host(other, LOOPBACK).start().await?;
        add(&stack, Kind::Postgres, name, server.address().port(), 5432).await?;
        add(&stack, Kind::Postgres, other, server.address().port(), 5432).await?;
        enable(stack.user()).await?;
        stack.user().listens(name).await?;
        stack.user().listens(other).await?;
        let ca = trusted(&bed, &authority)?.display().to_string();
        let psql = async |host: &str| {
            let target = format!("host={host} user=postgres dbname=postgres sslmode=verify-full sslrootcert={ca}");
            let statement = "select ssl, current_database() from pg_stat_ssl where pid = pg_backend_pid()";
            bed.command("psql", &[&target, "--no-align", "--tuples-only", "--no-psqlrc", "--command", statement]).await
        };
        assert_eq!(psql(name).await?.success()?.trim(), "t|postgres");
        let wrong_name = psql(other).await?.failure()?;
        ensure!(wrong_name.contains("does not match host name"), "{wrong_name}");
        server.stop().await?;
        stack.stop().await
    })
}
