//! TLS 1.3 records (RFC 8446 §5.2), sealed and opened where they lie.
//!
//! rustls makes the handshake and derives every key; this is only the cipher between them and the socket. It copies
//! nothing: records are sealed in the buffer that the plaintext was read into, and opened from the buffer that the socket
//! was read into straight to where the plaintext is wanted.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

/// Most plaintext in a record.
pub(crate) const FULL: usize = 16 * 1024;
pub(crate) const HEADER: usize = 5;
/// What follows the text of a record that we seal: its type and the tag.
pub(crate) const TAIL: usize = 1 + MAX_TAG_LEN;
/// The longest record that we seal.
pub(crate) const SEALED: usize = HEADER + FULL + TAIL;
/// The longest body that a peer may send: it may pad.
const MOST: usize = FULL + 256;

/// The types of content that may be in a record after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Content {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// What a record can be that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a record has an impossible header")]
    BadHeader,
    #[error("a record was changed on its way")]
    BadSeal,
    #[error("a record holds nothing that is known")]
    BadContent,
    #[error("the key is used up")]
    UsedUp,
    #[error("the cipher suite is not known")]
    BadSuite,
}

/// The key of one direction, with the number of the next record.
pub(crate) struct Key {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Key {
    /// From what rustls derived: the number of the next record, key and initialisation vector.
    pub(crate) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::BadSuite),
        };
        let aead = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::BadSuite)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::BadSuite)?;
        Ok(Self { aead: LessSafeKey::new(aead), iv, sequence })
    }

    /// How many records went through, since the last change of keys.
    pub(crate) const fn records(&self) -> u64 {
        self.sequence
    }

    /// Seals `text` in place, at most [`FULL`] bytes: what stands before and after it in the record.
    pub(crate) fn seal(
        &mut self,
        content: Content,
        text: &mut [u8],
    ) -> Result<([u8; HEADER], [u8; TAIL]), RecordError> {
        let header = header(text.len() + TAIL).ok_or(RecordError::BadHeader)?;
        let mut tail = [0; TAIL];
        let nonce = self.nonce()?;
        self.aead
            .seal_in_place_scatter(nonce, Aad::from(header), text, &[content as u8], &mut tail)
            .map_err(|_| RecordError::BadSeal)?;
        Ok((header, tail))
    }

    /// Opens a whole record into the front of `text`, which is at least as long as the record: what it holds, and how
    /// much.
    pub(crate) fn open(&mut self, record: &[u8], text: &mut [u8]) -> Result<(Content, usize), RecordError> {
        let (header, body) = record.split_first_chunk::<HEADER>().ok_or(RecordError::BadHeader)?;
        let at = body.len().checked_sub(MAX_TAG_LEN).ok_or(RecordError::BadHeader)?;
        let (sealed, tag) = body.split_at_checked(at).ok_or(RecordError::BadHeader)?;
        let text = text.get_mut(..at).ok_or(RecordError::BadHeader)?;
        let nonce = self.nonce()?;
        self.aead
            .open_separate_gather(nonce, Aad::from(*header), sealed, tag, text)
            .map_err(|_| RecordError::BadSeal)?;
        // Content, its type, and zeros to hide how long it is.
        let end = text.iter().rposition(|byte| *byte != 0).ok_or(RecordError::BadContent)?;
        let content = match text.get(end) {
            Some(21) => Content::Alert,
            Some(22) => Content::Handshake,
            Some(23) => Content::Data,
            _ => return Err(RecordError::BadContent),
        };
        if end > FULL {
            return Err(RecordError::BadHeader);
        }
        Ok((content, end))
    }

    /// The number of the record, never used twice, folded into the initialisation vector.
    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        let number = u128::from(self.sequence).to_be_bytes();
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::UsedUp)?;
        let mut nonce = self.iv;
        let from = number.len() - NONCE_LEN;
        for (byte, number) in nonce.iter_mut().zip(number.into_iter().skip(from)) {
            *byte ^= number;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// How long the record at the front of `bytes` is, header and all; `None` when its header is not all there.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, major, minor, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if (kind, major, minor) != (Content::Data as u8, 3, 3) || !(TAIL..=MOST).contains(&body) {
        return Err(RecordError::BadHeader);
    }
    Ok(Some(HEADER + body))
}

fn header(body: usize) -> Option<[u8; HEADER]> {
    let [high, low] = u16::try_from(body).ok().filter(|body| usize::from(*body) <= FULL + TAIL)?.to_be_bytes();
    Some([Content::Data as u8, 3, 3, high, low])
}

#[cfg(test)]
mod tests;
