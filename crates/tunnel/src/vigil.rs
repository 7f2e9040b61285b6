//! Finds connections whose other machine has fallen silent: a cable is cut, a machine is gone, and nobody says so.
//!
//! A connection on which nothing is under way is looked after by the kernel (keepalive, see `socket`). On one on which
//! something is, it sends that again for a quarter of an hour, and a limit on unacknowledged bytes (`TCP_USER_TIMEOUT`)
//! cannot be set: Linux also applies it to a peer that answers but whose window is closed, and would cut a program that
//! does not read for a while. So a thread asks the kernel each second when the other side was last heard, of those
//! connections alone on which something is under way.
//!
//! It never touches a connection: it says that one is lost, and who carries it breaks it off. Connections within the
//! machine are not watched. Where the kernel cannot be asked (other systems than Linux) none is.

#[cfg(target_os = "linux")]
#[path = "vigil/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "vigil/nowhere.rs"]
mod system;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;

use self::system::Kernel;
use crate::socket::UNHEARD;

/// How often connections are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// So long a peer that has to answer may be silent: with [`EVERY`] a cut is found within ten seconds. By then the kernel
/// has sent at least four times.
const SILENCE: Duration = Duration::from_secs(8);
/// So long one may that has nothing to answer because it takes nothing: the kernel asks it every two minutes at last.
const LONG_SILENCE: Duration = Duration::from_secs(5 * 60);

/// One connection that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    local: SocketAddr,
    peer: SocketAddr,
    /// Something was sent since all was known to have arrived. Who sets it tells the vigil.
    stirred: AtomicBool,
    /// The other end gives a sign now and then even while it takes nothing, and we read it.
    beats: AtomicBool,
    lost: AtomicBool,
    task: AtomicWaker,
}

/// What the kernel knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Something that was sent has not arrived.
    outstanding: bool,
    /// It is on its way, so it has to be answered; otherwise it waits for the other side to take something.
    in_flight: bool,
    /// How long ago anything was heard of the other side.
    heard: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Settled,
    Wait,
    Lost,
}

impl Watch {
    /// `None` for a connection that needs no watching: its other end cannot vanish without a sign.
    pub(crate) fn of(stream: &TcpStream) -> Option<Arc<Self>> {
        let (local, peer) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
        if !system::IS_WATCHED || peer.ip().to_canonical().is_loopback() || local.ip() == peer.ip() {
            return None;
        }
        Some(Arc::new(Self {
            local,
            peer,
            stirred: AtomicBool::new(false),
            beats: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }))
    }

    /// Something was sent.
    pub(crate) fn stir(self: &Arc<Self>) {
        if !self.stirred.load(Ordering::Relaxed) && !self.stirred.swap(true, Ordering::AcqRel) {
            tell(Arc::clone(self));
        }
    }

    /// Whether the other end gives a sign now and then even while it takes nothing.
    pub(crate) fn expect_beats(&self, beats: bool) {
        if self.beats.load(Ordering::Relaxed) != beats {
            self.beats.store(beats, Ordering::Relaxed);
        }
    }

