use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use clap::Parser as _;

use super::*;

thread_local! {
    /// The system of one test: how many devices it made, what each that lives has, and who closed his.
    static MADE: Cell<u32> = const { Cell::new(0) };
    static LIVING: RefCell<BTreeMap<u32, Settings>> = const { RefCell::new(BTreeMap::new()) };
    static REFUSES: Cell<bool> = const { Cell::new(false) };
    /// The device that refuses, when not all do.
    static REFUSING: Cell<u32> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Fake {
    index: u32,
    there: Rc<Cell<bool>>,
}

impl Device for Fake {
    fn create(_: u32, _: &User) -> io::Result<(Self, Vec<Handover>)> {
        let index = MADE.get() + 1;
        MADE.set(index);
        LIVING.with_borrow_mut(|living| living.insert(index, Settings::default()));
        let queue = std::fs::File::open("/dev/null")?.into();
        Ok((Self { index, there: Rc::new(Cell::new(true)) }, vec![queue]))
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn name(&self) -> &str {
        "utun7"
    }

    fn is_there(&self) -> bool {
        self.there.get()
    }

    fn has_ipv6(&self) -> bool {
        true
    }

    fn settle(&mut self, wanted: &Settings) -> io::Result<usize> {
        if REFUSES.get() || REFUSING.get() == self.index {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        LIVING.with_borrow_mut(|living| {
            let before = living.insert(self.index, wanted.clone());
            Ok(usize::from(before.as_ref() != Some(wanted)))
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        LIVING.with_borrow_mut(|living| living.remove(&self.index));
    }
}

fn host() -> Host<Fake> {
    Host::open(&Options::parse_from(["postern-netd"])).unwrap()
}

fn wish(subnet: &str) -> InterfaceConfig {
    InterfaceConfig {
        subnet: subnet.parse().unwrap(),
        ipv6: Some("fd12:3456:789a::/48".parse().unwrap()),
        zones: Vec::new(),
        kept_out: Vec::new(),
        queues: 4,
        mtu: 16_000,
    }
}

fn living() -> Vec<u32> {
    LIVING.with_borrow(|living| living.keys().copied().collect())
}

#[test]
fn asking_twice_keeps_the_device_and_a_move_changes_its_addresses_and_routes() {
    let mut host = host();
    let first = host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap();
    assert_eq!((first.interface.index, first.interface.mtu, first.queues.len()), (1, 16_000, 1));
    assert_eq!(first.interface.addresses.device.to_string(), "100.72.0.1");
    assert!(!first.interface.second_lock);
    assert!(host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap().queues.is_empty());
    let moved = host.apply(Seat(1), &User(501), &wish("10.80.0.0/16")).unwrap();
    assert!(moved.queues.is_empty());
    let settings = LIVING.with_borrow(|living| living[&1].clone());
    assert_eq!(settings.addresses, ["10.80.0.1", "fd12:3456:789a::1"].map(|text| text.parse().unwrap()).into());
    assert_eq!(settings.routes, ["10.80.0.0/16", "fd12:3456:789a::/48"].map(|text| text.parse().unwrap()).into());
}

#[test]
fn a_subnet_is_one_users_and_a_user_has_one_device() {
    let mut host = host();
    host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap();
    for overlapping in ["100.72.0.0/16", "100.72.8.0/24", "100.64.0.0/10"] {
        let refused = host.apply(Seat(2), &User(502), &wish(overlapping));
        assert!(matches!(refused, Err(HostError::TakenByAnother(_))), "{refused:?}");
    }
    assert!(matches!(host.apply(Seat(3), &User(501), &wish("10.1.0.0/16")), Err(HostError::AlreadyInUse)));
    let other = host.apply(Seat(2), &User(502), &wish("10.1.0.0/16")).unwrap();
    assert_eq!((other.interface.index, host.indices()), (2, vec![1, 2]));
    assert_eq!(other.interface.ipv6, None, "the first has the organisation's IPv6 network");
    host.remove(Seat(1)).unwrap();
    assert_eq!(living(), [2]);
    host.apply(Seat(3), &User(501), &wish("100.72.0.0/16")).unwrap();
    host.remove_all().unwrap();
    assert!(living().is_empty());
}

#[test]
fn a_device_that_its_holder_closed_is_made_anew_and_one_that_cannot_be_set_up_goes() {
    let mut host = host();
    host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap();
    host.tenants[&Seat(1)].device.there.set(false);
    assert_eq!(host.repair().put_back, 0, "a device that is gone is left so");
    let again = host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap();
    assert_eq!((again.interface.index, again.queues.len(), living()), (2, 1, vec![2]));
    REFUSES.set(true);
    let refused = host.apply(Seat(1), &User(501), &wish("10.80.0.0/16"));
    assert!(matches!(refused, Err(HostError::Step { .. })), "{refused:?}");
    assert!(living().is_empty() && host.index(Seat(1)).is_none() && host.wish(Seat(1)).is_none());
}

#[test]
fn what_somebody_took_away_is_put_back() {
    let mut host = host();
    host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap();
    assert_eq!(host.repair().put_back, 0);
    LIVING.with_borrow_mut(|living| living.insert(1, Settings::default()));
    assert_eq!(host.repair().put_back, 1);
    assert_eq!(LIVING.with_borrow(|living| living[&1].routes.len()), 2);
}

#[test]
fn a_device_that_refuses_holds_up_the_repair_of_no_other() {
    let mut host = host();
    host.apply(Seat(1), &User(501), &wish("100.72.0.0/16")).unwrap();
    host.apply(Seat(2), &User(502), &wish("10.1.0.0/16")).unwrap();
    LIVING.with_borrow_mut(|living| living.values_mut().for_each(|settings| *settings = Settings::default()));
    REFUSING.set(1);
    let repair = host.repair();
    assert_eq!(repair.put_back, 1);
    assert!(matches!(repair.fault, Some(HostError::Step { .. })), "{repair:?}");
    assert!(!LIVING.with_borrow(|living| living[&2].routes.is_empty()));
}
