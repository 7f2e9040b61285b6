//! Random tokens: shown once, stored as a hash, compared in constant time.

use std::fmt;

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The operating system gave no random bytes. Nothing that needs a secret may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy;

/// `N` random bytes.
pub fn entropy<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

/// A random token: a prefix that says what it is for, then 32 random bytes in base64url.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Draws a token. `prefix` may be empty; it is for the eyes of people and of secret scanners.
    pub fn draw(prefix: &str) -> Result<Self, NoEntropy> {
        let bytes = Zeroizing::new(entropy::<32>()?);
        Ok(Self(Zeroizing::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())))))
    }

    /// The text, to be handed to its owner once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a token. A token has 256 random bits, so a plain hash cannot be turned back.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of what somebody presents as a token.
    #[must_use]
    pub fn of(presented: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, presented.as_bytes()).as_ref());
        Self(hash)
    }

    /// The form in which it is stored: lower-case hex.
    #[must_use]
    pub fn to_text(&self) -> String {
        postern_proto::record::hex(&self.0)
    }

    /// Reads a stored hash; `None` when it is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// Reads a stored hash; `None` when it has another length.
    #[must_use]
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Constant time.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_by_its_hash_and_another_is_not() {
        let (token, other) = (Token::draw("pst_").unwrap(), Token::draw("pst_").unwrap());
        assert_eq!(token.expose().len(), 4 + 43);
        assert_eq!(TokenHash::of(token.expose()), token.hash());
        assert_ne!(other.hash(), token.hash());
        assert_eq!(TokenHash::from_text(&token.hash().to_text()), Some(token.hash()));
        assert_eq!(TokenHash::from_stored(token.hash().as_bytes()), Some(token.hash()));
    }

    #[test]
    fn a_token_does_not_show_itself_in_debug_output() {
        let token = Token::draw("").unwrap();
        assert!(!format!("{token:?} {:?}", token.hash()).contains(token.expose()));
    }
}