    /// Has `waker` woken when the connection is lost.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Whether the other side has been silent for too long.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// What a connection that is doubted is told by what the kernel knows. `doubted`: for how long something has been outstanding.
fn judge(seen: Seen, doubted: Duration, beats: bool) -> Verdict {
    if !seen.outstanding {
        return Verdict::Settled;
    }
    if seen.in_flight && seen.heard >= UNHEARD && doubted >= EVERY {
        // It had not answered the kernel either when something was sent.
        return Verdict::Lost;
    }
    // Before something was sent nobody had to answer.
    let silent = seen.heard.min(doubted);
    let limit = if seen.in_flight || beats { SILENCE } else { LONG_SILENCE };
    if silent >= limit { Verdict::Lost } else { Verdict::Wait }
}

/// What the thread has not taken up yet.
struct Post {
    fresh: Vec<Arc<Watch>>,
    /// It has nothing to look at and waits to be woken.
    asleep: bool,
}

static POST: Mutex<Post> = Mutex::new(Post { fresh: Vec::new(), asleep: false });
static WAKE: Condvar = Condvar::new();
static START: Once = Once::new();

fn post() -> MutexGuard<'static, Post> {
    POST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At most one wake-up of the thread each second, however much is sent.
fn tell(watch: Arc<Watch>) {
    START.call_once(|| {
        let started = std::thread::Builder::new().name("vigil".to_owned()).spawn(keep);
        if let Err(error) = started {
            tracing::warn!(%error, "nobody watches for connections that fall silent");
        }
    });
    let mut post = post();
    post.fresh.push(watch);
    if std::mem::take(&mut post.asleep) {
        WAKE.notify_one();
    }
}

/// Watches for as long as the process runs.
fn keep() {
    let mut kernel = Kernel::default();
    let mut doubted: Vec<(Arc<Watch>, Instant)> = Vec::new();
    let mut said = false;
    loop {
        take_up(&mut doubted);
        std::thread::sleep(EVERY);
        // Those that nobody carries any more; one reference is the thread's own.
        doubted.retain(|(watch, _)| Arc::strong_count(watch) > 1);
        let now = Instant::now();
        doubted.retain(|(watch, since)| {
            // Before the question: what is sent after it tells of itself.
            watch.stirred.store(false, Ordering::Release);
            let seen = kernel.ask(watch.local, watch.peer).inspect_err(|error| {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "the system does not say which connections are silent");
                }
            });
            let verdict = match seen {
                Ok(Some(seen)) => judge(seen, now.duration_since(*since), watch.beats.load(Ordering::Relaxed)),
                Ok(None) => Verdict::Settled,
                Err(_) => Verdict::Wait,
            };
            match verdict {
                Verdict::Settled => false,
                // Told again meanwhile: then it is looked at as what it was.
                Verdict::Wait => {
                    watch.stirred.store(true, Ordering::Release);
                    true
                }
                Verdict::Lost => {
                    tracing::debug!(peer = %watch.peer, "a connection is silent");
                    watch.lose();
                    false
                }
            }
        });
    }
}

/// Takes up what was told, and waits for it when there is nothing to look at.
fn take_up(doubted: &mut Vec<(Arc<Watch>, Instant)>) {
    let mut post = post();
    while doubted.is_empty() && post.fresh.is_empty() {
        post.asleep = true;
        post = WAKE.wait(post).unwrap_or_else(PoisonError::into_inner);
    }
    post.asleep = false;
    let now = Instant::now();
    for watch in post.fresh.drain(..) {
        if !doubted.iter().any(|(held, _)| Arc::ptr_eq(held, &watch)) {
            doubted.push((watch, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: Duration = Duration::from_secs(3600);

    #[test]
    fn a_peer_has_to_answer_what_is_on_its_way_to_it_and_nothing_from_before() {
        let seen = |heard| Seen { outstanding: true, in_flight: true, heard };
        assert_eq!(judge(seen(LONG_AGO), Duration::ZERO, false), Verdict::Wait, "it had nothing to answer before");
        assert_eq!(judge(seen(SILENCE), SILENCE, false), Verdict::Lost);
        assert_eq!(judge(seen(UNHEARD), EVERY, false), Verdict::Lost, "it had been silent before");
        assert_eq!(judge(seen(Duration::from_secs(1)), LONG_AGO, false), Verdict::Wait, "it answers");
        assert!(SILENCE + EVERY < Duration::from_secs(10));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_lost_when_its_signs_do_not_come() {
        let seen = |heard| Seen { outstanding: true, in_flight: false, heard };
        assert_eq!(judge(seen(SILENCE), LONG_AGO, false), Verdict::Wait, "a pager waits for its user");
        assert_eq!(judge(seen(SILENCE), LONG_AGO, true), Verdict::Lost);
        assert_eq!(judge(seen(LONG_SILENCE), LONG_AGO, false), Verdict::Lost);
    }

    #[test]
    fn what_has_arrived_leaves_nothing_to_watch() {
        let seen = Seen { outstanding: false, in_flight: false, heard: LONG_AGO };
        assert_eq!(judge(seen, LONG_AGO, true), Verdict::Settled);
    }
}
