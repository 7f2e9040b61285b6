//! What directories are made of, and their making: whenever who is where changes, and whenever a new host under a
//! wildcard alias has an address.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_netstack::dns::TableError;
use postern_proto::id::ResourceId;

use super::{
    directory::{Directory, Published},
    hosts::HostBook,
};
use crate::{carriage::Destination, engine::Places};

/// See the module.
#[derive(Debug)]
pub struct Map {
    hosts: Arc<HostBook>,
    content: Mutex<Content>,
    published: Arc<Published>,
}

#[derive(Debug)]
struct Content {
    places: Arc<Places>,
    destinations: HashMap<ResourceId, Arc<Destination>>,
    /// Of the last directory.
    serial: u32,
}

impl Map {
    /// # Errors
    /// Names that cannot be told.
    pub fn new(
        hosts: Arc<HostBook>,
        places: Arc<Places>,
        destinations: HashMap<ResourceId, Arc<Destination>>,
    ) -> Result<Self, TableError> {
        let content = Content { places, destinations, serial: 1 };
        let published = Arc::new(Published::new(content.directory(&hosts)?));
        Ok(Self { hosts, content: Mutex::new(content), published })
    }

    #[must_use]
    pub const fn hosts(&self) -> &Arc<HostBook> {
        &self.hosts
    }

    #[must_use]
    pub const fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// Publishes who is where from now on.
    ///
    /// # Errors
    /// Names that cannot be told. Then nothing may be used: what was taken away must not stay.
    pub fn set(
        &self,
        places: Arc<Places>,
        destinations: HashMap<ResourceId, Arc<Destination>>,
    ) -> Result<(), TableError> {
        let mut content = self.content();
        self.hosts.fit(places.plan.subnet);
        (content.places, content.destinations) = (places, destinations);
        self.publish(&mut content).inspect_err(|_| self.shut(&mut content))
    }

    /// Puts hosts that were given addresses on disk and into the directory. False when they may not be told of.
    pub async fn settle_hosts(&self) -> bool {
        let count = match self.hosts.save().await {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!("a new host gets no answer: {error}");
                return false;
            }
        };
        let mut content = self.content();
        match self.publish(&mut content) {
            Ok(()) => {
                self.hosts.settle(count);
                true
            }
            Err(error) => {
                tracing::error!("the virtual network's names contradict each other: {error}");
                false
            }
        }
    }

    /// Nothing may be used, and no name is known, until [`Map::set`].
    pub fn close(&self) {
        self.shut(&mut self.content());
    }

    fn shut(&self, content: &mut Content) {
        let nothing = Places { places: Vec::new(), locked: true, ..Places::clone(&content.places) };
        (content.places, content.destinations) = (Arc::new(nothing), HashMap::new());
        // Nothing cannot contradict itself.
        let _ = self.publish(content);
    }

    fn publish(&self, content: &mut Content) -> Result<(), TableError> {
        content.serial = content.serial.wrapping_add(1);
        self.published.publish(content.directory(&self.hosts)?);
        Ok(())
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn directory(&self, hosts: &HostBook) -> Result<Directory, TableError> {
        Directory::new(&self.places, &self.destinations, &hosts.records(), self.serial)
    }
}
