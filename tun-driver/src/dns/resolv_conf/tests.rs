use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 72, 53));

fn addresses(text: &str) -> Vec<String> {
    ResolvConf::parse(text.as_bytes()).servers().iter().map(|server| server.address.to_string()).collect()
}

#[test]
fn servers_are_read_as_glibc_reads_them() {
    assert_eq!(addresses("nameserver 10.0.0.1\nnameserver\t::1 # why\n"), ["10.0.0.1", "::1"]);
    assert_eq!(addresses("nameserver 10.0.0.1"), ["10.0.0.1"], "no final line end");
    let no_server =
        " nameserver 10.0.0.1\n#nameserver 10.0.0.1\nnameserver10.0.0.1\nnameserver dns.example\nnameserver\n";
    assert_eq!(addresses(no_server), Vec::<String>::new());
    assert_eq!(addresses(&"nameserver 10.0.0.1\n".repeat(5)).len(), 3, "glibc asks three at most");
}

#[test]
fn a_scope_is_kept() {
    let text = b"nameserver fe80::1%eth0\nnameserver 10.0.0.1%eth0\nnameserver fe80::2%\n";
    let parsed = ResolvConf::parse(text);
    let [server] = parsed.servers()[..] else { panic!("{parsed:?}") };
    assert_eq!((server.address.to_string().as_str(), server.scope), ("fe80::1", Some("eth0")));
}

#[test]
fn our_file_asks_the_stub_alone_and_keeps_everything_else() {
    let before = ResolvConf::parse(
        b"; dhcp\nsearch corp.example\nnameserver 10.0.0.1\noptions ndots:2 edns0\nnameserver 10.0.0.2\n",
    );
    let written = before.with_stub(STUB);
    let ours = ResolvConf::parse(&written);
    assert!(ours.is_marked() && ours.asks(STUB) && !before.is_marked() && !before.asks(STUB));
    assert_eq!(ours.servers().len(), 1);
    let text = String::from_utf8(written.clone()).unwrap();
    assert!(text.ends_with("; dhcp\nsearch corp.example\noptions ndots:2 edns0\n"), "{text}");
}

#[test]
fn what_others_changed_in_our_file_outlives_the_stub() {
    let before = ResolvConf::parse(b"search a\nnameserver 10.0.0.1\nnameserver 10.0.0.2");
    let mut edited = before.with_stub(STUB);
    edited.extend_from_slice(b"options timeout:1\n");
    let text = String::from_utf8(ResolvConf::parse(&edited).without_stub(STUB, &before)).unwrap();
    assert_eq!(text, "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a\noptions timeout:1\n");
}

proptest! {
    #[test]
    fn any_bytes_can_be_read_marked_and_cleared(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&text);
    }

    #[test]
    fn any_lines_can_be_read_marked_and_cleared(
        lines in proptest::collection::vec("(nameserver |search |options |# )?[a-z0-9.:% \t]{0,20}\r?\n?", 0..12),
    ) {
        check(lines.concat().as_bytes());
    }
}

fn check(text: &[u8]) {
    super::super::check_resolv_conf(text);
}
