//! The threads of the virtual network, one for each queue of its device.

use std::{fmt, sync::Arc, thread, time::Duration};

use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use tun_driver::interface::{Interface, MAX_QUEUES, Queue};

use super::{Map, Names, Porter, Seat, Shard, ShardParts, TunGate, stack_config};

/// What programs see. Where it is small the kernel hands over segments of up to 64 KiB all the same.
pub const MTU: u32 = tun_driver::frames::MTU;
/// More than this many threads gained nothing where it was measured.
const MOST_QUEUES: usize = 8;
/// How long the threads may take to reset what is open.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// How many queues a device should have here.
#[must_use]
pub fn queues() -> u8 {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u8::try_from(cores.min(MOST_QUEUES)).unwrap_or(1).clamp(1, MAX_QUEUES)
}

/// What threads work with.
pub(super) struct Fitting {
    pub(super) map: Arc<Map>,
    pub(super) porter: Porter,
    pub(super) allowed: Vec<u32>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Threads {
    /// Queues of a new device, until somebody is there in its network.
    waiting: Option<Waiting>,
    running: Vec<thread::JoinHandle<()>>,
    stop: CancellationToken,
}

struct Waiting {
    interface: Interface,
    queues: Vec<Queue>,
    lost: mpsc::Sender<String>,
}

impl Threads {
    /// Takes the queues of a new device. When a thread loses its device it says why on `lost`.
    pub(super) fn take(&mut self, interface: Interface, queues: Vec<Queue>, lost: mpsc::Sender<String>) {
        self.waiting = Some(Waiting { interface, queues, lost });
    }

    /// Starts a thread for each queue that waits.
    pub(super) fn start(&mut self, fitting: &Fitting) {
        let Some(Waiting { interface, queues, lost }) = self.waiting.take() else { return };
        self.stop = CancellationToken::new();
        let seats = Seat::all(queues.len());
        for (number, (queue, seat)) in queues.into_iter().zip(seats).enumerate() {
            let work = Work {
                queue,
                seat,
                interface: interface.clone(),
                map: Arc::clone(&fitting.map),
                porter: fitting.porter.clone(),
                allowed: fitting.allowed.clone(),
                stop: self.stop.clone(),
            };
            let (ends, refused) = (lost.clone(), lost.clone());
            let body = move || {
                if let Err(error) = work.run() {
                    // A full queue holds such a sentence already.
                    let _ = ends.try_send(error.to_string());
                }
            };
            match thread::Builder::new().name(format!("vnm-{number}")).spawn(body) {
                Ok(thread) => self.running.push(thread),
                Err(error) => {
                    let _ = refused.try_send(format!("a thread cannot be started: {error}"));
                }
            }
        }
    }

    /// Stops every thread; what they carry is reset. The future waits until that is done, for a moment at most.
    pub(super) fn stop(&mut self) -> impl Future<Output = ()> + use<> {
        self.waiting = None;
        self.stop.cancel();
        let running = std::mem::take(&mut self.running);
        async move {
            if running.is_empty() {
                return;
            }
            let joined = spawn_blocking(move || running.into_iter().for_each(|thread| drop(thread.join())));
            if tokio::time::timeout(STOP_DEADLINE, joined).await.is_err() {
                tracing::warn!("a thread of the virtual network did not end in time");
            }
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

/// What one thread is for.
struct Work {
    queue: Queue,
    seat: Seat,
    interface: Interface,
    map: Arc<Map>,
    porter: Porter,
    allowed: Vec<u32>,
    stop: CancellationToken,
}

impl Work {
    fn run(self) -> anyhow::Result<()> {
        let Self { queue, seat, interface, map, porter, allowed, stop } = self;
        Shard::run(seat, queue, &stop, |seat| {
            Ok(Shard::new(ShardParts {
                seat,
                config: stack_config(seat),
                seed: rand::random(),
                published: Arc::clone(map.published()),
                gate: TunGate::open(&allowed, &interface)?,
                names: Names::new(map),
                attendant: Box::new(porter),
            }))
        })
    }
}
