use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn settings(proxy: &str) -> ProxySettings {
    ProxySettings { proxy: Some(proxy.to_owned()), credentials: None }
}

fn outward(settings: ProxySettings, environment: &[(&str, &str)]) -> Result<Outward, BadProxy> {
    let environment = environment.to_vec();
    Outward::new(settings, move |name| Some((*environment.iter().find(|(known, _)| *known == name)?.1).to_owned()))
}

fn chosen(settings: ProxySettings, environment: &[(&str, &str)], host: &str) -> Option<String> {
    outward(settings, environment).unwrap().proxy_for(host, 443)
}

#[test]
fn the_option_wins_over_the_environment_and_off_is_straight() {
    let environment = [("HTTPS_PROXY", "http://env.example:3128"), ("no_proxy", "straight.example")];
    assert_eq!(chosen(ProxySettings::default(), &environment, "gw.example").unwrap(), "env.example:3128");
    assert_eq!(chosen(settings("http://opt.example:8080/"), &environment, "gw.example").unwrap(), "opt.example:8080");
    assert_eq!(chosen(settings("opt.example"), &environment, "gw.example").unwrap(), "opt.example:80");
    assert_eq!(chosen(settings("off"), &environment, "gw.example"), None);
    assert_eq!(chosen(settings(""), &environment, "gw.example"), None);
    assert_eq!(chosen(settings("opt.example"), &environment, "a.straight.example"), None);
    assert_eq!(chosen(ProxySettings::default(), &[], "gw.example"), None);
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_for_this_machine() {
    for host in ["localhost", "127.0.0.1", "::1"] {
        assert_eq!(chosen(ProxySettings::default(), &[("https_proxy", "http://p:1")], host), None);
        assert!(chosen(settings("http://p:1"), &[], host).is_some(), "it was told so");
    }
}

#[test]
fn a_password_is_nowhere_to_be_seen_and_signs_in_it_may_be_escaped() {
    let way = outward(settings("http://us%40er:s%3Acret@[2001:db8::1]:3128"), &[]).unwrap();
    assert_eq!(way.proxy().unwrap(), "us@er@[2001:db8::1]:3128");
    assert!(!format!("{way:?}").contains("cret"));
    assert_eq!(way.0.as_ref().unwrap().proxy.credentials.as_ref().unwrap().as_str(), "us@er:s:cret");
    let apart = ProxySettings { credentials: Some(Zeroizing::new("a:b\n".to_owned())), ..settings("http://p:1") };
    let way = outward(apart, &[]).unwrap();
    assert_eq!(way.0.as_ref().unwrap().proxy.credentials.as_ref().unwrap().as_str(), "a:b");
}

#[test]
fn addresses_that_cannot_be_used_are_refused_without_being_repeated() {
    for (address, error) in [
        ("https://u:secret@p:1", BadProxy::Scheme),
        ("socks5://p:1", BadProxy::Scheme),
        ("http://", BadProxy::Address),
        ("http://p:port", BadProxy::Address),
        ("http://p:0", BadProxy::Address),
        ("http://p/path", BadProxy::Address),
        ("http://u%zz:secret@p:1", BadProxy::Credentials),
        ("http://u:a%0d%0aX: y@p:1", BadProxy::Credentials),
        ("http://:secret@p:1", BadProxy::Credentials),
    ] {
        assert_eq!(outward(settings(address), &[]).unwrap_err(), error, "{address}");
        assert!(!error.to_string().contains("secret"));
    }
    let alone = ProxySettings { credentials: Some(Zeroizing::new("a:b".to_owned())), proxy: Some(String::new()) };
    assert_eq!(outward(alone, &[]).unwrap_err(), BadProxy::NoProxy);
}

#[test]
fn an_address_is_split_at_its_port() {
    assert_eq!(split("gw.example:5000"), Some(("gw.example", 5000)));
    assert_eq!(split("[2001:db8::1]:5000"), Some(("2001:db8::1", 5000)));
    for bad in ["gw.example", ":5000", "gw:port", "[::1:5000", "gw:70000"] {
        assert_eq!(split(bad), None, "{bad}");
    }
}

/// What a proxy that answers so is asked, and what becomes of it.
async fn asked(answer: &'static str, proxy: &str) -> (String, Result<TcpStream, OutwardError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.replace("PROXY", &listener.local_addr().unwrap().to_string());
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        // In pieces, as answers come.
        for piece in answer.as_bytes().chunks(7) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        String::from_utf8(request).unwrap()
    });
    let way = outward(settings(&address), &[]).unwrap();
    let connected = way.connect("gw.example", 5000, Duration::from_secs(5)).await;
    (answering.await.unwrap(), connected)
}

#[tokio::test]
async fn the_proxy_resolves_the_name_is_shown_the_credentials_and_what_follows_its_answer_is_left() {
    let (request, connected) =
        asked("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhello", "http://u:p@PROXY").await;
    assert!(request.starts_with("CONNECT gw.example:5000 HTTP/1.1\r\nHost: gw.example:5000\r\n"), "{request}");
    assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{request}");
    let mut stream = connected.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"hello");
}

#[tokio::test]
async fn what_a_proxy_says_instead_is_told_with_what_to_do() {
    let basic = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
    let other = "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
    for (answer, proxy, told) in [
        (basic, "http://PROXY", "wants a user name and password"),
        (basic, "http://user:secret@PROXY", "does not accept the user name and password"),
        (
            "HTTP/1.0 401 Unauthorized\r\n\r\n",
            "http://user:secret@PROXY",
            "user name and password that it was given (401)",
        ),
        (other, "http://user:secret@PROXY", "(Negotiate, NTLM; 407)"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "http://PROXY", "does not allow connections to gw.example:5000 (403)"),
        ("HTTP/1.0 503 Down\r\n\r\n", "http://PROXY", "cannot connect to gw.example:5000 itself (503)"),
        ("HTTP/1.1 400 Bad\r\n\r\n", "http://PROXY", "Is it a proxy for HTTPS?"),
        ("SSH-2.0-x\r\n\r\n", "http://PROXY", "does not answer as an HTTP proxy does"),
        ("HTTP/1.1 200 cut", "http://PROXY", "closed the connection without an answer"),
    ] {
        let (request, connected) = asked(answer, proxy).await;
        let error = connected.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert!(!error.contains("secret") && !request.contains("secret"), "{error}");
    }
}
