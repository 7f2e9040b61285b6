//! What an answer tells people beside its code: Extended DNS Errors (RFC 8914), which `dig` and logs show.

use postern_proto::bind::Cidr;

use super::Range;

/// Why an answer is as it is. Sent only to askers that use EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The session has ended or is locked: names stay, connections are refused until the user signs in again, or unlocks it.
    SessionExpired,
    /// The resource, or all of them, are not connected.
    NotConnected,
    /// The virtual network had addresses of `from`, and has others now.
    Moved { from: Cidr },
    /// No more hosts under wildcard aliases can be given an address.
    NoAddressLeft,
    /// The name is none of ours.
    Elsewhere,
    /// The name is the control plane's or a gateway's own.
    Bypass,
}

impl Notice {
    /// Whether names may exist that the table has not: then "there is no such name" is not said.
    #[must_use]
    pub fn incomplete(self) -> bool {
        matches!(self, Self::SessionExpired | Self::NotConnected)
    }

    /// The number of the error (RFC 8914, 4): 0 other, 14 not ready, 18 prohibited, 20 not authoritative.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::SessionExpired => 18,
            Self::NotConnected => 14,
            Self::Moved { .. } | Self::NoAddressLeft => 0,
            Self::Elsewhere | Self::Bypass => 20,
        }
    }

    /// Writes the text for people.
    pub(super) fn write(self, range: &Range, out: &mut Vec<u8>) {
        let text = match self {
            Self::SessionExpired => "session expired or locked: postern login, or postern unlock",
            Self::NotConnected => "not connected",
            Self::NoAddressLeft => "no virtual address is left for another host under a wildcard alias",
            Self::Elsewhere => "not a name of Postern",
            Self::Bypass => "a name of Postern itself, never answered from a zone",
            Self::Moved { from } => {
                let text = format!("virtual network moved from {from} to {}", range.v4);
                return out.extend_from_slice(text.as_bytes());
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}
