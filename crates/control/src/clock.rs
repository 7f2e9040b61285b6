//! The wall clock, replaceable so that tests decide what time it is.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use postern_proto::time::UnixMillis;
use ulid::Ulid;

/// Where the control plane takes the time from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMillis + Send + Sync>);

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(|| {
            let span = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixMillis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// A clock that says what `now` says.
    pub fn from_fn(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    #[must_use]
    pub fn now(&self) -> UnixMillis {
        (self.0)()
    }

    /// A new ULID: this instant and 80 random bits.
    #[must_use]
    pub fn ulid(&self) -> Ulid {
        Ulid::from_parts(self.now().0, rand::random())
    }
}
