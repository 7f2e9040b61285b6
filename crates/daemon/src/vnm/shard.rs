//! One shard of the virtual network: one queue of the device, one thread, one stack.
//!
//! Queues are lent and flows placed as [`neighbours`](super::neighbours) says. Everything of a shard happens on its thread: the loop that moves packets ([`Shard::drive`]) and the tasks that carry
//! its flows share the stack without locks. The loop takes a batch of packets, wakes whoever has something to do, lets
//! them run, and then sends what there is to send: so one packet out answers many packets in.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use postern_netstack::{AnswerId, CloseReason, Event, FlowId, Protocol, Stack, StackConfig, dns::Resolver};
use tokio::{
    runtime::{Builder, LocalOptions},
    time::Sleep,
};
use tokio_util::sync::CancellationToken;
use tun_driver::interface::Queue;

use super::{
    directory::{Directory, Meaning, Published},
    flow::FlowEnd,
    gate::TunGate,
    names::Names,
    neighbours::{Neighbours, Seat, ShardNumber},
    sources::Sources,
};

/// What takes the connections of a shard.
pub trait Attendant: 'static {
    /// A program of an admitted user connects to a resource. Whoever drops `flow` refuses it.
    fn attend(&self, shard: &Rc<Shard>, flow: FlowEnd, meaning: Meaning);

    /// A program of somebody else did.
    fn turned_away(&self, meaning: &Meaning, destination: SocketAddr, uid: Option<u32>);
}

/// See the module.
pub struct Shard {
    pub(super) stack: RefCell<Stack>,
    flows: RefCell<HashMap<FlowId, Rc<Signals>>>,
    published: Arc<Published>,
    directory: RefCell<Arc<Directory>>,
    /// Of the directory's names, so that no question counts on what threads share.
    resolver: RefCell<Resolver>,
    version: Cell<u64>,
    gate: TunGate,
    names: Names,
    number: ShardNumber,
    neighbours: Arc<Neighbours>,
    attendant: Box<dyn Attendant>,
    /// The loop's, to be woken when there is something to send.
    driver: RefCell<Option<Waker>>,
}

/// What a flow's task waits for.
#[derive(Debug, Default)]
pub(super) struct Signals {
    read: RefCell<Option<Waker>>,
    write: RefCell<Option<Waker>>,
    end: RefCell<Option<Waker>>,
    /// The flow is over, for this reason.
    closed: Cell<Option<CloseReason>>,
}

/// Why a shard ended.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("the device of the virtual network is gone: {0}")]
    Device(io::Error),
}

/// What a shard is made of.
pub struct ShardParts<'a> {
    pub seat: &'a Seat,
    pub config: StackConfig,
    pub seed: u64,
    pub published: Arc<Published>,
    pub gate: TunGate,
    pub names: Names,
    pub attendant: Box<dyn Attendant>,
}

impl Shard {
    #[must_use]
    pub fn new(parts: ShardParts<'_>) -> Rc<Self> {
        let ShardParts { seat, config, seed, published, gate, names, attendant } = parts;
        let directory = published.get();
        let resolver = Resolver::new(Arc::clone(&directory.names));
        let shard = Self {
            stack: RefCell::new(Stack::new(config, seed, Instant::now())),
            flows: RefCell::default(),
            published,
            directory: RefCell::new(directory),
            resolver: RefCell::new(resolver),
            version: Cell::new(0),
            gate,
            names,
            number: seat.number,
            neighbours: Arc::clone(&seat.neighbours),
            attendant,
            driver: RefCell::default(),
        };
        Rc::new(shard)
    }

