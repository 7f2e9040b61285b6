//! Secrets in the database, for control planes that share one: each under a key of its own, which lies beside it sealed
//! under a key that is not in the database.

use std::{fmt, io, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use postern_proto::{id::OrgId, record::hex, time::UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    secret::{self, NoEntropy},
    sql::{self, Connection},
    store::{
        StoreError,
        read::{instant, signed},
    },
};

/// Bytes of a key.
const LENGTH: usize = 32;

/// Why a secret cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot read the key file {path}")]
    File { path: String, source: io::Error },
    #[error("{0} holds no keys: one in each line, {LENGTH} bytes in Base64; `postern-control new-key` makes one")]
    NotAKey(String),
    #[error("the secret {name:?} is sealed under the key {key}, which is not among those given")]
    OtherKey { name: String, key: String },
    #[error("the secret {0:?} was touched, or belongs to another organisation")]
    Broken(String),
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The keys that secrets are sealed under: the first seals, all open.
pub struct Keyring {
    keys: Vec<Key>,
}

struct Key {
    id: String,
    bytes: Zeroizing<[u8; LENGTH]>,
}

/// A secret as it was read.
pub struct Opened {
    pub name: String,
    pub secret: Zeroizing<Vec<u8>>,
    pub created_at: UnixMillis,
}

/// How a secret lies in the database.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Which key the secret's own key is sealed under.
    key: String,
    own_key: String,
    secret: String,
}

impl Keyring {
    /// Reads a key file.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|source| SealError::File { path: shown.clone(), source })?;
        Self::parse(&text).ok_or(SealError::NotAKey(shown))
    }

    /// Reads the content of a key file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Key> = lines.map(Key::parse).collect::<Option<_>>()?;
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// A new key as a line of a key file.
    pub fn draw() -> Result<Zeroizing<String>, NoEntropy> {
        let bytes = Zeroizing::new(secret::entropy::<LENGTH>()?);
        Ok(Zeroizing::new(format!("{}\n", STANDARD.encode(bytes.as_slice()))))
    }

    fn seal(&self, org: OrgId, name: &str, secret: &[u8]) -> Result<String, SealError> {
        let first = self.keys.first().ok_or_else(|| SealError::NotAKey("the keyring".to_owned()))?;
        let own = Zeroizing::new(secret::entropy::<LENGTH>()?);
        let broken = || SealError::Broken(name.to_owned());
        let sealed = Sealed {
            key: first.id.clone(),
            own_key: seal(&first.bytes, &bound_to(org, name, "key"), own.as_slice()).ok_or_else(broken)?,
            secret: seal(&own, &bound_to(org, name, "secret"), secret).ok_or_else(broken)?,
        };
        serde_json::to_string(&sealed).map_err(|_| broken())
    }

    fn open(&self, org: OrgId, name: &str, sealed: &str) -> Result<(Zeroizing<Vec<u8>>, bool), SealError> {
        let broken = || SealError::Broken(name.to_owned());
        let sealed: Sealed = serde_json::from_str(sealed).map_err(|_| broken())?;
        let at = self.keys.iter().position(|key| key.id == sealed.key);
        let at = at.ok_or_else(|| SealError::OtherKey { name: name.to_owned(), key: sealed.key.clone() })?;
        let key = self.keys.get(at).ok_or_else(broken)?;
        let own = open(&key.bytes, &bound_to(org, name, "key"), &sealed.own_key).ok_or_else(broken)?;
        let own: Zeroizing<[u8; LENGTH]> = Zeroizing::new(own.as_slice().try_into().map_err(|_| broken())?);
        let secret = open(&own, &bound_to(org, name, "secret"), &sealed.secret).ok_or_else(broken)?;
        Ok((secret, at == 0))
    }

    /// Keeps a secret.
    pub async fn put(
        &self,
        connection: &mut Connection,
        org: OrgId,
        (name, created_at): (&str, UnixMillis),
        secret: &[u8],
    ) -> Result<(), SealError> {
        let statement = "INSERT INTO secret (name, sealed, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET sealed = $2";
        sql::query(statement)
            .bind(name)
            .bind(self.seal(org, name, secret)?)
            .bind(signed(created_at.0))
            .execute(connection)
            .await
            .map_err(StoreError::from)?;
        Ok(())
    }

    /// The secrets whose names begin so, oldest first. What is sealed under an older key of the ring is sealed anew if
    /// `renew` says so.
    pub async fn list(
        &self,
        connection: &mut Connection,
        org: OrgId,
        prefix: &str,
        renew: bool,
    ) -> Result<Vec<Opened>, SealError> {
        let statement = "SELECT name, sealed, created_at FROM secret ORDER BY created_at, name";
        let rows = sql::query(statement).fetch_all(&mut *connection).await.map_err(StoreError::from)?;
        let mut found = Vec::new();
        for row in &rows {
            let name: String = row.try_get("name").map_err(StoreError::from)?;
            if !name.starts_with(prefix) {
                continue;
            }
            let (secret, newest) = self.open(org, &name, row.try_get("sealed").map_err(StoreError::from)?)?;
            let created_at = instant(row, "created_at")?;
            if renew && !newest {
                self.put(connection, org, (&name, created_at), &secret).await?;
            }
            found.push(Opened { name, secret, created_at });
        }
        Ok(found)
    }
}

