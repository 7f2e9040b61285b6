use hickory_proto::rr::{RData, rdata::A};

use super::*;

/// A server that answers by `answer`, over UDP and TCP on one port.
async fn server(answer: impl Fn(Message, bool) -> Vec<Message> + Clone + Send + 'static) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // The same port may be taken for TCP.
        if let Ok(tcp) = tokio::net::TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let by_tcp = answer.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        loop {
            let (length, asker) = udp.recv_from(&mut buffer).await.unwrap();
            for message in answer(Message::from_vec(&buffer[..length]).unwrap(), false) {
                udp.send_to(&message.to_vec().unwrap(), asker).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut bytes).await.unwrap();
            for message in by_tcp(Message::from_vec(&bytes).unwrap(), true) {
                let bytes = message.to_vec().unwrap();
                stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    address
}

fn answer(query: &Message, last: u8) -> Message {
    let mut answer = query.clone().into_response();
    answer.edns = None;
    let name = query.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, 5, RData::A(A::new(100, 72, 1, last))));
    answer
}

fn question() -> Question {
    Question::new("db.my-org", "a").unwrap()
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn an_answer_to_another_question_is_passed_over() {
    let server = server(|query, _| {
        let mut other_id = answer(&query, 1);
        other_id.metadata.id ^= 1;
        let mut other_name = answer(&query, 2);
        other_name.queries[0].set_name(Name::from_ascii("db.other.").unwrap());
        let mut echo = query.clone();
        echo.edns = None;
        vec![other_id, other_name, echo, answer(&query, 3)]
    })
    .await;
    assert_eq!(addresses(&ask(server, &question()).await.unwrap()), ["100.72.1.3"]);
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_over_tcp() {
    let server = server(|query, tcp| {
        if tcp {
            return vec![answer(&query, 9)];
        }
        let mut cut = query.clone().into_response();
        cut.metadata.truncation = true;
        vec![cut]
    })
    .await;
    assert_eq!(addresses(&ask(server, &question()).await.unwrap()), ["100.72.1.9"]);
}

#[tokio::test]
async fn the_report_has_the_code_the_records_and_the_explanation() {
    let server = server(|query, _| {
        let mut answer = answer(&query, 4);
        answer.metadata.response_code = ResponseCode::NoError;
        let mut edns = Edns::new();
        edns.options_mut().insert(EdnsOption::Unknown(15, b"\0\x12session\x1b expired".to_vec()));
        answer.set_edns(edns);
        vec![answer]
    })
    .await;
    let Asked::Answered { code, records, explanation } = outcome(ask(server, &question()).await) else {
        panic!("no answer")
    };
    assert_eq!((code.as_str(), records.len()), ("NOERROR", 1));
    let NameRecord { name, kind, ttl, data } = &records[0];
    assert_eq!((name.as_str(), kind.as_str(), *ttl, data.as_str()), ("db.my-org", "A", 5, "100.72.1.4"));
    let explanation = explanation.unwrap();
    assert!(explanation.contains("expired") && !explanation.contains('\x1b'), "{explanation:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_and_one_that_is_silent_is_timed_out() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = socket.local_addr().unwrap();
    assert!(matches!(ask(silent, &question()).await, Err(AskError::TimedOut)));
    drop(socket);
    assert!(matches!(ask(silent, &question()).await, Err(AskError::Io(_))));
}

#[tokio::test]
async fn the_system_is_asked_for_addresses_only() {
    let ask = async |name, kind| ask_system(&Question::new(name, kind).unwrap()).await;
    assert_eq!(ask("localhost", "A").await, SystemAnswer::Found { addresses: vec![Ipv4Addr::LOCALHOST.into()] });
    assert_eq!(ask("localhost", "TXT").await, SystemAnswer::NotAsked);
}

#[test]
fn the_systems_own_words_for_a_name_that_is_not_there_are_known() {
    for text in [
        "failed to lookup address information: Name or service not known",
        "failed to lookup address information: No address associated with hostname",
        "failed to lookup address information: Name does not resolve",
        "failed to lookup address information: nodename nor servname provided, or not known",
    ] {
        assert!(says_not_found(text), "{text}");
    }
    assert!(!says_not_found("failed to lookup address information: Temporary failure in name resolution"));
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    assert_eq!(Question::new("DB.my-org.", "aaaa").unwrap().name(), "DB.my-org");
    for name in ["", ".", "a..b", &"a".repeat(64)] {
        assert_eq!(Question::new(name, "A").unwrap_err(), QuestionError::Name(name.to_owned()), "{name:?}");
    }
    assert_eq!(Question::new("a", "NONSENSE").unwrap_err(), QuestionError::Kind("NONSENSE".to_owned()));
}

#[test]
fn the_commands_ask_the_same_by_hand() {
    let resolver = Some(Ipv4Addr::new(100, 72, 0, 2).into());
    assert_eq!(
        commands(resolver, &question()),
        ["dig +tries=2 +time=2 @100.72.0.2 db.my-org A", "getent ahostsv4 db.my-org"]
    );
    assert_eq!(commands(None, &Question::new("db.my-org", "TXT").unwrap()), Vec::<String>::new());
}
