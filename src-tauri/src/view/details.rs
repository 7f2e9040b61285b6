//! One resource in full: the panel beside the list.

use serde::Serialize;

use super::row::Kind;

/// What a row does not hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Details {
    pub id: String,
    /// The ready command, the same string as `postern command NAME` prints. `null`: this kind has none.
    pub command: Option<String>,
    /// Every address it is reached at: the main one first, then loopback beside the virtual network, then further ports.
    pub addresses: Vec<String>,
    /// Why it is not in the virtual network, although that is where it belongs: a sentence.
    pub fallback: Option<String>,
    /// Ports beside its own: `7000-7005`.
    pub ports: Option<String>,
    /// The port without an override.
    pub assigned_port: u16,
    /// Since when it is in its state.
    pub since: Option<u64>,
    /// When it was last used.
    pub last_used: Option<u64>,
    /// When the grant ends. `null`: it has no end.
    pub grant_ends: Option<u64>,
    /// When the current proof of access ends; it renews itself before.
    pub lease_ends: Option<u64>,
    /// `null`: not measured yet.
    pub route: Option<Route>,
    /// The streams carried now, oldest first; at most 100.
    pub sessions: Vec<Session>,
    /// How many streams there are in all.
    pub session_count: u32,
    pub traffic: Traffic,
    /// Tools that are installed and open this resource; the first is the one of the key O.
    pub tools: Vec<Tool>,
}

/// The way to a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Route {
    /// From this computer (not listed) to the target (the last one).
    pub hops: Vec<Hop>,
    /// All hops together; `null` when one of them is not measured.
    pub latency_micros: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Hop {
    pub name: String,
    /// From the hop before it.
    pub latency_micros: Option<u64>,
    /// `false`: the way is cut here.
    pub up: bool,
}

/// One connection that is carried now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Session {
    pub id: String,
    /// Where the program's end is: `127.0.0.1:51234`.
    pub peer: String,
    /// The gateway that carries it.
    pub gateway: Option<String>,
    pub started_at: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// Bytes in the last ten minutes, as this app saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Traffic {
    /// Length of one bucket.
    pub bucket_seconds: u32,
    /// Bytes per bucket, oldest first; at most 60. Empty: nothing seen yet.
    pub up: Vec<u64>,
    pub down: Vec<u64>,
}

/// A program of this machine that can open a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Tool {
    /// For `open_with`: `terminal_ssh`, `browser`, `terminal_psql` …
    pub id: String,
    /// The name of the program: `psql`, `ssh`, `Browser`. Not translated.
    pub name: String,
    /// Which kinds of resources it opens.
    pub kinds: Vec<Kind>,
}
