//! Who follows which scopes, and what each is to be sent next.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use postern_proto::{
    id::{AccountId, ClusterId, DeviceId, NodeId, OrgId},
    lease::{Revocation, RevokedSubject},
    sync::{CLUSTERS, Hello, Item, ItemKey, Peer, Scope, ServerFrame, VERSION, Welcome},
    time::UnixMillis,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::feed::{Feed, Step, View, encode};

/// Frames for one connection that are not from a scope: answers, revocations, calls. One that lets more pile up is
/// closed and begins again.
const MAX_DIRECT: usize = 256;
/// Revocations in one frame: about 200 bytes each.
pub const REVOCATIONS_PER_FRAME: usize = 1000;
/// How long a scope that nobody follows is kept up to date, so that who comes back soon needs only the difference.
pub const KEEP_IDLE: Duration = Duration::from_secs(10 * 60);

/// The scope of settings, lease keys and gateways.
pub const ORG: &str = "org";
/// The scope of the resources that gateways dial.
pub const GATEWAYS: &str = "gateways";

/// What scopes of accounts begin with.
const ACCOUNT: &str = "account:";

/// The scope of what one account may reach.
#[must_use]
pub fn account_scope(account: AccountId) -> Scope {
    format!("{ACCOUNT}{account}")
}

/// Whether a scope is one of [`account_scope`].
#[must_use]
pub fn is_of_account(scope: &str) -> bool {
    scope.starts_with(ACCOUNT)
}

/// The scope of a node's own record.
#[must_use]
pub fn node_scope(node: NodeId) -> Scope {
    format!("node:{node}")
}

/// The scope of a cluster's workers.
#[must_use]
pub fn cluster_scope(cluster: ClusterId) -> Scope {
    format!("cluster:{cluster}")
}

/// The scopes that a peer follows. `cluster`: of which a node is a worker.
#[must_use]
pub fn scopes_of(peer: Peer, cluster: Option<ClusterId>, hello: &Hello) -> Vec<Scope> {
    match (peer, cluster) {
        (Peer::Device { account, .. }, _) => {
            // Only to who can read it.
            let clusters = hello.have.contains_key(CLUSTERS).then(|| CLUSTERS.to_owned());
            [ORG.to_owned(), account_scope(account)].into_iter().chain(clusters).collect()
        }
        (Peer::Node { node }, Some(cluster)) => vec![ORG.to_owned(), cluster_scope(cluster), node_scope(node)],
        (Peer::Node { node }, None) => vec![ORG.to_owned(), GATEWAYS.to_owned(), node_scope(node)],
    }
}

/// One connection of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// What a connection is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Send(Utf8Bytes),
    /// Nothing to send; it is named in [`Hub::take_woken`] when there is.
    Wait,
    /// Everything is said: close it.
    Close,
}

/// All scopes that are followed and all that follow.
pub struct Hub {
    org: OrgId,
    epoch: String,
    rev: u64,
    feeds: HashMap<Scope, Followed>,
    connections: BTreeMap<ConnectionId, Connection>,
    nodes: BTreeMap<NodeId, BTreeSet<ConnectionId>>,
    devices: BTreeMap<DeviceId, BTreeSet<ConnectionId>>,
    last_id: u64,
    woken: BTreeSet<ConnectionId>,
}

struct Followed {
    feed: Feed,
    by: BTreeSet<ConnectionId>,
    /// Since when nobody follows it.
    idle_since: Option<Instant>,
}

struct Connection {
    peer: Peer,
    direct: VecDeque<Utf8Bytes>,
    /// Ends after `direct` is sent.
    closing: bool,
    cursors: Vec<Cursor>,
}

struct Cursor {
    scope: Scope,
    have: Option<u64>,
    /// A snapshot on its way: its parts, how many are sent, and its revision.
    parts: Option<(Arc<[Utf8Bytes]>, usize, u64)>,
}

impl Hub {
    /// `first_rev` must be higher than any revision that an earlier run with this epoch has given out.
    #[must_use]
    pub fn new(org: OrgId, epoch: String, first_rev: u64) -> Self {
        Self {
            org,
            epoch,
            rev: first_rev,
            feeds: HashMap::new(),
            connections: BTreeMap::new(),
            nodes: BTreeMap::new(),
            devices: BTreeMap::new(),
            last_id: 0,
            woken: BTreeSet::new(),
        }
    }

    /// Begins another epoch: every connection is ended, and what was given out so far counts no more.
    pub fn begin_epoch(&mut self, epoch: String, first_rev: u64) {
        self.close_where("restored", "The control plane's database is another one; connect again", |_| true);
        (self.epoch, self.rev) = (epoch, first_rev.max(self.rev));
    }

    /// The items of a scope that is kept up to date here; `None`: it is not, and need not be told of changes.
    #[must_use]
    pub fn view(&self, scope: &str) -> Option<&View> {
        self.feeds.get(scope).map(|followed| followed.feed.items())
    }

