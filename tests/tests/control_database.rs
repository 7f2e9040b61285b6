//! The way from a control plane to PostgreSQL: over TLS, and through a pooler.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use postern_proto::resource::Kind;
use postern_tests::{
    authority::TestAuthority,
    balancer::Balancer,
    binaries::binaries,
    client,
    command::{PATIENCE, run},
    need_program,
    process::Process,
    servers::{Folder, PgBouncer, Postgres, folder},
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::json;

/// A control plane that is started with this URL.
struct Bed {
    folder: Folder,
    key: PathBuf,
}

impl Bed {
    async fn new() -> anyhow::Result<Self> {
        let folder = folder()?;
        let key = folder.path().join("control.key");
        run(tokio::process::Command::new(binaries()?.control()).arg("new-key").arg(&key), PATIENCE).await?.success()?;
        Ok(Self { folder, key })
    }

    fn command(&self, url: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(binaries()?.control());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(self.folder.path().join("data"));
        command.env("POSTERN_CONTROL_KEY_FILE", &self.key).env("POSTERN_DATABASE_URL", url).env("RUST_LOG", "info");
        command.env_remove("PGSSLROOTCERT").env_remove("PGSSLMODE");
        Ok(command)
    }

    async fn starts(&self, url: &str) -> anyhow::Result<Process> {
        let mut process = Process::spawn("control", &mut self.command(url)?, self.folder.path())?;
        process.ready().await.with_context(|| url.to_owned())?;
        Ok(process)
    }

    /// What it says of why it does not start.
    async fn refuses(&self, url: &str) -> anyhow::Result<String> {
        let output = run(&mut self.command(url)?.into(), PATIENCE).await?;
        ensure!(!output.status.success(), "it starts with {url}");
        Ok(output.stderr)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text)?;
        Ok(file)
    }
}

fn url(address: SocketAddr, host: &str, parameters: &str) -> String {
    format!("postgres://postgres@{host}:{}/postgres?{parameters}", address.port())
}

fn verified(mode: &str, authority: &Path) -> String {
    format!("sslmode={mode}&sslrootcert={}", authority.display())
}

#[tokio::test]
async fn the_control_plane_talks_to_postgresql_over_tls_that_it_verifies() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let (authority, other, bed) = (TestAuthority::new()?, TestAuthority::new()?, Bed::new().await?);
    let (right, wrong) =
        (bed.write("ca.pem", &authority.certificate())?, bed.write("other.pem", &other.certificate())?);
    let database = Postgres::start_tls(&authority.issue("localhost")?).await?;
    let address = database.address();

    for mode in ["verify-full", "verify-ca", "require"] {
        let told = bed.refuses(&url(address, "localhost", &verified(mode, &wrong))).await?;
        ensure!(told.contains("certificate"), "{mode}: {told}");
    }
    let told = bed.refuses(&url(address, "127.0.0.1", &verified("verify-full", &right))).await?;
    ensure!(told.contains("certificate") && told.contains("127.0.0.1"), "another name: {told}");
    let told = bed.refuses(&url(address, "localhost", "sslmode=verify-full")).await?;
    ensure!(told.contains("certificate"), "public authorities: {told}");

    let mut control = bed.starts(&url(address, "localhost", &verified("verify-full", &right))).await?;
    let encrypted = "select bool_and(ssl), count(*) > 0 from pg_stat_ssl join pg_stat_activity using (pid) \
                     where application_name = 'postern-control'";
    assert_eq!(Postgres::query(address, encrypted).await?, "t|t");
    control.stop().await?;

    let plain = Postgres::start().await?;
    for mode in ["require", "verify-full"] {
        let told = bed.refuses(&url(plain.address(), "localhost", &verified(mode, &right))).await?;
        ensure!(told.contains("does not support TLS"), "{mode}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_pooler_that_nobody_spoke_of_is_refused_and_one_in_session_mode_is_taken() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    need_program!(PgBouncer::PROGRAM);
    let (database, bed) = (Postgres::start().await?, Bed::new().await?);
    for ignored in ["", "options, extra_float_digits"] {
        let pooler = PgBouncer::start(database.address(), "transaction", ignored).await?;
        let told = bed.refuses(&url(pooler.address(), "127.0.0.1", "sslmode=disable")).await?;
        ensure!(told.contains("pooler=transaction"), "{ignored:?}: {told}");
    }
    let pooler = PgBouncer::start(database.address(), "session", "").await?;
    let mut control = bed.starts(&url(pooler.address(), "127.0.0.1", "sslmode=disable&pooler=session")).await?;
    control.stop().await?;
    let told = bed.refuses(&url(pooler.address(), "127.0.0.1", "pooler=statement")).await?;
    ensure!(told.contains("POSTERN_DATABASE_URL") || told.contains("--database"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_work_through_a_pooler_that_shares_connections_by_the_transaction() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    need_program!(PgBouncer::PROGRAM);
    let database = Postgres::start().await?;
    let pooler = PgBouncer::start(database.address(), "transaction", "").await?;
    let balancer = Balancer::start().await?;
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder()
        .database(&url(pooler.address(), "127.0.0.1", "sslmode=disable&pooler=transaction"))
        .behind(&balancer)
        .resource("echo", Kind::Tcp, target.address())
        .start()
        .await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, b"through one").await?, b"through one");

    // The second starts while the first works: its migration takes nobody's lock along.
    let mut second = stack.start_replica("control-2").await?;
    let api = stack.admin_at(&second)?;
    for number in 0..40 {
        let on = if number % 2 == 0 { stack.api() } else { &api };
        on.post("/api/v1/roles", json!({"name": format!("role {number}")})).await?;
    }
    // What one wrote the other tells, though no notification reaches it.
    let end = std::time::Instant::now() + PATIENCE;
    while api.list("/api/v1/roles").await?.len() < 40 {
        ensure!(std::time::Instant::now() < end, "the second control plane does not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stack.control.stop().await?;
    assert_eq!(client::exchange(address, b"through the other").await?, b"through the other");

    // Whoever writes holds one for a moment; one that was left in the pool stays.
    let left = "select count(*) from pg_locks where locktype = 'advisory'";
    let end = std::time::Instant::now() + PATIENCE;
    while Postgres::query(database.address(), left).await? != "0" {
        ensure!(std::time::Instant::now() < end, "a lock was left in the pool");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.stop().await?;
    stack.stop().await
}
