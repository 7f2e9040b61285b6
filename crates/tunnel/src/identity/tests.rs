use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType,
};

use super::*;

const ORG: &str = "org_01JABCDEFGHJKMNPQRSTVWXYZ0";
const OTHER: &str = "org_01JABCDEFGHJKMNPQRSTVWXYZ1";
const ACC: &str = "acc_01JABCDEFGHJKMNPQRSTVWXYZ2";
const DEV: &str = "dev_01JABCDEFGHJKMNPQRSTVWXYZ3";
const NOD: &str = "nod_01JABCDEFGHJKMNPQRSTVWXYZ4";

fn device() -> String {
    format!("postern://{ORG}/account/{ACC}/device/{DEV}")
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// A leaf with the names and uses of a device, changed by `change`.
fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    crate::tls::install_crypto_provider();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(&device())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params.self_signed(&key).unwrap().der().to_vec()
}

fn named(names: Vec<SanType>) -> Vec<u8> {
    leaf(|params| params.subject_alt_names = names)
}

fn read(leaf: &[u8]) -> Result<PeerIdentity, IdentityError> {
    PeerIdentity::from_leaf(leaf, ORG.parse().unwrap())
}

fn node_leaf(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    leaf(|params| {
        let node: NodeId = NOD.parse().unwrap();
        params.subject_alt_names = vec![uri(&format!("postern://{ORG}/node/{NOD}")), dns(&node.tls_name())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(params);
    })
}

#[test]
fn a_device_and_a_node_are_read_from_their_leaf() {
    let leaf = leaf(|params| params.not_after = rcgen::date_time_ymd(2040, 1, 1));
    let identity = read(&leaf).unwrap();
    assert_eq!(identity.peer, Peer::Device { account: ACC.parse().unwrap(), device: DEV.parse().unwrap() });
    assert_eq!(identity.not_after, UnixMillis(2_208_988_800_000));
    assert_eq!(not_after(&leaf), Ok(identity.not_after));
    assert_eq!(spki_sha256(&leaf), Ok(identity.spki_sha256));
    assert_eq!(uri_text(&identity), device());
    let holder = identity.holder().unwrap();
    assert_eq!(holder.cnf, hex(&identity.spki_sha256));
    assert!(identity.is_over(UnixMillis(2_208_988_800_000)) && !identity.is_over(UnixMillis(2_208_988_799_999)));

    let node = read(&node_leaf(|_| {})).unwrap();
    assert_eq!(node.peer, Peer::Node { node: NOD.parse().unwrap() });
    assert_eq!(node.holder(), None);
}

#[test]
fn a_worker_has_the_name_of_its_cluster_besides_its_own_and_opens_both_doors() {
    let (node, cluster): (NodeId, ClusterId) = (NOD.parse().unwrap(), ClusterId::from_ulid(ulid::Ulid(7)));
    let other = ClusterId::from_ulid(ulid::Ulid(8));
    let node_uri = || uri(&format!("postern://{ORG}/node/{NOD}"));
    let names = |names: Vec<SanType>| node_leaf(|params| params.subject_alt_names = names);
    let worker = read(&names(vec![node_uri(), dns(&node.tls_name()), dns(&cluster.tls_name())])).unwrap();
    assert_eq!((worker.peer, worker.cluster), (Peer::Node { node }, Some(cluster)));
    assert!(worker.opens(node.into()) && worker.opens(cluster.into()) && !worker.opens(other.into()));
    assert!(!read(&node_leaf(|_| {})).unwrap().opens(cluster.into()));
    for bad in [
        vec![node_uri(), dns(&cluster.tls_name())],
        vec![node_uri(), dns(&cluster.tls_name()), dns(&node.tls_name())],
        vec![node_uri(), dns(&node.tls_name()), dns("eu.example.org")],
        vec![node_uri(), dns(&node.tls_name()), dns(&cluster.tls_name()), dns(&other.tls_name())],
        vec![uri(&device()), dns(&cluster.tls_name())],
    ] {
        assert_eq!(read(&names(bad.clone())).unwrap_err(), IdentityError::Names, "{bad:?}");
    }
}

fn uri_text(identity: &PeerIdentity) -> String {
    super::uri(identity.org, identity.peer)
}

/// Every URI here is one letter or one part away from a right one.
#[test]
fn certificates_with_another_uri_name_nobody() {
    let device = device();
    let node = format!("postern://{ORG}/node/{NOD}");
    let mut bad: Vec<String> = [
        ("postern://", "postern:/"),
        ("postern://", "Postern://"),
        ("postern://", "https://"),
        ("postern://", "spiffe://"),
        ("postern://", " postern://"),
        ("postern://", "postern://user@"),
        ("postern://", "postern:///"),
        ("/account/", "/accounts/"),
        ("/account/", "/ACCOUNT/"),
        ("/account/", "//account/"),
        ("/account/", "/node/"),
        ("/device/", "/"),
        ("/device/", "/device//"),
        ("/device/", "/devices/"),
        ("/device/", "/../device/"),
        ("acc_", "dev_"),
        ("acc_", "ACC_"),
        ("acc_", ""),
        ("acc_", "acc"),
        ("dev_", "acc_"),
        ("dev_", "nod_"),
        ("dev_", "%64ev_"),
        ("org_", "org"),
        ("org_", "acc_"),
        ("XYZ0", "XYZ"),
        ("XYZ0", "XYZ00"),
        ("XYZ0", "xyz0"),
        ("XYZ0", "XYZ0:443"),
        ("XYZ2", "XYZO"),
        ("XYZ3", "XYZ3/"),
        ("XYZ3", "XYZ3?x=1"),
        ("XYZ3", "XYZ3#x"),
        ("XYZ3", "XYZ3 "),
        ("XYZ3", "XYZ3/device/dev_01JABCDEFGHJKMNPQRSTVWXYZ9"),
        ("XYZ3", "*"),
        ("XYZ3", "XYZ3%00"),
    ]
    .into_iter()
    .map(|(from, to)| device.replacen(from, to, 1))
    .collect();
    bad.extend([
        node.replace("/node/", "/nodes/"),
        format!("{node}/"),
        node.replace("nod_", "dev_"),
        format!("{node}/device/{DEV}"),
        format!("postern://{ORG}"),
        format!("postern://{ORG}/"),
        String::new(),
        "postern://".to_owned(),
    ]);
    for bad in &bad {
        assert!(read(&named(vec![uri(bad)])).is_err(), "{bad}");
    }
    assert_eq!(bad.len(), 44);
}

#[test]
fn certificates_of_another_form_name_nobody() {
    let foreign = device().replace(ORG, OTHER);
    let email = SanType::Rfc822Name("a@example.org".try_into().unwrap());
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    let raw_san = |content: Vec<u8>| CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
    let long = "x".repeat(MAX_LEAF);
    let garbled = {
        let mut leaf = leaf(|_| {});
        let at = leaf.windows(7).position(|window| window == b"postern").unwrap();
        leaf[at] = 0xff;
        leaf
    };
    let cases = [
        ("no name", named(vec![]), IdentityError::Names),
        (
            "common name only",
            leaf(|p| {
                p.subject_alt_names = vec![];
                p.distinguished_name.push(DnType::CommonName, device());
            }),
            IdentityError::Names,
        ),
        ("two URIs", named(vec![uri(&device()), uri(&device())]), IdentityError::Names),
        ("a foreign URI beside", named(vec![uri(&device()), uri(&foreign)]), IdentityError::Names),
        ("a web page beside", named(vec![uri("https://example.org"), uri(&device())]), IdentityError::Names),
        ("a DNS name beside", named(vec![uri(&device()), dns("gateway.example.org")]), IdentityError::Names),
        ("a wildcard beside", named(vec![uri(&device()), dns("*.node.postern.internal")]), IdentityError::Names),
        ("an address beside", named(vec![uri(&device()), address]), IdentityError::Names),
        ("an e-mail address beside", named(vec![uri(&device()), email]), IdentityError::Names),
        ("a DNS name only", named(vec![dns("gateway.example.org")]), IdentityError::Names),
        (
            "another organisation",
            named(vec![uri(&foreign)]),
            IdentityError::ForeignOrg { found: OTHER.parse().unwrap() },
        ),
        ("an authority", leaf(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), IdentityError::Authority),
        ("no use", leaf(|p| p.extended_key_usages = vec![]), IdentityError::WrongUse),
        (
            "a device that serves",
            leaf(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
            IdentityError::WrongUse,
        ),
        (
            "a device for any use",
            leaf(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)),
            IdentityError::WrongUse,
        ),
        (
            "a device for code",
            leaf(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            IdentityError::WrongUse,
        ),
        (
            "a node without its DNS name",
            node_leaf(|p| {
                p.subject_alt_names.pop();
            }),
            IdentityError::Names,
        ),
        (
            "a node with a second DNS name",
            node_leaf(|p| p.subject_alt_names.push(dns("x.example.org"))),
            IdentityError::Names,
        ),
        (
            "a node with another's DNS name",
            node_leaf(|p| p.subject_alt_names[1] = dns("x.node.postern.internal")),
            IdentityError::Names,
        ),
        (
            "a node that cannot serve",
            node_leaf(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            IdentityError::WrongUse,
        ),
        (
            "names that are no names",
            leaf(|p| {
                p.subject_alt_names = vec![];
                p.custom_extensions = vec![raw_san(vec![0x30, 0x84, 0xff])];
            }),
            IdentityError::Malformed,
        ),
        ("names twice", leaf(|p| p.custom_extensions = vec![raw_san(vec![0x30, 0x00])]), IdentityError::Malformed),
        ("a name that is not text", garbled, IdentityError::Names),
        ("too long", leaf(|p| p.distinguished_name.push(DnType::CommonName, long)), IdentityError::Malformed),
        ("something behind it", [leaf(|_| {}), vec![0]].concat(), IdentityError::Malformed),
        (
            "cut off",
            {
                let mut cut = leaf(|_| {});
                cut.truncate(200);
                cut
            },
            IdentityError::Malformed,
        ),
        ("nothing", vec![], IdentityError::Malformed),
        ("not DER", b"-----BEGIN CERTIFICATE-----".to_vec(), IdentityError::Malformed),
    ];
    for (name, leaf, expected) in cases {
        assert_eq!(read(&leaf), Err(expected), "{name}");
    }
}
