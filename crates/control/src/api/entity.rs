//! What is the same for all kinds of entities: one is found by its id, and bears a name of its own.

use std::sync::Arc;

use postern_proto::name::{check_name, name_key};

use super::{Answer, Violations, refusal::unknown};
use crate::{
    catalogue::{Catalogue, Cluster, MaintenanceWindow, Node, Resource, Role},
    store::Entity,
};

/// The entity with this id.
pub(super) fn find<E: Entity>(catalogue: &Catalogue, id: &str) -> Answer<Arc<E>> {
    let entity = E::parse_key(id).and_then(|id| E::table(catalogue).get(&id));
    entity.cloned().ok_or_else(|| unknown(&word::<E>(), id))
}

/// An entity with a name that no other of its kind has.
pub(super) trait Named: Entity {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($kind:ty),*) => {
        $(impl Named for $kind {
            fn name(&self) -> &str {
                &self.name
            }
        })*
    };
}
named!(Cluster, MaintenanceWindow, Node, Resource, Role);

/// Whether `name` is one, and nobody else's. `own`: who may have it already.
pub(super) fn read_name<E: Named>(
    broken: &mut Violations,
    catalogue: &Catalogue,
    name: &str,
    own: Option<E::Id>,
) -> bool {
    let key = name_key(name);
    let mut others = E::table(catalogue).values().filter(|other| Some(other.id()) != own);
    if others.any(|other| name_key(other.name()) == key) {
        broken.add("name", name, format_args!("must be unique: another {} has it", word::<E>()));
        return false;
    }
    broken.check("name", name, check_name(name)).is_some()
}

/// What people call the kind.
fn word<E: Entity>() -> String {
    E::KIND.replace('_', " ")
}
