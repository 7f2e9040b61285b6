use std::{io::Cursor, os::unix::fs::PermissionsExt as _, sync::Arc};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, server::WebPkiClientVerifier};

use super::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn org() -> OrgId {
    OrgId::from_ulid(ulid::Ulid::from_parts(1, 1))
}

fn account() -> AccountId {
    AccountId::from_ulid(ulid::Ulid::from_parts(2, 2))
}

fn device() -> DeviceId {
    DeviceId::from_ulid(ulid::Ulid::from_parts(3, 3))
}

fn node() -> NodeId {
    NodeId::from_ulid(ulid::Ulid::from_parts(4, 4))
}

fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

fn authority(now: UnixMillis) -> Authority {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    Authority::open_or_create(folder.path(), org(), "Example & Sons", now).unwrap()
}

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, pem)
}

struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn leaf_of(signed: &CertificateResponse, key: &KeyPair) -> Leaf {
    let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
    Leaf { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
}

fn device_leaf(authority: &Authority, now: UnixMillis) -> Leaf {
    let (key, pem) = request();
    let key_asked = RequestedKey::from_pem(&pem).unwrap();
    leaf_of(&authority.sign_device(&key_asked, account(), device(), now.plus(HOUR * 12), now).unwrap(), &key)
}

fn node_leaf(authority: &Authority, now: UnixMillis) -> Leaf {
    let (key, pem) = request();
    leaf_of(&authority.sign_node(&RequestedKey::from_pem(&pem).unwrap(), node(), None, now).unwrap(), &key)
}

/// Runs a whole mutual handshake in memory; the error is the first that either side reports.
fn shake(trusted: &Authority, server: Leaf, client: Leaf, name: &str) -> Result<(), rustls::Error> {
    let anchors = Arc::new(trusted.anchors().unwrap());
    let verifier = WebPkiClientVerifier::builder(Arc::clone(&anchors)).build().unwrap();
    let server =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(server.chain, server.key)?;
    let client =
        ClientConfig::builder().with_root_certificates(anchors).with_client_auth_cert(client.chain, client.key)?;
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name.to_owned().try_into().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = Cursor::new(wire);
        while server.read_tls(&mut wire).unwrap() > 0 {
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = Cursor::new(wire);
        while client.read_tls(&mut wire).unwrap() > 0 {
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[test]
fn a_device_reaches_a_node_of_its_own_organisation() {
    let authority = authority(now());
    let (server, client) = (node_leaf(&authority, now()), device_leaf(&authority, now()));
    shake(&authority, server, client, &node().tls_name()).unwrap();
}

#[test]
fn a_device_certificate_never_acts_as_a_server() {
    let authority = authority(now());
    for name in [node().tls_name().as_str(), "evil.example", "localhost", "127.0.0.1"] {
        let (server, client) = (device_leaf(&authority, now()), device_leaf(&authority, now()));
        shake(&authority, server, client, name).unwrap_err();
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_either_side() {
    let (ours, theirs) = (authority(now()), authority(now()));
    let name = node().tls_name();
    shake(&ours, node_leaf(&ours, now()), device_leaf(&theirs, now()), &name).unwrap_err();
    shake(&ours, node_leaf(&theirs, now()), device_leaf(&ours, now()), &name).unwrap_err();
}

#[test]
fn a_certificate_outside_its_time_is_refused() {
    let authority = authority(UnixMillis(now().0 - 86_400_000));
    let past = UnixMillis(now().0 - 13 * 3_600_000);
    let name = node().tls_name();
    shake(&authority, node_leaf(&authority, now()), device_leaf(&authority, past), &name).unwrap_err();
    let future = now().plus(HOUR);
    shake(&authority, node_leaf(&authority, now()), device_leaf(&authority, future), &name).unwrap_err();
}

#[test]
fn nothing_but_the_key_is_taken_from_a_request() {
    let authority = authority(NOW);
    let leaf = device_leaf(&authority, NOW);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject().to_string(), format!("CN={}", device()));
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    let expected = format!("postern://{}/account/{}/device/{}", org(), account(), device());
    assert_eq!(names.general_names, [x509_parser::extensions::GeneralName::URI(&expected)]);
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
}

#[test]
fn a_device_certificate_lasts_twelve_hours_at_most_and_never_outlives_the_login() {
    let authority = authority(NOW);
    let (_, pem) = request();
    let key = RequestedKey::from_pem(&pem).unwrap();
    let sign = |until| authority.sign_device(&key, account(), device(), until, NOW);
    let long = sign(NOW.plus(HOUR * 1000)).unwrap();
    let (begin, end) = validity(&long.certificate);
    assert!(end - begin <= 12 * 3600, "{begin} {end}");
    assert_eq!(long.not_after, UnixMillis(u64::try_from(end).unwrap() * 1000));
    assert_eq!(sign(NOW.plus(HOUR)).unwrap().not_after, NOW.plus(HOUR));
    assert!(matches!(sign(NOW), Err(IssueError::AlreadyOver)));
}

#[test]
fn a_node_certificate_lasts_seven_days_and_serves_one_name() {
    let authority = authority(NOW);
    let leaf = node_leaf(&authority, NOW);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 7 * 86_400);
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!(names, 2);
}

#[test]
fn two_certificates_never_share_a_serial_number() {
    let authority = authority(NOW);
    let (_, pem) = request();
    let key = RequestedKey::from_pem(&pem).unwrap();
    let serial = || {
        let signed = authority.sign_node(&key, node(), None, NOW).unwrap();
        let der = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
        x509_parser::parse_x509_certificate(&der).unwrap().1.raw_serial_as_string()
    };
    assert_ne!(serial(), serial());
}

#[test]
fn a_request_that_is_not_signed_by_its_own_key_is_refused() {
    let (_, pem) = request();
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut der = der.as_ref().to_vec();
    let middle = der.windows(12).position(|part| part == b"evil.example").unwrap();
    der[middle] = b'E';
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    assert_eq!(RequestedKey::from_pem(&pem).unwrap_err(), RequestError::BadSignature);
}

#[test]
fn keys_other_than_p256_are_refused() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pem = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(RequestedKey::from_pem(&pem).unwrap_err(), RequestError::OtherKey);
    }
    assert_eq!(RequestedKey::from_pem("no request").unwrap_err(), RequestError::Malformed);
}

#[test]
fn the_authority_is_the_same_after_a_restart_and_its_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let first = Authority::open_or_create(folder.path(), org(), "Example", NOW).unwrap();
    let second = Authority::open_or_create(folder.path(), org(), "Renamed", NOW.plus(HOUR)).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    let mode = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let public = std::fs::read_to_string(Authority::certificate_file(folder.path())).unwrap();
    assert!(!public.contains("PRIVATE"));
    assert_eq!(public, first.info("Example").certificate);
}

#[test]
fn an_authority_of_another_organisation_or_without_a_certificate_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    Authority::open_or_create(folder.path(), org(), "Example", NOW).unwrap();
    let other = OrgId::from_ulid(ulid::Ulid::from_parts(9, 9));
    let refused = Authority::open_or_create(folder.path(), other, "Example", NOW);
    assert!(matches!(refused, Err(AuthorityError::OtherOrg { .. })));
    private_file::write(&folder.path().join(KEY_FILE), b"nonsense").unwrap();
    let refused = Authority::open_or_create(folder.path(), org(), "Example", NOW);
    assert!(matches!(refused, Err(AuthorityError::Unusable { .. })));
}

