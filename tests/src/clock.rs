//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use postern_proto::time::UnixMillis;

#[must_use]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
