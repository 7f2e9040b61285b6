//! Names in the form in which they are compared.

use hickory_proto::rr::Name;
use postern_proto::name::{DnsName, check_host};

/// The longest name on the wire, its root label counted in (RFC 1035, 2.3.4).
const MAX: usize = 255;

/// A name as on the wire, in lower case and without the root label: the same for all spellings, and the end of it, from
/// the beginning of any label, is the key of a parent.
#[derive(Clone)]
pub(super) struct Key {
    bytes: [u8; MAX],
    len: usize,
}

impl Key {
    /// The key of labels; `None` when these are too long for a name.
    fn of<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut key = Self { bytes: [0; MAX], len: 0 };
        for label in labels {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            let end = key.len + 1 + label.len();
            let place = key.bytes.get_mut(key.len..end)?;
            let (first, rest) = place.split_first_mut()?;
            *first = length;
            rest.copy_from_slice(label);
            rest.make_ascii_lowercase();
            key.len = end;
        }
        Some(key)
    }

    pub(super) fn of_name(name: &Name) -> Option<Self> {
        Self::of(name.iter())
    }

    pub(super) fn of_dns_name(name: &DnsName) -> Option<Self> {
        Self::of_host(name.as_str())
    }

    /// The key of a name in text form, without a dot at its end.
    pub(super) fn of_host(host: &str) -> Option<Self> {
        Self::of(host.split('.').map(str::as_bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The name as it stands in the data of a record.
    pub(super) fn to_wire(&self) -> Box<[u8]> {
        self.as_bytes().iter().copied().chain([0]).collect()
    }

    /// The key itself, then those of its parents up to the last but the root.
    pub(super) fn ancestors(&self) -> Ancestors<'_> {
        Ancestors(self.as_bytes())
    }

    /// The name as a host that can be dialled; `None` when it is none, such as `_ldap._tcp.example`.
    pub(super) fn host_name(&self) -> Option<String> {
        let mut text = String::with_capacity(self.len);
        for key in self.ancestors() {
            let label = str::from_utf8(first_label(key)).ok()?;
            if label.contains('.') {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(label);
        }
        check_host(&text).ok().filter(|host| *host == text)
    }
}

/// The first label of a key.
pub(super) fn first_label(key: &[u8]) -> &[u8] {
    key.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length))).unwrap_or_default()
}

/// What follows the first label.
pub(super) fn parent(key: &[u8]) -> &[u8] {
    key.get(1 + first_label(key).len()..).unwrap_or_default()
}

/// See [`Key::ancestors`].
pub(super) struct Ancestors<'a>(&'a [u8]);

impl<'a> Iterator for Ancestors<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let this = self.0;
        self.0 = parent(this);
        (!this.is_empty()).then_some(this)
    }
}