    /// Runs the shard of `seat` on this thread: makes it with `make` and moves packets of `queue` until `stop`. Then what
    /// it carries still is reset.
    ///
    /// # Errors
    /// The device is gone, or what `make` says.
    pub fn run(
        seat: Seat,
        queue: Queue,
        stop: &CancellationToken,
        make: impl FnOnce(&Seat) -> anyhow::Result<Rc<Self>>,
    ) -> anyhow::Result<()> {
        // What is blocked on and tasks in a set of their own have the runtime look for events twice for each wake-up; so the
        // loop and what carries flows are tasks of the runtime itself.
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        let _within = runtime.enter();
        let shard = make(&seat)?;
        let sources = Sources::open(seat, queue, Instant::now())?;
        let driving = runtime.spawn_local(shard.drive(sources, stop.clone()));
        runtime.block_on(driving)??;
        Ok(())
    }

    async fn drive(self: Rc<Self>, mut sources: Sources, stop: CancellationToken) -> Result<(), ShardError> {
        let mut timer = Box::pin(tokio::time::sleep(std::time::Duration::ZERO));
        tokio::select! {
            biased;
            result = poll_fn(|cx| self.poll_drive(cx, &mut sources, timer.as_mut())) => result?,
            () = stop.cancelled() => {}
        }
        self.reset_all();
        // The device may be gone; and nobody waits for what it does not take now.
        let _ = self.transmit(&mut Context::from_waker(Waker::noop()), &mut sources, Instant::now());
        Ok(())
    }

    /// Resets what is carried, before whoever carries it is dropped with the runtime.
    fn reset_all(&self) {
        let flows = self.flows.take();
        let mut stack = self.stack.borrow_mut();
        for flow in flows.into_keys() {
            // Those that are over need no more.
            let _ = stack.abort(flow);
        }
    }

    /// The directory in force.
    pub fn directory(&self) -> Arc<Directory> {
        self.refresh();
        Arc::clone(&self.directory.borrow())
    }

