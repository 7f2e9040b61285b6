//! What the process does to itself before anything else: no core dumps, room for many connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many open files a warning is due: each stream takes two.
pub const COMFORTABLE_FILES: u64 = 4096;

/// Keeps keys and tokens out of core dumps, and on Linux other processes of the user from reading our memory (`ptrace`).
///
/// # Errors
/// What the system says; the caller warns and goes on.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Raises the limit of open files as far as an ordinary user may, and says what it is now (`None`: no limit).
#[must_use]
pub fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wish = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wish) {
            tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
        }
    }
    getrlimit(Resource::Nofile).current
}

/// How many files may be open now (`None`: no limit).
#[must_use]
pub fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_is_raised_to_what_the_system_allows() {
        assert_eq!(raise_file_limit(), getrlimit(Resource::Nofile).maximum);
    }
}
