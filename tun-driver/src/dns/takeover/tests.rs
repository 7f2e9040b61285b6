use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 72, 53));

struct Bed {
    folder: tempfile::TempDir,
    takeover: Takeover,
}

impl Bed {
    fn new(content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, content).unwrap();
        let takeover = Takeover::new(path, folder.path().join("state/backup"));
        Self { folder, takeover }
    }

    fn read(&self) -> Vec<u8> {
        fs::read(&self.takeover.path).unwrap()
    }

    fn write(&self, content: &[u8]) {
        fs::write(&self.takeover.path, content).unwrap();
    }

    /// Nothing but resolv.conf and an empty state folder.
    fn assert_clean(&self) {
        let names: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "resolv.conf" || name == "state"), "{names:?}");
        assert!(!self.takeover.backup.exists());
    }
}

#[test]
fn the_file_comes_back_byte_for_byte_with_mode_and_owner() {
    let before = b"# dhcp\nnameserver 10.0.0.1\nsearch a\noptions rotate";
    let bed = Bed::new(before);
    fs::set_permissions(&bed.takeover.path, fs::Permissions::from_mode(0o640)).unwrap();
    bed.takeover.take(STUB).unwrap();
    assert!(bed.takeover.is_taken() && ResolvConf::parse(&bed.read()).asks(STUB));
    assert_eq!(bed.takeover.text_before().unwrap(), before);
    assert_eq!(fs::metadata(&bed.takeover.path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(bed.takeover.restore().unwrap(), Restored::Back);
    assert_eq!(bed.read(), before);
    assert_eq!(fs::metadata(&bed.takeover.path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(bed.takeover.restore().unwrap(), Restored::Nothing);
    bed.assert_clean();
}

#[test]
fn a_missing_file_is_missing_again() {
    let bed = Bed::new(b"");
    fs::remove_file(&bed.takeover.path).unwrap();
    bed.takeover.take(STUB).unwrap();
    assert!(bed.takeover.is_taken());
    assert_eq!(bed.takeover.restore().unwrap(), Restored::Back);
    assert!(!bed.takeover.path.exists());
    bed.assert_clean();
}

#[test]
fn what_somebody_else_wrote_meanwhile_stays() {
    let bed = Bed::new(b"nameserver 10.0.0.1\n");
    bed.takeover.take(STUB).unwrap();
    bed.write(b"nameserver 192.168.7.1\n");
    assert!(!bed.takeover.is_taken());
    assert_eq!(bed.takeover.restore().unwrap(), Restored::LeftAlone);
    assert_eq!(bed.read(), b"nameserver 192.168.7.1\n");
    bed.assert_clean();
}

#[test]
fn an_edit_in_our_file_stays_and_the_stub_goes() {
    let bed = Bed::new(b"nameserver 10.0.0.1\n");
    bed.takeover.take(STUB).unwrap();
    let edited = [bed.read().as_slice(), b"search b\n"].concat();
    bed.write(&edited);
    assert_eq!(bed.takeover.restore().unwrap(), Restored::Cleared);
    assert_eq!(bed.read(), b"nameserver 10.0.0.1\nsearch b\n");
    bed.assert_clean();
}

#[test]
fn a_link_that_appeared_meanwhile_stays() {
    let bed = Bed::new(b"nameserver 10.0.0.1\n");
    bed.takeover.take(STUB).unwrap();
    fs::remove_file(&bed.takeover.path).unwrap();
    symlink("/run/systemd/resolve/stub-resolv.conf", &bed.takeover.path).unwrap();
    assert_eq!(bed.takeover.restore().unwrap(), Restored::LeftAlone);
    assert!(fs::symlink_metadata(&bed.takeover.path).unwrap().is_symlink());
}

#[test]
fn links_of_known_managers_come_back_as_links_and_others_are_refused() {
    let bed = Bed::new(b"");
    let link = |target: &str| {
        fs::remove_file(&bed.takeover.path).unwrap();
        symlink(target, &bed.takeover.path).unwrap();
    };
    for target in ["/run/NetworkManager/resolv.conf", "/run/resolvconf/resolv.conf", "/run/systemd/resolve/resolv.conf"]
    {
        link(target);
        bed.takeover.take(STUB).unwrap();
        assert!(!fs::symlink_metadata(&bed.takeover.path).unwrap().is_symlink());
        assert_eq!(bed.takeover.restore().unwrap(), Restored::Back);
        assert_eq!(fs::read_link(&bed.takeover.path).unwrap(), Path::new(target));
    }
    for target in ["/etc/other", "/run/NetworkManager/../x", "resolv.conf.mine"] {
        link(target);
        assert!(matches!(bed.takeover.take(STUB), Err(TakeError::UnknownLink { .. })), "{target}");
        assert_eq!(fs::read_link(&bed.takeover.path).unwrap(), Path::new(target));
    }
    bed.assert_clean();
}

#[test]
fn a_relative_link_is_followed_from_where_it_lies() {
    let takeover = Takeover::new("/etc/resolv.conf".into(), "/nowhere".into());
    let followed = takeover.follow(Path::new("../run/systemd/resolve/stub-resolv.conf"));
    assert_eq!(manager_of(&followed), Some("systemd-resolved"));
}

#[test]
fn folders_and_giants_are_refused() {
    let bed = Bed::new(&vec![b'#'; 70_000]);
    assert!(matches!(bed.takeover.take(STUB), Err(TakeError::TooLong(_))));
    fs::remove_file(&bed.takeover.path).unwrap();
    fs::create_dir(&bed.takeover.path).unwrap();
    assert!(matches!(bed.takeover.take(STUB), Err(TakeError::NotAFile(_))));
    bed.assert_clean();
}

#[test]
fn a_backup_that_cannot_be_read_is_said_aloud_and_kept() {
    let bed = Bed::new(b"nameserver 10.0.0.1\n");
    bed.takeover.take(STUB).unwrap();
    fs::write(&bed.takeover.backup, b"{\"version\":9}\n").unwrap();
    assert!(bed.takeover.restore().unwrap_err().to_string().contains("by hand"));
    assert!(bed.takeover.backup.exists());
}

proptest! {
    /// A crash at any byte of an overwriting in place, in either direction, is mended.
    #[test]
    fn a_crash_while_overwriting_in_place_is_mended(
        content in proptest::collection::vec("(nameserver 10.0.0.[1-9]|search [a-z]{1,5}|# [a-z]{0,9})\n", 0..5),
        cut in 0_usize..600, going_back: bool,
    ) {
        let before = content.concat().into_bytes();
        let bed = Bed::new(&before);
        bed.takeover.take(STUB).unwrap();
        let mut backup = bed.takeover.read_backup().unwrap().unwrap();
        backup.header.in_place = true;
        bed.takeover.write_backup(&backup).unwrap();
        let whole = if going_back { before.clone() } else { bed.read() };
        bed.write(&whole[..cut.min(whole.len())]);
        prop_assert_eq!(bed.takeover.restore().unwrap(), Restored::Back);
        prop_assert_eq!(bed.read(), before);
    }
}