    /// The resolver for the directory in force.
    pub(super) fn resolver(&self) -> Ref<'_, Resolver> {
        self.refresh();
        self.resolver.borrow()
    }

    /// Has the loop send what there is to send.
    pub(super) fn kick(&self) {
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }

    pub(super) fn forget(&self, flow: FlowId) {
        self.flows.borrow_mut().remove(&flow);
    }

    pub(super) fn gate(&self) -> &TunGate {
        &self.gate
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Follows what is published.
    fn refresh(&self) {
        let version = self.published.version();
        if self.version.replace(version) != version {
            let directory = self.published.get();
            self.stack.borrow_mut().set_addresses(directory.addresses.clone());
            self.gate.set_interface(&directory.interface);
            *self.resolver.borrow_mut() = Resolver::new(Arc::clone(&directory.names));
            *self.directory.borrow_mut() = directory;
        }
    }

    fn poll_drive(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        sources: &mut Sources,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<Result<(), ShardError>> {
        // Who kicks from now on wakes us again.
        *self.driver.borrow_mut() = Some(cx.waker().clone());
        self.refresh();
        let now = Instant::now();
        if self.stack.borrow().poll_timeout().is_some_and(|due| due <= now) {
            self.stack.borrow_mut().handle_timeout(now);
        }
        self.transmit(cx, sources, now)?;
        let taken = sources.take(cx, &mut self.stack.borrow_mut(), now).map_err(ShardError::Device)?;
        let told = self.tell_events();
        // Who asks for a name does not wait for what others carry.
        self.transmit_answers(cx, sources, now)?;
        let settle = sources.settle(&self.stack.borrow(), now);
        if taken || told {
            // They run first; what they leave to be sent goes out after them.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.transmit(cx, sources, now)?;
        // A stack that cannot send gets its time when it can.
        let timeout = if sources.can_send() { self.stack.borrow().poll_timeout() } else { None };
        if let Some(due) = timeout.into_iter().chain(settle).min() {
            // An earlier end stays: it is looked too early once, instead of moving it with each packet.
            let due = due.max(now).into();
            if timer.is_elapsed() || due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn transmit(&self, cx: &mut Context<'_>, sources: &mut Sources, now: Instant) -> Result<(), ShardError> {
        while self.transmit_one(cx, sources, now)? {}
        Ok(())
    }

    fn transmit_answers(&self, cx: &mut Context<'_>, sources: &mut Sources, now: Instant) -> Result<(), ShardError> {
        while self.stack.borrow().has_answers() && self.transmit_one(cx, sources, now)? {}
        Ok(())
    }

    /// Whether the device took a packet.
    fn transmit_one(&self, cx: &mut Context<'_>, sources: &mut Sources, now: Instant) -> Result<bool, ShardError> {
        let mut stack = self.stack.borrow_mut();
        match sources.poll_send(cx, |buffer| stack.poll_transmit(now, buffer)) {
            Poll::Ready(Ok(sent)) => Ok(sent),
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(ShardError::Device(error)),
        }
    }

    fn tell_events(self: &Rc<Self>) -> bool {
        let mut told = false;
        loop {
            // Not held while the event is dealt with: that works on the stack too.
            let event = self.stack.borrow_mut().poll_event();
            let Some(event) = event else { return told };
            told = true;
            self.tell(event);
        }
    }

    fn tell(self: &Rc<Self>, event: Event) {
        match event {
            Event::Syn { flow, source, destination } => self.on_syn(flow, source, destination),
            Event::Readable(flow) | Event::PeerClosed(flow) => self.with_signals(flow, |signals| wake(&signals.read)),
            Event::Writable(flow) => self.with_signals(flow, |signals| wake(&signals.write)),
            Event::Closed { flow, reason } => {
                let signals = self.flows.borrow_mut().remove(&flow);
                if let Some(signals) = signals {
                    signals.closed.set(Some(reason));
                    [&signals.read, &signals.write, &signals.end].into_iter().for_each(wake);
                }
            }
            Event::Datagram { source, destination, payload } => {
                self.names.answer_datagram(self, source, destination, &payload);
            }
            Event::Answer { answer, protocol, source, destination } => {
                self.on_answer(answer, protocol, source, destination);
            }
        }
    }

    fn on_syn(self: &Rc<Self>, flow: FlowId, source: SocketAddr, destination: SocketAddr) {
        let meaning = self.directory.borrow().meaning(destination);
        // Names are for everybody: the system's resolver asks for the user under a uid of its own.
        if !matches!(meaning, Meaning::Resolver) {
            match self.gate.admit(Protocol::Tcp, source, destination) {
                Ok(uid) => {
                    if self.stack.borrow_mut().claim(flow, uid).is_err() {
                        return;
                    }
                }
                Err(refused) => {
                    let _ = self.stack.borrow_mut().drop_flow(flow);
                    return self.attendant.turned_away(&meaning, destination, refused.uid());
                }
            }
        }
        let signals = Rc::new(Signals::default());
        self.flows.borrow_mut().insert(flow, Rc::clone(&signals));
        let tenure = self.neighbours.settle(self.number, source, destination);
        let end = FlowEnd::new(Rc::clone(self), flow, signals, tenure);
        match meaning {
            Meaning::Nothing => drop(end),
            Meaning::Resolver => self.names.serve(self, end),
            Meaning::Resource { .. } => self.attendant.attend(self, end, meaning),
        }
    }

    fn on_answer(&self, answer: AnswerId, protocol: Protocol, source: SocketAddr, destination: SocketAddr) {
        let ours = self.gate.admit(protocol, source, destination).is_ok();
        let mut stack = self.stack.borrow_mut();
        if ours { stack.release(answer) } else { stack.discard(answer) }
    }

    fn with_signals(&self, flow: FlowId, work: impl FnOnce(&Signals)) {
        if let Some(signals) = self.flows.borrow().get(&flow) {
            work(signals);
        }
    }
}

impl Signals {
    pub(super) fn wait_to_read(&self, cx: &Context<'_>) {
        keep(&self.read, cx);
    }

    pub(super) fn wait_to_write(&self, cx: &Context<'_>) {
        keep(&self.write, cx);
    }

    pub(super) fn wait_for_end(&self, cx: &Context<'_>) {
        keep(&self.end, cx);
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.closed.get()
    }
}

fn keep(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &mut *slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    let waker = slot.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}
