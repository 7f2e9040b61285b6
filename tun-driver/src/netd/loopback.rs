//! Addresses of 127.0.0.0/8 beside 127.0.0.1. Linux and Windows have all of them; macOS has those that somebody gives
//! `lo0`, which only root may. What is given outlives the process that gives it, so it is written down first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    path::PathBuf,
};

use super::host::Seat;

/// The system's own loopback interface.
pub(crate) trait Aliases {
    /// Gives it an address; that it has it is no error.
    fn add(&self, address: Ipv4Addr) -> io::Result<()>;

    /// Takes one away; that it is gone is no error.
    fn remove(&self, address: Ipv4Addr) -> io::Result<()>;
}

/// What each connection wants, and what was given.
#[derive(Debug)]
pub(crate) struct Loopback<A> {
    aliases: A,
    wanted: BTreeMap<Seat, BTreeSet<Ipv4Addr>>,
    given: BTreeSet<Ipv4Addr>,
    journal: PathBuf,
}

impl<A: Aliases> Loopback<A> {
    /// Takes back what an earlier run gave.
    pub(crate) fn open(aliases: A, journal: PathBuf) -> io::Result<Self> {
        let text = match fs::read_to_string(&journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let given = text.lines().filter_map(|line| line.parse().ok()).filter(is_alias).collect();
        let mut loopback = Self { aliases, wanted: BTreeMap::new(), given, journal };
        loopback.settle()?;
        Ok(loopback)
    }

    /// Makes these the addresses that the connection wants. Others keep theirs.
    pub(crate) fn set(&mut self, seat: Seat, addresses: impl IntoIterator<Item = Ipv4Addr>) -> io::Result<()> {
        let wanted: BTreeSet<Ipv4Addr> = addresses.into_iter().filter(is_alias).collect();
        match wanted.is_empty() {
            true => self.wanted.remove(&seat),
            false => self.wanted.insert(seat, wanted),
        };
        self.settle()
    }

    /// Takes everything back.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.wanted.clear();
        self.settle()
    }

    fn settle(&mut self) -> io::Result<()> {
        let wanted: BTreeSet<Ipv4Addr> = self.wanted.values().flatten().copied().collect();
        let (more, fewer): (Vec<_>, Vec<_>) =
            (wanted.difference(&self.given).copied().collect(), self.given.difference(&wanted).copied().collect());
        if more.is_empty() && fewer.is_empty() {
            return Ok(());
        }
        // Written down before it is given, and until it is taken away.
        self.given.extend(&more);
        self.write_journal()?;
        for address in more {
            self.aliases.add(address)?;
        }
        for address in fewer {
            self.aliases.remove(address)?;
            self.given.remove(&address);
        }
        self.write_journal()
    }

    fn write_journal(&self) -> io::Result<()> {
        if self.given.is_empty() {
            return match fs::remove_file(&self.journal) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let text: String = self.given.iter().map(|address| format!("{address}\n")).collect();
        let new = self.journal.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(new, &self.journal)
    }
}

/// 127.0.0.1 is everybody's, always.
fn is_alias(address: &Ipv4Addr) -> bool {
    address.is_loopback() && *address != Ipv4Addr::LOCALHOST
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Debug, Default)]
    struct Fake {
        there: RefCell<BTreeSet<Ipv4Addr>>,
        refuses: bool,
    }

    impl Aliases for Fake {
        fn add(&self, address: Ipv4Addr) -> io::Result<()> {
            if self.refuses {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.there.borrow_mut().insert(address);
            Ok(())
        }

        fn remove(&self, address: Ipv4Addr) -> io::Result<()> {
            self.there.borrow_mut().remove(&address);
            Ok(())
        }
    }

    fn addresses(last: &[u8]) -> Vec<Ipv4Addr> {
        last.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last)).collect()
    }

    fn there(loopback: &Loopback<Fake>) -> Vec<Ipv4Addr> {
        loopback.aliases.there.borrow().iter().copied().collect()
    }

    #[test]
    fn an_address_is_there_for_as_long_as_somebody_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("loopback");
        let mut loopback = Loopback::open(Fake::default(), journal.clone()).unwrap();
        loopback.set(Seat(1), addresses(&[1, 2, 3])).unwrap();
        loopback.set(Seat(2), addresses(&[3, 4])).unwrap();
        assert_eq!(there(&loopback), addresses(&[2, 3, 4]), "127.0.0.1 is none of our business");
        loopback.set(Seat(1), addresses(&[2])).unwrap();
        loopback.set(Seat(2), []).unwrap();
        assert_eq!(there(&loopback), addresses(&[2]));
        assert_eq!(fs::read_to_string(&journal).unwrap(), "127.0.0.2\n");
        loopback.clear().unwrap();
        assert!(there(&loopback).is_empty() && !journal.exists());
    }

    #[test]
    fn what_an_earlier_run_gave_is_taken_back_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("loopback");
        fs::write(&journal, "127.0.0.2\n10.0.0.1\n127.0.0.1\nnonsense\n").unwrap();
        let fake = Fake::default();
        let others: [Ipv4Addr; 3] = ["127.0.0.9", "127.0.0.1", "10.0.0.1"].map(|text| text.parse().unwrap());
        fake.there.borrow_mut().extend(others);
        fake.there.borrow_mut().insert(Ipv4Addr::new(127, 0, 0, 2));
        let loopback = Loopback::open(fake, journal.clone()).unwrap();
        assert_eq!(
            there(&loopback),
            ["10.0.0.1", "127.0.0.1", "127.0.0.9"].map(|text| text.parse::<Ipv4Addr>().unwrap())
        );
        assert!(!journal.exists());
    }

    #[test]
    fn what_could_not_be_given_stays_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("loopback");
        let mut loopback = Loopback::open(Fake { refuses: true, ..Fake::default() }, journal.clone()).unwrap();
        loopback.set(Seat(1), addresses(&[2])).unwrap_err();
        assert_eq!(fs::read_to_string(journal).unwrap(), "127.0.0.2\n");
    }
}
