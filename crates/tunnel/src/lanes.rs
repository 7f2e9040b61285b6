//! Threads that carry streams, each with a runtime of its own.
//!
//! What begins in a lane stays there: its sockets wake that thread and no other, and nothing is handed from one to
//! another on the way. A runtime of several threads instead wakes another of its threads whenever two things happen at
//! once, which costs a short stream more than it gains.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{runtime, runtime::Handle, sync::oneshot, time::sleep};

/// More threads than this gain nothing where it was measured.
const MOST: usize = 8;

/// How much more than another a lane may have to do and keep what begins in it: the other one has to be woken for it.
const SLACK: usize = 1;
/// See [`stir`]. Below every time that a stream waits for in its beginning.
const PULSE: Duration = Duration::from_millis(5);

thread_local! {
    static IS_LANE: Cell<bool> = const { Cell::new(false) };
    /// How often something began here.
    static BEGINNINGS: Cell<u64> = const { Cell::new(0) };
    static PULSING: Cell<bool> = const { Cell::new(false) };
}

/// See the module. Dropping it drops what its threads carry.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    load: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
}

/// A place in a lane, taken until it is dropped.
#[derive(Debug)]
pub struct Place {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

impl Lanes {
    /// One lane for each core. `name` is that of the threads.
    ///
    /// # Errors
    /// A thread or a runtime cannot be had.
    pub fn start(name: &str) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST);
        let lanes = (0..count).map(|number| Lane::start(format!("{name}-{number}"))).collect::<io::Result<_>>()?;
        Ok(Self { lanes, next: AtomicUsize::new(0) })
    }

    /// No lane: every place is in the runtime of who asks for it.
    #[must_use]
    pub const fn none() -> Self {
        Self { lanes: Vec::new(), next: AtomicUsize::new(0) }
    }

    /// A place in the lane that has least to do; in that of the caller's thread, unless that has more than [`SLACK`] more to do.
    #[must_use]
    pub fn place(&self) -> Place {
        let here = Handle::try_current().ok().map(|handle| handle.id());
        let idlest = self.lanes.iter().min_by_key(|lane| {
            let load = lane.load.load(Ordering::Relaxed);
            let elsewhere = Some(lane.handle.id()) != here;
            (if elsewhere { load } else { load.saturating_sub(SLACK) }, elsewhere)
        });
        idlest.map_or_else(Place::anywhere, Lane::place)
    }

    /// Each lane in turn: for what stays long and mostly waits.
    #[must_use]
    pub fn next(&self) -> Handle {
        let number = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(self.lanes.len());
        let lane = number.and_then(|number| self.lanes.get(number));
        lane.map_or_else(Handle::current, |lane| lane.handle.clone())
    }
}

impl Lane {
    fn start(name: String) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            IS_LANE.set(true);
            let _ = runtime.block_on(stopped);
            // Name look-ups in flight are not waited for.
            runtime.shutdown_background();
        };
        thread::Builder::new().name(name).spawn(body)?;
        Ok(Self { handle, load: Arc::default(), _stop: stop })
    }

    fn place(&self) -> Place {
        self.load.fetch_add(1, Ordering::Relaxed);
        Place { handle: self.handle.clone(), load: Arc::clone(&self.load) }
    }
}

impl Place {
    /// Where there is no lane: in the runtime of the caller.
    fn anywhere() -> Self {
        Self { handle: Handle::current(), load: Arc::new(AtomicUsize::new(1)) }
    }

    /// The lane's runtime.
    #[must_use]
    pub const fn runtime(&self) -> &Handle {
        &self.handle
    }

    /// Whether the caller is in that lane.
    #[must_use]
    pub fn is_here(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.handle.id())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// To be called where a stream begins. While streams keep coming a lane has a short timer running all the time. A runtime
/// that is given a timer which ends before all others wakes its own thread for it, with two system calls; so the timers of
/// each stream cost none.
pub(crate) fn stir() {
    if !IS_LANE.get() {
        return;
    }
    BEGINNINGS.set(BEGINNINGS.get().wrapping_add(1));
    if !PULSING.replace(true) {
        tokio::spawn(async {
            loop {
                let before = BEGINNINGS.get();
                sleep(PULSE).await;
                if BEGINNINGS.get() == before {
                    break;
                }
            }
            PULSING.set(false);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_in_a_lane_stays_there_while_no_other_has_much_less_to_do() {
        let lanes =
            Lanes { lanes: (0..3).map(|_| Lane::start("test".into()).unwrap()).collect(), next: AtomicUsize::new(0) };
        let here = lanes.lanes[1].handle.clone();
        let loads = || lanes.lanes.iter().map(|lane| lane.load.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let _within = here.enter();
        let mut places: Vec<_> = (0..2).map(|_| lanes.place()).collect();
        assert!(places.iter().all(Place::is_here));
        places.extend((0..5).map(|_| lanes.place()));
        assert_eq!(loads(), [2, 3, 2]);
        drop(places);
        assert_eq!(loads(), [0, 0, 0]);
    }

    #[test]
    fn without_lanes_everything_is_in_the_runtime_of_who_asks() {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        let _within = runtime.enter();
        assert!(Lanes::none().place().is_here());
        assert_eq!(Lanes::none().next().id(), runtime.handle().id());
    }

    #[test]
    fn what_lanes_carry_is_dropped_with_them() {
        let lanes = Lanes::start("test").unwrap();
        let (held, gone) = oneshot::channel::<()>();
        lanes.next().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(lanes);
        assert!(gone.blocking_recv().is_err());
    }
}