#[test]
fn the_server_certificate_is_swapped_before_it_ends() {
    let authority = Arc::new(authority(NOW));
    let server = ServerCertificate::own(authority, vec!["control.example".to_owned()], NOW).unwrap();
    let first = server.chain();
    assert!(!server.renew_if_due(NOW.plus(HOUR)).unwrap());
    assert!(server.renew_if_due(NOW.plus(HOUR * 24 * 21)).unwrap());
    assert_ne!(first, server.chain());
}

#[test]
fn the_server_certificate_names_the_loopback_and_the_given_names() {
    let authority = Arc::new(authority(now()));
    let names = vec!["control.example".to_owned(), "10.0.0.7".to_owned(), "localhost".to_owned()];
    for name in ["localhost", "127.0.0.1", "::1", "control.example", "10.0.0.7"] {
        let signed = authority.sign_server(&names, now()).unwrap();
        let server = Leaf { chain: signed.chain, key: signed.key };
        shake(&authority, server, device_leaf(&authority, now()), name).unwrap();
    }
    let refused = ServerCertificate::own(authority, vec!["not a name".to_owned()], now());
    assert!(matches!(refused, Err(ServerCertificateError::Issue(IssueError::BadName(_)))));
}

#[test]
fn given_files_are_read_again_and_a_bad_pair_keeps_the_old_one() {
    let (authority, folder) = (authority(NOW), tempfile::tempdir().unwrap());
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
    let write = || {
        let pair = KeyPair::generate().unwrap();
        let leaf = leaf("given", NOW, NOW.plus(HOUR), NOW).unwrap();
        std::fs::write(&certificate, leaf.signed_by(&pair, &authority.issuer).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
    };
    write();
    let server = ServerCertificate::files(&certificate, &key, NOW).unwrap();
    let first = server.chain();
    std::fs::write(&certificate, "half a file").unwrap();
    assert!(server.renew_if_due(NOW.plus(HOUR)).is_err());
    assert_eq!(first, server.chain());
    write();
    assert!(server.renew_if_due(NOW.plus(HOUR)).unwrap());
    assert_ne!(first, server.chain());
}

fn validity(pem: &str) -> (i64, i64) {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp())
}
