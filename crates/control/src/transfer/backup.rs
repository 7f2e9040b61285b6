//! A backup is one file of JSON lines: what it is, the keys, then each table with its rows, and at the end the counts and
//! a checksum, without which nothing of it is taken.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::TryStreamExt as _;
use postern_proto::{id::OrgId, record::hex, time::UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Counts, End, Source, Target, TransferError, secrets::Secret, tables, tables::Columns, tables::Kind};
use crate::{
    clock::Clock,
    sql::{self, Value},
};

/// The form of the file.
const VERSION: u32 = 1;
/// The longest line: a row holds no more than a request may.
const LONGEST: u64 = 64 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Backup { version: u32, org: OrgId, name: String, revision: u64, at: UnixMillis },
    Secret { name: String, created_at: UnixMillis, content: String },
    Table { name: String, columns: Columns },
    End { rows: BTreeMap<String, u64>, sha256: String },
}

/// Writes everything, as it is at one instant, to a new file that only its owner may read: it holds the keys.
pub async fn backup(from: &End, file: &Path, clock: &Clock) -> Result<Counts, TransferError> {
    if file.exists() {
        return Err(TransferError::Exists(file.display().to_string()));
    }
    let mut source = Source::open(from).await?;
    let mut out = Out::create(file)?;
    let row = sql::query("SELECT name, rev FROM org").fetch_one(&mut source.connection).await?;
    let (name, revision): (String, i64) = (row.try_get("name")?, row.try_get("rev")?);
    let (org, at) = (source.org, clock.now());
    out.line(&Line::Backup { version: VERSION, org, name, revision: revision.unsigned_abs(), at })?;
    for secret in from.secrets.read(&mut source.connection, org).await? {
        let content = STANDARD.encode(secret.content.as_slice());
        out.line(&Line::Secret { name: secret.name, created_at: secret.created_at, content })?;
    }
    let mut counts = Counts::new();
    for table in tables::TABLES {
        let columns = tables::columns(&mut source.connection, table).await?;
        out.line(&Line::Table { name: (*table).to_owned(), columns: columns.clone() })?;
        let mut count = 0;
        let mut rows = tables::select(table, &columns).rows(&mut source.connection);
        while let Some(row) = rows.try_next().await? {
            count += 1;
            out.line(&tables::values(&row, &columns)?.iter().map(to_json).collect::<Vec<_>>())?;
        }
        drop(rows);
        counts.insert((*table).to_owned(), count);
    }
    out.finish(&counts)?;
    drop(source.connection);
    source.database.close().await;
    Ok(counts)
}

/// Brings everything back from a file into a place that is empty. Devices and gateways take everything afresh.
pub async fn restore(file: &Path, to: &End, clock: &Clock) -> Result<Counts, TransferError> {
    let mut lines = In::open(file)?;
    let Some(Line::Backup { version: VERSION, org, .. }) =
        lines.next_line()?.map(|line| lines.parse(&line)).transpose()?
    else {
        return Err(lines.damaged("this is no backup of this version"));
    };
    let mut target = Target::open(to).await?;
    let mut columns = Columns::new();
    loop {
        let checksum = lines.checksum();
        let line = lines.next_line()?.ok_or_else(|| lines.damaged("the end is missing"))?;
        if line.starts_with('[') {
            target.put(lines.row(&line, &columns)?).await?;
            continue;
        }
        match lines.parse(&line)? {
            Line::Secret { name, created_at, content } => {
                let content = STANDARD.decode(content).map_err(|_| lines.damaged("the key is not readable"))?;
                let secret = Secret { name, created_at, content: Zeroizing::new(content) };
                target.put_secret(&secret, to, org).await?;
            }
            Line::Table { name, columns: of } => {
                lines.check_table(&name, &of, &tables::columns(&mut target.connection, &name).await?)?;
                target.begin(&name, &of).await?;
                columns = of;
            }
            Line::End { rows, sha256 } => {
                target.flush().await?;
                if sha256 != checksum || rows != target.counts {
                    return Err(lines.damaged("the content is not what was saved"));
                }
                return target.finish(clock).await;
            }
            Line::Backup { .. } => return Err(lines.damaged("a second beginning")),
        }
    }
}

/// The file while it is written; it has its name when it is complete.
struct Out<'f> {
    file: BufWriter<File>,
    path: &'f Path,
    partial: std::path::PathBuf,
    checksum: Context,
}

