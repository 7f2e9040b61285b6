//! Passwords: the rules for new ones, and the check that takes as long for an account that does not exist.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Notify, Semaphore};
use zeroize::Zeroizing;

use crate::{
    lockout::{Admission, Lockout, NameKey, Outcome, SharedLockout},
    secret::{NoEntropy, Token},
    store::{Store, StoreError},
};

/// The shortest password, in characters.
pub const MIN_CHARACTERS: usize = 12;
/// The longest, in bytes: what a hash is asked to read is bounded.
pub const MAX_BYTES: usize = 1024;
/// Argon2id as OWASP names it first: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes that wait for a core, five seconds at most on four of them; more are refused at once.
const MAX_WAITING: usize = 1024;
/// Hashes under way at once: at most 4 × 19 MiB.
const MAX_RUNNING: usize = 4;
/// How long a try waits for others of the same name.
const PATIENCE: Duration = Duration::from_secs(10);

/// A password as somebody typed it. It never shows itself and is wiped after use.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Password(Zeroizing<String>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Which rule a new password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("must have at least {MIN_CHARACTERS} characters")]
    TooShort,
    #[error("must have at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("must not be the e-mail address or a part of it")]
    IsEmail,
}

impl Password {
    /// Draws a random one-time password of 43 characters.
    pub fn draw() -> Result<Self, NoEntropy> {
        Ok(Self::from(Token::draw("")?.expose().to_owned()))
    }

    /// The text, to be shown once to whom it was made for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether both are the same. Constant time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }

    /// Checks the rules for a new password. `email` is the account's address in any spelling.
    pub fn check_rules(&self, email: &str) -> Result<(), WeakPassword> {
        if self.0.chars().count() < MIN_CHARACTERS {
            return Err(WeakPassword::TooShort);
        }
        if self.0.len() > MAX_BYTES {
            return Err(WeakPassword::TooLong);
        }
        let (password, email) = (folded(&self.0), folded(email));
        let local = email.split('@').next().unwrap_or_default();
        if password == email || password == local {
            return Err(WeakPassword::IsEmail);
        }
        Ok(())
    }
}

/// Why a password was not hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many sign-ins at once; try again in a few seconds")]
    Busy,
    #[error("the password could not be hashed")]
    Hash,
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a try to sign in came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// Wrong password or no such account: the two are not told apart.
    Wrong,
    /// Too many failures; the same for names of nothing.
    Locked {
        left: Duration,
    },
}

/// Hashes and checks passwords, a few at a time, and counts failures.
pub struct Passwords {
    lockout: Mutex<Lockout>,
    /// Failures counted at all control planes of the database.
    shared: Option<SharedLockout>,
    /// Wakes tries that wait for others of their name.
    finished: Notify,
    waiting: Semaphore,
    running: Arc<Semaphore>,
    /// The hash of a password that nobody knows, checked where there is no account.
    decoy: String,
}

impl Passwords {
    /// Takes as long as one hash.
    pub fn new() -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            lockout: Mutex::default(),
            shared: None,
            finished: Notify::new(),
            waiting: Semaphore::new(MAX_WAITING),
            running: Arc::new(Semaphore::new(cores.min(MAX_RUNNING))),
            decoy: hash_now(&Password::draw()?)?,
        })
    }

    /// Counts failures together with other control planes, if others can work on the database.
    #[must_use]
    pub fn sharing(mut self, store: &Store) -> Self {
        self.shared = store.reader().is_shared().then(|| SharedLockout::new(store.clone()));
        self
    }

    /// Hashes a new password, whose rules were checked, for storage.
    pub async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        self.work(move || hash_now(&password)).await?
    }

    /// Checks a password. `canonical` is the canonical form of the e-mail address that was given, `stored` the hash of
    /// its account, or `None` when there is no account that may sign in with a password. Both take the same work.
    pub async fn verify(
        &self,
        canonical: &str,
        stored: Option<String>,
        password: Password,
    ) -> Result<Verdict, PasswordError> {
        let name = NameKey::of(canonical);
        if let Some(left) = self.admit(name).await? {
            return Ok(Verdict::Locked { left });
        }
        let attempt = Attempt { passwords: self, name, outcome: Outcome::Unknown };
        if let Some(shared) = &self.shared
            && let Some(left) = shared.begin(name).await?
        {
            return Ok(Verdict::Locked { left });
        }
        let known = stored.is_some();
        let hash = stored.unwrap_or_else(|| self.decoy.clone());
        let fits = self.work(move || verify_now(&password, &hash)).await?;
        if fits
            && known
            && let Some(shared) = &self.shared
        {
            shared.succeed(name).await?;
        }
        Ok(if attempt.finish(fits && known) { Verdict::Right } else { Verdict::Wrong })
    }

    /// Forgets the failures of a name, because an administrator gave it a new password.
    pub async fn forgive(&self, canonical: &str) -> Result<(), StoreError> {
        if let Some(shared) = &self.shared {
            shared.clear(NameKey::of(canonical)).await?;
        }
        self.table().clear(NameKey::of(canonical));
        self.finished.notify_waiters();
        Ok(())
    }

    /// Waits until a try is admitted; the time that is left when the name is locked.
    async fn admit(&self, name: NameKey) -> Result<Option<Duration>, PasswordError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let finished = self.finished.notified();
            tokio::pin!(finished);
            finished.as_mut().enable();
            match self.table().begin(name, Instant::now()) {
                Admission::Try => return Ok(None),
                Admission::Locked { left } => return Ok(Some(left)),
                Admission::Wait => {}
            }
            tokio::time::timeout_at(deadline, finished).await.map_err(|_| PasswordError::Busy)?;
        }
    }

    async fn work<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| PasswordError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        // The permit goes with the hash, which runs on when the asker is gone.
        let job = move || (job(), running).0;
        tokio::task::spawn_blocking(job).await.map_err(|_| PasswordError::Hash)
    }

    fn table(&self) -> MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A try that was admitted. Dropped early, because the client went away, it is given back.
struct Attempt<'a> {
    passwords: &'a Passwords,
    name: NameKey,
    outcome: Outcome,
}

impl Attempt<'_> {
    fn finish(mut self, right: bool) -> bool {
        self.outcome = if right { Outcome::Success } else { Outcome::Failure };
        right
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.passwords.table().finish(self.name, self.outcome, Instant::now());
        self.passwords.finished.notify_waiters();
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &Password) -> Result<String, PasswordError> {
    let hash = argon2()?.hash_password(password.0.as_bytes()).map_err(|_| PasswordError::Hash)?;
    Ok(hash.to_string())
}

fn verify_now(password: &Password, stored: &str) -> bool {
    let (Ok(argon2), Ok(hash)) = (argon2(), PasswordHash::new(stored)) else { return false };
    password.0.len() <= MAX_BYTES && argon2.verify_password(password.0.as_bytes(), &hash).is_ok()
}

/// For the comparison with the address: spaces and case do not make another password.
fn folded(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}
