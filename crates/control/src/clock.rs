//! The wall clock, replaceable so that tests decide what time it is.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use postern_proto::time::UnixMillis;
use ulid::Ulid;

/// Where the control plane takes the time from.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    of_machine: bool,
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        let now = || {
            let span = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixMillis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        };
        Self { now: Arc::new(now), of_machine: true }
    }

    /// A clock that says what `now` says.
    pub fn from_fn(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), of_machine: false }
    }

    #[must_use]
    pub fn now(&self) -> UnixMillis {
        (self.now)()
    }

    /// Whether it is the clock of the machine, which can be held against those of others.
    #[must_use]
    pub const fn is_of_machine(&self) -> bool {
        self.of_machine
    }

    /// A new ULID: this instant and 80 random bits.
    #[must_use]
    pub fn ulid(&self) -> Ulid {
        Ulid::from_parts(self.now().0, rand::random())
    }
}
