//! Brings a catalogue forward by what other processes wrote since, without reading everything again.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Entity, Store, StoreError, load, log,
    read::{signed, value},
};
use crate::{
    access::Touched,
    catalogue::{Account, Catalogue, Cluster, Grant, MaintenanceWindow, Member, Node, Resource, Role, Rule},
    sql::{self, Connection},
};

/// When more than this was touched, everything is read: a row by its id costs a question each.
const MOST: usize = 2000;

impl Store {
    /// Takes over what another process wrote to the database, and announces it.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let asking = sql::query("SELECT rev, epoch, oldest_program FROM org").fetch_one(self.reader());
        let row = self.timed("read", async { Ok(asking.await?) }).await?;
        let oldest: i64 = row.try_get("oldest_program")?;
        if oldest > self.reader().program() {
            return Err(StoreError::TooOld { needed: oldest, known: self.reader().program() });
        }
        let known = self.catalogue();
        let (revision, epoch): (u64, &str) = (super::read::count(&row, "rev")?, row.try_get("epoch")?);
        if epoch == known.org.epoch && revision == known.revision {
            self.seen_now();
            return Ok(());
        }
        let _turn = self.turn().await?;
        let mut connection = self.reader().begin_read().await?;
        let known = self.catalogue();
        let (org, revision, _) =
            load::org(&mut connection).await?.ok_or_else(|| StoreError::Unreadable("no organisation".to_owned()))?;
        if org.epoch != known.org.epoch || revision < known.revision {
            return self.take_other(&known, &org.epoch, revision, connection).await;
        }
        self.advance(&mut connection).await?;
        Ok(())
    }

    /// The database is another one than a moment ago: it was restored, or a server took over that had not got all.
    /// What devices and nodes hold is void.
    async fn take_other(
        &self,
        known: &Catalogue,
        epoch: &str,
        revision: u64,
        mut connection: Connection,
    ) -> Result<(), StoreError> {
        tracing::error!(
            was = known.revision,
            is = revision,
            "the database is not what it was; devices and gateways take everything afresh"
        );
        if epoch == known.org.epoch {
            drop(connection);
            connection = self.reader().begin_write().await?;
            // Another replica may have seen it first.
            let statement = "UPDATE org SET epoch = $1 WHERE epoch = $2 AND rev < $3";
            sql::query(statement)
                .bind(self.clock().ulid().to_string())
                .bind(&known.org.epoch)
                .bind(signed(known.revision))
                .execute(&mut connection)
                .await?;
        }
        let catalogue = load::catalogue(&mut connection).await?;
        connection.commit().await?;
        self.shared.catalogue.send_replace(Arc::new(catalogue));
        self.seen_now();
        Ok(())
    }

    /// Brings the catalogue in memory to the state that `connection` sees, and announces every change on the way. To be
    /// called with the turn.
    pub(super) async fn advance(&self, connection: &mut Connection) -> Result<Arc<Catalogue>, StoreError> {
        let known = self.catalogue();
        let touched = touched_since(connection, known.revision).await?;
        let catalogue = match touched {
            Some(touched) if self.log_reaches() => forward(&known, &touched, connection).await?,
            _ => load::catalogue(connection).await?,
        };
        let catalogue = Arc::new(catalogue);
        let missed = log::changes_since(connection, known.revision).await?;
        self.shared.catalogue.send_replace(Arc::clone(&catalogue));
        for changes in missed {
            let _nobody_follows = self.shared.changes.send(Arc::new(changes));
        }
        self.seen_now();
        Ok(catalogue)
    }
}

/// A row of the log: what was touched.
type Entry = (String, String);

/// What was touched since a revision, each once, in the order of the first time; `None` when it is too much.
async fn touched_since(connection: &mut Connection, revision: u64) -> Result<Option<Vec<Entry>>, StoreError> {
    let rows = sql::query("SELECT kind, id FROM entity_log WHERE rev > $1 ORDER BY rev, n LIMIT $2")
        .bind(signed(revision))
        .bind(signed(MOST as u64 + 1))
        .fetch_all(connection)
        .await?;
    if rows.len() > MOST {
        return Ok(None);
    }
    let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
    for row in &rows {
        let entry: Entry = (row.try_get("kind")?, row.try_get("id")?);
        if seen.insert(entry.clone()) {
            entries.push(entry);
        }
    }
    Ok(Some(entries))
}

async fn forward(known: &Catalogue, touched: &[Entry], connection: &mut Connection) -> Result<Catalogue, StoreError> {
    let mut catalogue = Catalogue::clone(known);
    let (org, revision, settings) =
        load::org(connection).await?.ok_or_else(|| StoreError::Unreadable("no organisation".to_owned()))?;
    let since = catalogue.revision;
    (catalogue.org, catalogue.revision, catalogue.settings) = (Arc::new(org), revision, Arc::new(settings));
    for (kind, id) in touched {
        match kind.as_str() {
            Account::KIND => take::<Account>(id, &mut catalogue, connection).await?,
            Role::KIND => take::<Role>(id, &mut catalogue, connection).await?,
            Rule::KIND => take::<Rule>(id, &mut catalogue, connection).await?,
            Member::KIND => take::<Member>(id, &mut catalogue, connection).await?,
            Grant::KIND => take::<Grant>(id, &mut catalogue, connection).await?,
            Resource::KIND => take::<Resource>(id, &mut catalogue, connection).await?,
            Cluster::KIND => take::<Cluster>(id, &mut catalogue, connection).await?,
            MaintenanceWindow::KIND => take::<MaintenanceWindow>(id, &mut catalogue, connection).await?,
            Node::KIND => take::<Node>(id, &mut catalogue, connection).await?,
            // Of a newer program: nothing that this one knows.
            _ => {}
        }
    }
    let statement = "SELECT ip, resource_id FROM vnm_address WHERE rev > $1";
    for row in &sql::query(statement).bind(signed(since)).fetch_all(connection).await? {
        catalogue.note_past_address(value(row, "ip")?, value(row, "resource_id")?);
    }
    Ok(catalogue)
}

/// Makes an entity in the catalogue what its row is now.
async fn take<E: Entity>(id: &str, catalogue: &mut Catalogue, connection: &mut Connection) -> Result<(), StoreError> {
    let id = E::parse_key(id).ok_or_else(|| StoreError::Unreadable(format!("{}: {id}", E::KIND)))?;
    let row = load::one::<E>(id, connection).await?;
    let after: Option<Arc<E>> = row.as_ref().map(E::read).transpose()?.map(Arc::new);
    let table = E::table_mut(catalogue);
    let before = match &after {
        Some(entity) => table.insert(id, Arc::clone(entity)),
        None => table.remove(&id),
    };
    E::settle(catalogue, &mut Touched::default(), before.as_deref(), after.as_deref());
    Ok(())
}