/// Forgets a secret.
pub async fn remove(connection: &mut Connection, name: &str) -> Result<(), StoreError> {
    sql::query("DELETE FROM secret WHERE name = $1").bind(name).execute(connection).await?;
    Ok(())
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(line).ok()?);
        let bytes: [u8; LENGTH] = bytes.as_slice().try_into().ok()?;
        let id = hex(digest::digest(&digest::SHA256, &bytes).as_ref()).chars().take(16).collect();
        Some(Self { id, bytes: Zeroizing::new(bytes) })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// What a sealed text is good for, so that no row can be put in the place of another.
fn bound_to(org: OrgId, name: &str, part: &str) -> String {
    format!("postern secret 1\n{org}\n{name}\n{part}")
}

fn seal(key: &[u8; LENGTH], bound_to: &str, secret: &[u8]) -> Option<String> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let mut sealed = secret.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(bound_to), &mut sealed).ok()?;
    Some(STANDARD.encode([nonce.as_ref(), sealed.as_slice()].concat()))
}

fn open(key: &[u8; LENGTH], bound_to: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
    let sealed = STANDARD.decode(sealed).ok()?;
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = key.open_in_place(nonce, Aad::from(bound_to), &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod tests {
    use postern_proto::id::OrgId;
    use ulid::Ulid;

    use super::*;

    fn ring(lines: &[&str]) -> Keyring {
        Keyring::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn a_secret_opens_under_its_key_name_and_organisation_alone() {
        let (first, second) = (Keyring::draw().unwrap(), Keyring::draw().unwrap());
        let (org, other) = (OrgId::from_ulid(Ulid::from(1_u128)), OrgId::from_ulid(Ulid::from(2_u128)));
        let ring = ring(&[first.trim()]);
        let sealed = ring.seal(org, "ca", b"the key of the authority").unwrap();
        assert!(!sealed.contains("authority"));
        let (secret, newest) = ring.open(org, "ca", &sealed).unwrap();
        assert_eq!((secret.as_slice(), newest), (b"the key of the authority".as_slice(), true));
        assert!(matches!(ring.open(org, "lease-key:1", &sealed), Err(SealError::Broken(_))));
        assert!(matches!(ring.open(other, "ca", &sealed), Err(SealError::Broken(_))));
        let stranger = self::ring(&[second.trim()]);
        assert!(matches!(stranger.open(org, "ca", &sealed), Err(SealError::OtherKey { .. })));
        let rotated = self::ring(&[second.trim(), first.trim()]);
        assert!(!rotated.open(org, "ca", &sealed).unwrap().1, "it is to be sealed anew");
    }

    #[test]
    fn a_touched_secret_does_not_open() {
        let ring = ring(&[Keyring::draw().unwrap().trim()]);
        let org = OrgId::from_ulid(Ulid::from(1_u128));
        let sealed = ring.seal(org, "ca", b"secret").unwrap();
        let mut parsed: Sealed = serde_json::from_str(&sealed).unwrap();
        let mut bytes = STANDARD.decode(&parsed.secret).unwrap();
        bytes[NONCE_LEN] ^= 1;
        parsed.secret = STANDARD.encode(bytes);
        let touched = serde_json::to_string(&parsed).unwrap();
        assert!(matches!(ring.open(org, "ca", &touched), Err(SealError::Broken(_))));
    }

    #[test]
    fn a_key_file_holds_a_key_a_line_and_remarks() {
        let key = Keyring::draw().unwrap();
        assert!(Keyring::parse(&format!("# of May\n\n{}", key.as_str())).is_some());
        for bad in ["", "# nothing", "c2hvcnQ=", "not base64!"] {
            assert!(Keyring::parse(bad).is_none(), "{bad:?}");
        }
        let shown = format!("{:?}", Keyring::parse(&key).unwrap());
        assert!(!shown.contains(key.trim()));
    }
}
