//! Bytes that show it when one is missing, doubled or in another place.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use postern_proto::record::hex;

/// How far apart the blocks of [`write_sparse`] are.
const STRIDE: u64 = 64 * 1024;
/// How long each of them is.
const BLOCK: usize = 4 * 1024;

/// `length` bytes that look random and depend on `seed` and their place.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    let mut word = 0;
    while out.len() < length {
        out.extend_from_slice(&mix(seed, word).to_le_bytes());
        word += 1;
    }
    out.truncate(length);
    out
}

/// Writes a file of `length` random-looking bytes.
pub fn write_dense(path: &Path, seed: u64, length: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let chunk = 1 << 20;
    let mut at = 0;
    while at < length {
        let piece = usize::try_from((length - at).min(chunk)).unwrap_or(usize::MAX);
        file.write_all(&bytes(mix(seed, at), piece))?;
        at += chunk;
    }
    Ok(())
}

/// Writes a file of `length` bytes with a random-looking block at every 64 KiB and holes between them: a gigabyte
/// that takes 64 MiB of disk. A byte lost, doubled or moved anywhere moves a block, and so changes the hash.
pub fn write_sparse(path: &Path, seed: u64, length: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_len(length)?;
    let mut at = 0;
    while at + BLOCK as u64 <= length {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&bytes(mix(seed, at), BLOCK))?;
        at += STRIDE;
    }
    Ok(())
}

/// SHA-256 of all that a reader gives, in hex.
pub fn hash_reader(mut reader: impl Read) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            read => context.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

pub fn hash_file(path: &Path) -> io::Result<String> {
    hash_reader(File::open(path)?)
}

/// SplitMix64: every bit of the result depends on every bit of both arguments.
fn mix(seed: u64, place: u64) -> u64 {
    let mut z = seed.wrapping_add(place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_has_its_length_and_a_hash_that_depends_on_the_seed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        write_sparse(&one, 1, 1_000_000).unwrap();
        write_sparse(&other, 2, 1_000_000).unwrap();
        assert_eq!(std::fs::metadata(&one).unwrap().len(), 1_000_000);
        assert_ne!(hash_file(&one).unwrap(), hash_file(&other).unwrap());
    }

    #[test]
    fn dense_bytes_differ_from_place_to_place() {
        let all = bytes(7, 64 * 1024);
        let mut words: Vec<_> = all.chunks(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all.len() / 8);
    }
}
