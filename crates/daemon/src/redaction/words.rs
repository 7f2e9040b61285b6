//! What a word of a log line is, by its form.

use std::net::{IpAddr, SocketAddr};

/// A part of a word that a stand-in is to replace.
pub(super) struct Found {
    pub(super) kind: &'static str,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// An id of ours has a prefix and a ULID of so many letters.
const ULID: usize = 26;
/// A word of so many letters and digits, mixed, is more likely a secret than anything else.
const SECRET: usize = 20;

/// Whether a letter is part of a word: of an address, an id, a path, a URL or an e-mail address too.
pub(super) fn is_part(letter: char) -> bool {
    letter.is_alphanumeric() || "._:@/%+-=[]~".contains(letter)
}

/// What is to be replaced in a word; `None` for a word like any other.
pub(super) fn kind(word: &str) -> Option<Found> {
    let whole = |kind| Some(Found { kind, from: 0, to: word.len() });
    let part = |kind, from, to| Some(Found { kind, from, to });
    if let Some(at) = word.find("://") {
        return part("url", at + 3, word.len());
    }
    if let Some((_, value)) = word.split_once('=')
        && let Some(found) = kind(value)
    {
        let offset = word.len() - value.len();
        return part(found.kind, found.from + offset, found.to + offset);
    }
    if word.contains('@') {
        return whole("user");
    }
    if let Ok(address) = word.parse::<SocketAddr>() {
        let port = address.port().to_string().len() + 1;
        return part("ip", 0, word.len() - port);
    }
    if word.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return whole("ip");
    }
    if let Some((network, prefix)) = word.split_once('/')
        && network.parse::<IpAddr>().is_ok()
    {
        return part("ip", 0, word.len() - prefix.len() - 1);
    }
    if let Some(kind) = id(word) {
        return whole(kind);
    }
    if word.starts_with('/') && word.len() > 1 || word.starts_with("~/") {
        return whole("path");
    }
    if is_secret(word) {
        return whole("secret");
    }
    let (host, behind) = word.split_once(':').unwrap_or((word, ""));
    let port = behind.is_empty() || behind.bytes().all(|byte| byte.is_ascii_digit());
    if port && is_host(host) { part("host", 0, host.len()) } else { None }
}

fn id(word: &str) -> Option<&'static str> {
    let (prefix, ulid) = word.split_once('_').unwrap_or(("", word));
    let fits = ulid.len() == ULID && ulid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then_some(match prefix {
        "res" => "res",
        "nod" => "gw",
        "acc" => "user",
        _ => "id",
    })
}

fn is_secret(word: &str) -> bool {
    let letters = word.bytes().any(|byte| byte.is_ascii_alphabetic());
    let digits = word.bytes().any(|byte| byte.is_ascii_digit());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+/=%".contains(&byte);
    word.len() >= SECRET && letters && digits && word.bytes().all(plain)
}

/// Two labels or more, the last of letters only.
fn is_host(word: &str) -> bool {
    let mut labels = word.split('.').rev();
    let last =
        labels.next().is_some_and(|label| label.len() > 1 && label.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let mut others = labels.peekable();
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    last && others.peek().is_some() && others.all(label)
}

/// How much of the text this name is, which is in lower case; `None` when the text begins otherwise.
pub(super) fn begins_with(text: &str, name: &str) -> Option<usize> {
    let mut wanted = name.chars();
    for (at, letter) in text.char_indices() {
        if wanted.as_str().is_empty() {
            return Some(at);
        }
        for lower in letter.to_lowercase() {
            if wanted.next() != Some(lower) {
                return None;
            }
        }
    }
    wanted.as_str().is_empty().then_some(text.len())
}
