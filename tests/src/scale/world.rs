//! An organisation of any size: a small one is made over the API, saved, its rows copied many times over, and restored.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;
use aws_lc_rs::digest::{Context, SHA256};
use postern_proto::{
    id::{AccountId, ResourceId, RoleId},
    record::hex,
};
use serde_json::{Value, json};
use tokio::process::Command;
use ulid::Ulid;

use super::{Figures, Size, number, usage};
use crate::stack::{Stack, id};

/// The role whose rule asks for [`SHARED`]; as many accounts as a tag edit is to touch are its members.
const WIDE: &str = "wide";
/// The role with one member whose rule asks for [`SINGLE`].
const NARROW: &str = "narrow";
/// The tag that gives a resource to the members of the wide role.
pub const SHARED: &str = "shared";
/// The tag that gives a resource to the one member of the narrow role.
pub const SINGLE: &str = "single";
/// Rows of one kind have identifiers of an instant of their own.
const AGE: u64 = 1_700_000_000_000;

/// What was grown.
pub struct World {
    pub size: Size,
    /// A resource that nobody else's tags are edited on.
    pub edited: ResourceId,
}

impl World {
    /// The token of the service account with this number.
    #[must_use]
    pub fn token(number: u64) -> String {
        format!("pst_scale-{number}-of-a-world-that-is-thrown-away")
    }

    #[must_use]
    pub fn account(number: u64) -> AccountId {
        AccountId::from_ulid(Ulid::from_parts(AGE, u128::from(number)))
    }

    #[must_use]
    pub fn resource(number: u64) -> ResourceId {
        ResourceId::from_ulid(Ulid::from_parts(AGE + 1, u128::from(number)))
    }

    fn role(number: u64) -> RoleId {
        RoleId::from_ulid(Ulid::from_parts(AGE + 2, u128::from(number)))
    }
}

