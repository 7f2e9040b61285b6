//! What this node was told by its control plane, in the form in which it is asked for: resources by id, lease keys.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use postern_proto::{
    id::ResourceId,
    lease::Verifier,
    replica::Change,
    resource::NodeResource,
    sync::{Item, ItemKey},
};

/// Resources and lease keys. Items that cannot be used are left out with a warning: a bad one never takes the good ones
/// with it.
#[derive(Default)]
pub struct Catalogue {
    resources: HashMap<ResourceId, Arc<NodeResource>>,
    keys: BTreeMap<String, Vec<u8>>,
    verifier: Arc<Verifier>,
}

/// What a change means for what hangs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Resources that are gone: their streams are cut.
    pub removed: Vec<ResourceId>,
    /// Resources that are new or differ: their health is checked soon.
    pub put: Vec<ResourceId>,
    /// Verdicts on leases hang on the keys.
    pub keys_changed: bool,
}

impl Catalogue {
    /// Begins with what was held when the node last ran.
    pub fn new<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut catalogue = Self::default();
        let mut effects = Effects::default();
        items.into_iter().for_each(|item| catalogue.put(item, &mut effects));
        catalogue.renew_verifier();
        catalogue
    }

    pub fn apply(&mut self, change: &Change) -> Effects {
        let mut effects = Effects::default();
        for key in &change.removed {
            match key {
                ItemKey::Resource { id } if self.resources.remove(id).is_some() => effects.removed.push(*id),
                ItemKey::LeaseKey { id } => effects.keys_changed |= self.keys.remove(id).is_some(),
                _ => {}
            }
        }
        change.put.iter().for_each(|item| self.put(item, &mut effects));
        if effects.keys_changed {
            self.renew_verifier();
        }
        effects
    }

    #[must_use]
    pub fn resource(&self, id: ResourceId) -> Option<Arc<NodeResource>> {
        self.resources.get(&id).cloned()
    }

    pub fn resources(&self) -> impl Iterator<Item = &Arc<NodeResource>> {
        self.resources.values()
    }

    #[must_use]
    pub const fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    fn put(&mut self, item: &Item, effects: &mut Effects) {
        match item {
            Item::Resource(resource) => {
                self.resources.insert(resource.id, Arc::new(resource.clone()));
                effects.put.push(resource.id);
            }
            Item::LeaseKey { id, public } => match from_hex(public) {
                Some(key) => {
                    self.keys.insert(id.clone(), key);
                    effects.keys_changed = true;
                }
                None => tracing::warn!(key = ?id, "the control plane announced a lease key that is none; left out"),
            },
            _ => {}
        }
    }

    fn renew_verifier(&mut self) {
        self.verifier = Arc::new(Verifier::new(self.keys.iter().map(|(id, key)| (id.as_str(), key.as_slice()))));
    }
}

/// 32 bytes from 64 hex digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let digits: Option<Vec<u8>> = text.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use postern_proto::resource::Kind;
    use ulid::Ulid;

    use super::*;

    fn resource(id: u128) -> NodeResource {
        NodeResource {
            id: ResourceId::from_ulid(Ulid::from_parts(1, id)),
            name: format!("r{id}"),
            kind: Kind::Tcp,
            tags: BTreeMap::new(),
            host: "10.0.0.1".into(),
            port: 5432,
            ports: postern_proto::port::PortSet::default(),
            hosts: Vec::new(),
            revision: 1,
            allow_local: false,
            strict: false,
            egress: None,
        }
    }

    fn change(put: Vec<Item>, removed: Vec<ItemKey>) -> Change {
        Change { scope: "gateways".into(), snapshot: false, put, removed }
    }

    #[test]
    fn a_change_says_which_resources_are_gone_and_which_are_new() {
        let items = [Item::Resource(resource(1))];
        let mut catalogue = Catalogue::new(&items);
        let gone = ItemKey::Resource { id: resource(1).id };
        let effects = catalogue.apply(&change(vec![Item::Resource(resource(2))], vec![gone.clone(), gone]));
        let expected = Effects { removed: vec![resource(1).id], put: vec![resource(2).id], keys_changed: false };
        assert_eq!(effects, expected);
        assert!(catalogue.resource(resource(1).id).is_none());
        assert_eq!(catalogue.resource(resource(2).id).unwrap().name, "r2");
    }

    #[test]
    fn a_lease_key_that_is_none_is_left_out_and_takes_nothing_with_it() {
        let bad = |public: &str| Item::LeaseKey { id: "k".into(), public: public.into() };
        let items = vec![bad("x"), bad(&"zz".repeat(32)), bad(&"é".repeat(32)), Item::Resource(resource(1))];
        let effects = Catalogue::default().apply(&change(items, vec![]));
        assert_eq!(effects, Effects { removed: vec![], put: vec![resource(1).id], keys_changed: false });
    }

    #[test]
    fn hex_is_read() {
        let text: String = (0..32).map(|byte| format!("{:02x}", byte * 8)).collect();
        assert_eq!(from_hex(&text).unwrap(), (0..32).map(|byte| byte * 8).collect::<Vec<u8>>());
    }
}