impl<'f> Out<'f> {
    fn create(path: &'f Path) -> Result<Self, TransferError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = std::path::PathBuf::from(partial);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let file = file.map_err(|source| TransferError::File { path: partial.display().to_string(), source })?;
        Ok(Self { file: BufWriter::new(file), path, partial, checksum: Context::new(&SHA256) })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), TransferError> {
        let mut text = serde_json::to_vec(line).map_err(|error| self.failed(error.into()))?;
        text.push(b'\n');
        self.checksum.update(&text);
        self.file.write_all(&text).map_err(|error| self.failed(error))
    }

    fn finish(mut self, counts: &Counts) -> Result<(), TransferError> {
        let sha256 = hex(self.checksum.clone().finish().as_ref());
        self.line(&Line::End { rows: counts.clone(), sha256 })?;
        let done = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let done = done.and_then(|()| std::fs::rename(&self.partial, self.path));
        done.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> TransferError {
        TransferError::File { path: self.path.display().to_string(), source }
    }
}

/// What a backup that was not finished leaves is of no use.
impl Drop for Out<'_> {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.partial);
    }
}

struct In {
    file: BufReader<File>,
    path: String,
    number: u64,
    checksum: Context,
}

impl In {
    fn open(path: &Path) -> Result<Self, TransferError> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|source| TransferError::File { path: shown.clone(), source })?;
        Ok(Self { file: BufReader::new(file), path: shown, number: 0, checksum: Context::new(&SHA256) })
    }

    /// The checksum of all lines so far.
    fn checksum(&self) -> String {
        hex(self.checksum.clone().finish().as_ref())
    }

    fn next_line(&mut self) -> Result<Option<String>, TransferError> {
        let mut line = String::new();
        let read = io::Read::take(&mut self.file, LONGEST).read_line(&mut line);
        let read = read.map_err(|source| TransferError::File { path: self.path.clone(), source })?;
        self.number += 1;
        if read > 0 && !line.ends_with('\n') {
            return Err(self.damaged("it is cut off"));
        }
        self.checksum.update(line.as_bytes());
        Ok((read > 0).then_some(line))
    }

    fn parse(&self, line: &str) -> Result<Line, TransferError> {
        serde_json::from_str(line).map_err(|error| self.damaged(&error.to_string()))
    }

    fn row(&self, line: &str, columns: &Columns) -> Result<Vec<Value>, TransferError> {
        let row: Vec<serde_json::Value> =
            serde_json::from_str(line).map_err(|error| self.damaged(&error.to_string()))?;
        if row.len() != columns.len() {
            return Err(self.damaged("it has not as many values as its table has columns"));
        }
        let values = row.into_iter().zip(columns).map(|(value, (_, kind))| from_json(value, *kind));
        values.collect::<Option<_>>().ok_or_else(|| self.damaged("a value is of another kind than its column"))
    }

    /// Names from a file become part of a statement, so they must be ones that are there.
    fn check_table(&self, name: &str, columns: &Columns, known: &Columns) -> Result<(), TransferError> {
        if !tables::TABLES.contains(&name) {
            return Err(self.damaged(&format!("the table {name:?} is not known; the backup is of a newer program")));
        }
        match columns.iter().find(|column| !known.contains(column)) {
            Some((column, _)) => {
                let why = format!("the column {column:?} of {name} is not known; the backup is of a newer program");
                Err(self.damaged(&why))
            }
            None => Ok(()),
        }
    }

    fn damaged(&self, why: &str) -> TransferError {
        TransferError::Damaged { line: self.number, why: why.to_owned() }
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.clone().into(),
        Value::Number(number) => (*number).into(),
        Value::Truth(truth) => (*truth).into(),
    }
}

fn from_json(value: serde_json::Value, kind: Kind) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match (kind, value) {
        (Kind::Text, Json::Null) => Value::Text(None),
        (Kind::Text, Json::String(text)) => Value::Text(Some(text)),
        (Kind::Number, Json::Null) => Value::Number(None),
        (Kind::Number, Json::Number(number)) => Value::Number(Some(number.as_i64()?)),
        (Kind::Truth, Json::Null) => Value::Truth(None),
        (Kind::Truth, Json::Bool(truth)) => Value::Truth(Some(truth)),
        _ => return None,
    })
}