/// Makes the organisation of `stack` as large as `size` says, and starts its control plane on it.
pub async fn grow(stack: &mut Stack, size: Size, figures: &mut Figures) -> anyhow::Result<World> {
    let seeds = sow(stack, size).await?;
    stack.control.stop().await?;
    let data = stack.control.data().to_owned();
    let folder = stack.folder().to_owned();
    let (small, large) = (folder.join("small"), folder.join("large"));
    let control = stack.binaries().control();
    let mut save = Command::new(&control);
    run(save.arg("backup").arg(&small).arg("--data").arg(&data)).await?;
    multiply(&small, &large, size, &seeds)?;
    std::fs::remove_dir_all(&data)?;
    let begun = Instant::now();
    let mut restore = Command::new(&control);
    run(restore.arg("restore").arg(&large).arg("--data").arg(&data)).await?;
    figures.took(format!("restore of {} resources and {} accounts", size.resources, size.accounts), begun);
    std::fs::remove_file(&large)?;
    let begun = Instant::now();
    stack.control.restart().await?;
    figures.took("start of postern-control until it is ready", begun);
    let memory = usage(stack.control.process_id())?.memory;
    figures.say("memory of postern-control after its start", number(memory) / 1048576.0, "MiB");
    Ok(World { size, edited: World::resource(0) })
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await.context("postern-control cannot be started")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The rows that are copied, by what names them.
struct Seeds {
    account: AccountId,
    role: RoleId,
    resource: ResourceId,
}

/// One of everything, and the two roles whose members a tag edit touches.
async fn sow(stack: &Stack, size: Size) -> anyhow::Result<Seeds> {
    let api = stack.api();
    let made = api.post("/api/v1/accounts", json!({"email": "seed@example.org", "name": "Seed", "kind": "service"}));
    let account: AccountId = id(&made.await?)?;
    api.post(&format!("/api/v1/accounts/{account}/tokens"), json!({"name": "seed"})).await?;
    let role: RoleId = id(&api.post("/api/v1/roles", json!({"name": "seed"})).await?)?;
    api.post(&format!("/api/v1/roles/{role}/rules"), json!({"query": "tags:team=seed"})).await?;
    api.post(&format!("/api/v1/roles/{role}/members"), json!({"account": account})).await?;
    for (name, tag) in [(WIDE, SHARED), (NARROW, SINGLE)] {
        let role: RoleId = id(&api.post("/api/v1/roles", json!({"name": name})).await?)?;
        api.post(&format!("/api/v1/roles/{role}/rules"), json!({"query": format!("tags:{tag}=yes")})).await?;
        if name == NARROW {
            api.post(&format!("/api/v1/roles/{role}/members"), json!({"account": account})).await?;
        }
    }
    let resource = json!({"name": "seed", "kind": "postgres", "host": "db.internal", "tags": {"team": "seed"}});
    let resource: ResourceId = id(&api.post("/api/v1/resources", resource).await?)?;
    anyhow::ensure!(size.touched <= size.accounts, "a tag cannot touch more accounts than there are");
    Ok(Seeds { account, role, resource })
}

/// A row of a backup by the names of its columns.
type Row = BTreeMap<String, Value>;

/// Copies the seeds' rows until the tables are as large as they should be.
fn multiply(small: &Path, large: &Path, size: Size, seeds: &Seeds) -> anyhow::Result<()> {
    let mut out = Out { file: BufWriter::new(File::create(large)?), sum: Context::new(&SHA256), rows: BTreeMap::new() };
    let (mut table, mut columns) = (String::new(), Vec::<(String, Value)>::new());
    let mut wide = None;
    for line in BufReader::new(File::open(small)?).lines() {
        let line = line?;
        let value: Value = serde_json::from_str(&line)?;
        if let Some(begun) = value.get("table") {
            table = begun["name"].as_str().context("a table has a name")?.to_owned();
            columns = serde_json::from_value(begun["columns"].clone())?;
            out.rows.insert(table.clone(), 0);
            out.line(&line)?;
        } else if value.get("end").is_some() {
            return out.finish();
        } else if let Value::Array(values) = value {
            out.row(&table, &line)?;
            let row: Row = columns.iter().map(|(name, _)| name.clone()).zip(values).collect();
            if table == "role" && row.get("name").is_some_and(|name| name == WIDE) {
                wide = row.get("id").and_then(Value::as_str).map(str::to_owned);
            }
            for row in copies(&table, &row, (size, seeds, wide.as_deref())) {
                let values: Vec<&Value> =
                    columns.iter().map(|(name, _)| row.get(name).unwrap_or(&Value::Null)).collect();
                out.row(&table, &serde_json::to_string(&values)?)?;
            }
        } else {
            out.line(&line)?;
        }
    }
    anyhow::bail!("the backup has no end")
}

/// The copies of a seed's row; none of any other row.
fn copies<'a>(
    table: &str,
    row: &'a Row,
    (size, seeds, wide): (Size, &Seeds, Option<&'a str>),
) -> Box<dyn Iterator<Item = Row> + 'a> {
    let of = |column: &str, id: &str| row.get(column).and_then(Value::as_str) == Some(id);
    let account = seeds.account.to_string();
    let role = seeds.role.to_string();
    let with = |row: &Row, changes: Vec<(&str, Value)>| {
        let mut row = row.clone();
        row.extend(changes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        row
    };
    match table {
        "account" if of("id", &account) => Box::new((0..size.accounts).map(move |n| {
            let email = format!("account-{n}@example.org");
            with(row, vec![("id", json!(World::account(n))), ("email", email.into())])
        })),
        "account_token" if of("account_id", &account) => Box::new((0..size.connections).map(move |n| {
            let hash = hex(aws_lc_rs::digest::digest(&SHA256, World::token(n).as_bytes()).as_ref());
            let id = postern_proto::id::TokenId::from_ulid(Ulid::from_parts(AGE + 3, u128::from(n)));
            with(row, vec![("id", json!(id)), ("account_id", json!(World::account(n))), ("hash", hash.into())])
        })),
        "role" if of("id", &role) => Box::new((0..size.roles).map(move |n| {
            let name = Value::from(format!("team {n}"));
            with(row, vec![("id", json!(World::role(n))), ("name", name.clone()), ("name_key", name)])
        })),
        "access_rule" if of("role_id", &role) => Box::new((0..size.roles).map(move |n| {
            let id = postern_proto::id::RuleId::from_ulid(Ulid::from_parts(AGE + 4, u128::from(n)));
            let query = format!("tags:team=t{n}").into();
            with(row, vec![("id", json!(id)), ("role_id", json!(World::role(n))), ("query", query)])
        })),
        "role_member" if of("role_id", &role) => {
            let own = (0..size.accounts).map(move |n| (json!(World::role(n % size.roles)), n));
            let wide = wide.into_iter().flat_map(move |wide| (0..size.touched).map(move |n| (wide.into(), n)));
            let pairs = own.chain(wide);
            Box::new(
                pairs
                    .map(move |(role, n)| with(row, vec![("role_id", role), ("account_id", json!(World::account(n)))])),
            )
        }
        "resource" if of("id", &seeds.resource.to_string()) => Box::new((0..size.resources).map(move |n| {
            let name = Value::from(format!("service-{n}"));
            let address = Value::from(
                std::net::Ipv4Addr::from_bits(0x7f10_0000 + u32::try_from(n / 50_000).unwrap_or(0)).to_string(),
            );
            let port = Value::from(10_000 + n % 50_000);
            let tags = json!({"team": format!("t{}", n % size.roles), "env": if n % 3 == 0 { "prod" } else { "test" }});
            let host = format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
            with(
                row,
                vec![
                    ("id", json!(World::resource(n))),
                    ("name", name.clone()),
                    ("name_key", name),
                    ("host", host.into()),
                    ("tags", tags.to_string().into()),
                    ("bind_ip", address.clone()),
                    ("bind_port", port.clone()),
                    ("loopback_ip", address),
                    ("loopback_port", port),
                ],
            )
        })),
        _ => Box::new(std::iter::empty()),
    }
}

/// The larger backup while it is written.
struct Out {
    file: BufWriter<File>,
    sum: Context,
    rows: BTreeMap<String, u64>,
}

impl Out {
    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        for bytes in [line.as_bytes(), b"\n"] {
            self.sum.update(bytes);
            self.file.write_all(bytes)?;
        }
        Ok(())
    }

    fn row(&mut self, table: &str, line: &str) -> anyhow::Result<()> {
        *self.rows.entry(table.to_owned()).or_default() += 1;
        self.line(line)
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let sum = hex(self.sum.clone().finish().as_ref());
        let rows = std::mem::take(&mut self.rows);
        self.line(&json!({"end": {"rows": rows, "sha256": sum}}).to_string())?;
        Ok(self.file.flush()?)
    }
}
