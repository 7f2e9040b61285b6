//! The service's status, and everybody who follows it.
//!
//! Events are numbered per reader, so that each sees 1, 2, 3 … A reader that falls far behind
//! gets a fresh snapshot in place of what it missed; nobody waits for a slow reader.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_local_api::message::{Event, NoticeLevel, ResourceStatus, Status};
use postern_proto::id::ResourceId;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};

/// How many events a reader may be behind.
const BEHIND: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Board {
    posted: Mutex<Posted>,
}

#[derive(Debug)]
struct Posted {
    /// Without resources.
    service: Status,
    resources: BTreeMap<ResourceId, ResourceStatus>,
    events: broadcast::Sender<Arc<str>>,
}

impl Board {
    /// `service` is the status without resources.
    #[must_use]
    pub fn new(service: Status) -> Self {
        let (events, _) = broadcast::channel(BEHIND);
        Self { posted: Mutex::new(Posted { service, resources: BTreeMap::new(), events }) }
    }

    /// Everything, resources by name.
    #[must_use]
    pub fn status(&self) -> Status {
        self.posted().status()
    }

    /// One resource as it was posted last.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> Option<ResourceStatus> {
        self.posted().resources.get(&id).cloned()
    }

    /// Something of one resource as it was posted last.
    pub fn look<T>(&self, id: ResourceId, f: impl FnOnce(&ResourceStatus) -> T) -> Option<T> {
        self.posted().resources.get(&id).map(f)
    }

    /// Whether anybody follows.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.posted().events.receiver_count() > 0
    }

    /// Posts the status; readers hear of it only when something is different. Its resources do not count.
    pub fn post_service(&self, status: Status) {
        let mut posted = self.posted();
        let status = Status { resources: Vec::new(), ..status };
        if posted.service != status {
            posted.service = status.clone();
            posted.publish(&Event::Service { status: Box::new(status) });
        }
    }

    /// Posts one resource; readers hear of it only when something is different.
    pub fn post_resource(&self, resource: ResourceStatus) {
        let mut posted = self.posted();
        let id = resource.resource.id;
        if posted.resources.get(&id) != Some(&resource) {
            posted.resources.insert(id, resource.clone());
            posted.publish(&Event::ResourceChanged { resource: Box::new(resource) });
        }
    }

    pub fn remove_resource(&self, id: ResourceId) {
        let mut posted = self.posted();
        if posted.resources.remove(&id).is_some() {
            posted.publish(&Event::ResourceRemoved { id });
        }
    }

    /// Tells those who follow now; it is kept for nobody.
    pub fn notify(&self, level: NoticeLevel, text: String) {
        self.posted().publish(&Event::Notice { level, text });
    }

    /// Begins to follow.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Reader {
        Reader { board: Arc::clone(self), events: None, seq: 0 }
    }

    fn posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Posted {
    fn status(&self) -> Status {
        let mut resources: Vec<_> = self.resources.values().cloned().collect();
        resources.sort_by(|a, b| a.resource.name.cmp(&b.resource.name));
        Status { resources, ..self.service.clone() }
    }

    fn publish(&self, event: &Event) {
        if self.events.receiver_count() > 0 {
            // No receiver is no fault.
            let _ = self.events.send(json(event).into());
        }
    }
}

/// One who follows.
#[derive(Debug)]
pub struct Reader {
    board: Arc<Board>,
    events: Option<broadcast::Receiver<Arc<str>>>,
    seq: u64,
}

impl Reader {
    /// The next line, with its line end: a snapshot first and after an overflow, else an event. `None` when the service
    /// is over. Dropping the future loses nothing.
    pub async fn next_line(&mut self) -> Option<String> {
        let event = match &mut self.events {
            None => self.snapshot(),
            Some(events) => match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => self.snapshot(),
                Err(RecvError::Closed) => return None,
            },
        };
        self.seq += 1;
        let fields = event.strip_prefix('{').unwrap_or_default();
        Some(format!("{{\"seq\":{},{fields}\n", self.seq))
    }

    /// Snapshot and subscription are taken under one lock: no event is missing between them, none is there twice.
    fn snapshot(&mut self) -> Arc<str> {
        let posted = self.board.posted();
        self.events = Some(posted.events.subscribe());
        json(&Event::Snapshot { status: Box::new(posted.status()) }).into()
    }
}

/// These values always have a JSON form (no maps with other keys than strings, no failing serializers).
fn json(event: &impl Serialize) -> String {
    serde_json::to_string(event).unwrap_or_default()
}

#[cfg(test)]
mod tests;