    /// The scopes that are kept up to date here.
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.feeds.keys()
    }

    /// Makes `items` the items of a scope, and keeps it from now on.
    pub fn publish(&mut self, scope: &str, items: View, now: Instant) {
        self.rev += 1;
        match self.feeds.get_mut(scope) {
            Some(followed) => {
                if followed.feed.replace(items, self.rev) {
                    self.woken.extend(&followed.by);
                }
            }
            None => {
                let feed = Feed::new(scope.to_owned(), self.rev, items);
                self.feeds.insert(scope.to_owned(), Followed { feed, by: BTreeSet::new(), idle_since: Some(now) });
            }
        }
    }

    /// Deletes and puts items of a scope that is kept here; another one is left alone.
    pub fn patch(&mut self, scope: &str, put: Vec<Arc<Item>>, del: Vec<ItemKey>) {
        self.rev += 1;
        if let Some(followed) = self.feeds.get_mut(scope)
            && followed.feed.patch(put, del, self.rev)
        {
            self.woken.extend(&followed.by);
        }
    }

    /// Forgets scopes that nobody has followed for [`KEEP_IDLE`].
    pub fn sweep(&mut self, now: Instant) {
        let over = |since: Instant| now.saturating_duration_since(since) >= KEEP_IDLE;
        self.feeds.retain(|_, followed| !followed.idle_since.is_some_and(over));
    }

    /// Admits a connection that follows these scopes, see [`scopes_of`]. All must have been published. What it holds counts
    /// only if it is of this epoch.
    pub fn connect(&mut self, peer: Peer, scopes: Vec<Scope>, hello: &Hello, now: UnixMillis) -> ConnectionId {
        self.last_id += 1;
        let id = ConnectionId(self.last_id);
        for scope in &scopes {
            if let Some(followed) = self.feeds.get_mut(scope) {
                followed.by.insert(id);
                followed.idle_since = None;
            }
        }
        let known = hello.epoch == self.epoch;
        let have = |scope: &Scope| hello.have.get(scope).copied().filter(|rev| known && *rev > 0);
        let cursors = scopes.iter().map(|scope| Cursor { scope: scope.clone(), have: have(scope), parts: None });
        let welcome =
            Welcome { version: VERSION, org: self.org, epoch: self.epoch.clone(), now, scopes: scopes.clone() };
        let connection = Connection {
            peer,
            direct: VecDeque::from([encode(&ServerFrame::Welcome(welcome))]),
            closing: false,
            cursors: cursors.collect(),
        };
        self.connections.insert(id, connection);
        match peer {
            Peer::Device { device, .. } => self.devices.entry(device).or_default().insert(id),
            Peer::Node { node } => self.nodes.entry(node).or_default().insert(id),
        };
        id
    }

    /// Sends the welcome before everything else; once more where a connection is made of many calls (long polling).
    pub fn greet(&mut self, id: ConnectionId, now: UnixMillis) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let scopes = connection.cursors.iter().map(|cursor| cursor.scope.clone()).collect();
        let welcome = Welcome { version: VERSION, org: self.org, epoch: self.epoch.clone(), now, scopes };
        connection.direct.push_front(encode(&ServerFrame::Welcome(welcome)));
    }

    /// Whether what a connection holds, going by its frames, is what `hello` says.
    #[must_use]
    pub fn holds(&self, id: ConnectionId, hello: &Hello) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            hello.epoch == self.epoch
                && !connection.closing
                && connection
                    .cursors
                    .iter()
                    .all(|cursor| hello.have.get(&cursor.scope).copied().filter(|rev| *rev > 0) == cursor.have)
        })
    }

    /// Forgets a connection that is gone.
    pub fn disconnect(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.woken.remove(&id);
        match connection.peer {
            Peer::Device { device, .. } => leave(&mut self.devices, device, id),
            Peer::Node { node } => leave(&mut self.nodes, node, id),
        }
        for cursor in connection.cursors {
            if let Some(followed) = self.feeds.get_mut(&cursor.scope) {
                followed.by.remove(&id);
                if followed.by.is_empty() {
                    followed.idle_since = Some(now);
                }
            }
        }
    }

    /// What a connection is to do next. Answers and revocations go before the scopes, and these in their order.
    pub fn next(&mut self, id: ConnectionId) -> Next {
        let Some(connection) = self.connections.get_mut(&id) else { return Next::Close };
        if let Some(frame) = connection.direct.pop_front() {
            return Next::Send(frame);
        }
        if connection.closing {
            return Next::Close;
        }
        for cursor in &mut connection.cursors {
            let Some(followed) = self.feeds.get_mut(&cursor.scope) else { continue };
            if let Some(frame) = cursor.advance(&mut followed.feed) {
                return Next::Send(frame);
            }
        }
        Next::Wait
    }

    /// Sends one frame to one connection.
    pub fn send(&mut self, id: ConnectionId, frame: &ServerFrame) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.push(encode(frame));
            self.woken.insert(id);
        }
    }

    /// Sends one frame to every connection of every node.
    pub fn send_to_nodes(&mut self, frame: &ServerFrame) {
        let nodes = self.nodes.values().flatten().copied().collect();
        self.push(&nodes, &encode(frame));
    }

    /// Sends revocations to one connection that has just been admitted.
    pub fn send_revocations(&mut self, id: ConnectionId, revocations: &[Revocation]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.direct.extend(encode_revocations(revocations));
            self.woken.insert(id);
        }
    }

    /// Pushes revocations to all nodes and to the devices that they concern. To be called before the scopes change.
    pub fn revoke(&mut self, revocations: &[Revocation]) {
        let nodes: BTreeSet<ConnectionId> = self.nodes.values().flatten().copied().collect();
        for frame in encode_revocations(revocations) {
            self.push(&nodes, &frame);
        }
        // What concerns the same devices travels together, encoded once.
        let mut told: BTreeMap<BTreeSet<ConnectionId>, Vec<Revocation>> = BTreeMap::new();
        for revocation in revocations {
            let devices = self.concerned(&revocation.subject);
            if !devices.is_empty() {
                told.entry(devices).or_default().push(revocation.clone());
            }
        }
        for (devices, revocations) in told {
            for frame in encode_revocations(&revocations) {
                self.push(&devices, &frame);
            }
        }
    }

    /// Ends the connections of all peers that `ends` names, after saying why.
    pub fn close_where(&mut self, code: &str, title: &str, ends: impl Fn(Peer) -> bool) {
        let frame = encode(&ServerFrame::Bye { code: code.to_owned(), title: title.to_owned() });
        for (id, connection) in &mut self.connections {
            if ends(connection.peer) && !connection.closing {
                connection.push(frame.clone());
                connection.closing = true;
                self.woken.insert(*id);
            }
        }
    }

    /// Ends one connection after saying why.
    pub fn close(&mut self, id: ConnectionId, code: &str, title: &str) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.push(encode(&ServerFrame::Bye { code: code.to_owned(), title: title.to_owned() }));
            connection.closing = true;
            self.woken.insert(id);
        }
    }

    /// The nodes that are connected.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        let open = |id: &ConnectionId| self.connections.get(id).is_some_and(|connection| !connection.closing);
        self.nodes.iter().filter(|(_, ids)| ids.iter().any(open)).map(|(node, _)| *node).collect()
    }

    /// Who is connected, each as often as it is.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.connections.values().filter(|connection| !connection.closing).map(|connection| connection.peer).collect()
    }

    /// The connections that have something to send since the last call.
    pub fn take_woken(&mut self) -> BTreeSet<ConnectionId> {
        std::mem::take(&mut self.woken)
    }

    /// The connections of devices that can have streams which this revocation cuts. Who loses by a grant is not known
    /// here; those are told by the change of their scope.
    fn concerned(&self, subject: &RevokedSubject) -> BTreeSet<ConnectionId> {
        match subject {
            RevokedSubject::Account { account } | RevokedSubject::Access { account, .. } => {
                self.feeds.get(&account_scope(*account)).map(|followed| followed.by.clone()).unwrap_or_default()
            }
            RevokedSubject::Device { device } => self.devices.get(device).cloned().unwrap_or_default(),
            RevokedSubject::Resource { resource } => {
                let key = ItemKey::Access { id: *resource };
                let holding = self.feeds.values().filter(|followed| followed.feed.items().contains_key(&key));
                holding.flat_map(|followed| followed.by.iter().copied()).collect()
            }
            RevokedSubject::Grant { .. } | RevokedSubject::Node { .. } => BTreeSet::new(),
        }
    }

    fn push(&mut self, to: &BTreeSet<ConnectionId>, frame: &Utf8Bytes) {
        for id in to {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.push(frame.clone());
                self.woken.insert(*id);
            }
        }
    }
}

impl Connection {
    fn push(&mut self, frame: Utf8Bytes) {
        if self.closing {
            return;
        }
        if self.direct.len() >= MAX_DIRECT {
            let title = "the receiver is too slow; connect again".to_owned();
            self.direct.clear();
            self.direct.push_back(encode(&ServerFrame::Bye { code: "too_slow".to_owned(), title }));
            self.closing = true;
            return;
        }
        self.direct.push_back(frame);
    }
}

impl Cursor {
    fn advance(&mut self, feed: &mut Feed) -> Option<Utf8Bytes> {
        if self.parts.is_none() {
            match feed.next(self.have) {
                Step::UpToDate => return None,
                Step::Delta { frame, to } => {
                    self.have = Some(to);
                    return Some(frame);
                }
                Step::Snapshot { parts, rev } => self.parts = Some((parts, 0, rev)),
            }
        }
        let (parts, sent, rev) = self.parts.as_mut()?;
        let frame = parts.get(*sent).cloned();
        *sent += 1;
        if *sent >= parts.len() {
            self.have = Some(*rev);
            self.parts = None;
        }
        frame
    }
}

fn leave<K: Ord + Copy>(index: &mut BTreeMap<K, BTreeSet<ConnectionId>>, key: K, id: ConnectionId) {
    if let Some(ids) = index.get_mut(&key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}

fn encode_revocations(revocations: &[Revocation]) -> impl Iterator<Item = Utf8Bytes> {
    let chunks = revocations.chunks(REVOCATIONS_PER_FRAME);
    chunks.map(|chunk| encode(&ServerFrame::Revoke { revocations: chunk.to_vec() }))
}
