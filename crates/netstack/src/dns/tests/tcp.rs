use super::*;

/// Queries with their lengths, ids counting from 0.
fn pipeline(count: u16) -> Vec<u8> {
    (0..count)
        .flat_map(|id| {
            let mut query = question("db.my-org", RecordType::A);
            query.metadata.id = id;
            let query = query.to_vec().unwrap();
            [u16::try_from(query.len()).unwrap().to_be_bytes().to_vec(), query].concat()
        })
        .collect()
}

/// Takes whole messages off the front.
fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (message, rest) = rest.split_at(u16::from_be_bytes(*length).into());
        messages.push(Message::from_vec(message).unwrap());
        bytes = rest;
    }
    messages
}

fn receive(bed: &mut Bed, queries: &mut TcpQueries, bytes: &[u8]) -> Result<usize, TooLong> {
    let Bed { resolver, hosts } = bed;
    queries.receive(bytes, |query, out| resolver.answer(Transport::Tcp, query, hosts, out))
}

#[test]
fn queries_are_answered_in_order_however_their_bytes_come() {
    let bytes = pipeline(20);
    for size in [1, 2, 3, 7, 50, bytes.len()] {
        let (mut bed, mut queries) = (Bed::new(), TcpQueries::default());
        for chunk in bytes.chunks(size) {
            assert_eq!(receive(&mut bed, &mut queries, chunk), Ok(chunk.len()));
        }
        let answers = messages(queries.waiting());
        assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| addresses(answer) == ips(&["100.72.1.0"])));
        assert!(!queries.is_within_query());
    }
}

#[test]
fn who_does_not_read_is_not_read_from() {
    let (mut bed, mut queries) = (Bed::new(), TcpQueries::default());
    let bytes = pipeline(5000);
    let mut taken = 0;
    let mut answers = Vec::new();
    let mut waits = 0;
    while taken < bytes.len() {
        match receive(&mut bed, &mut queries, &bytes[taken..]).unwrap() {
            0 => {
                waits += 1;
                assert!((MAX_WAITING..MAX_WAITING + 200).contains(&queries.waiting().len()));
                assert_eq!(receive(&mut bed, &mut queries, &bytes[taken..]), Ok(0));
                // The asker reads a little.
                answers.extend_from_slice(&queries.waiting()[..1000]);
                queries.advance(1000);
            }
            count => taken += count,
        }
    }
    answers.extend_from_slice(queries.waiting());
    queries.advance(usize::MAX);
    assert!(waits > 10 && queries.waiting().is_empty());
    assert_eq!(messages(&answers).iter().map(|answer| answer.id).collect::<Vec<_>>(), (0..5000).collect::<Vec<_>>());
}

#[test]
fn a_query_that_is_too_long_ends_the_connection_before_it_is_stored() {
    let (mut bed, mut queries) = (Bed::new(), TcpQueries::default());
    let length = u16::try_from(MAX_QUERY + 1).unwrap();
    let bytes = [pipeline(1), length.to_be_bytes().to_vec(), vec![0; 5000]].concat();
    assert_eq!(receive(&mut bed, &mut queries, &bytes), Err(TooLong(MAX_QUERY + 1)));
    assert_eq!(messages(queries.waiting()).len(), 1, "what came before is answered");
}

#[test]
fn what_is_no_query_gets_no_answer_and_the_next_one_does() {
    let (mut bed, mut queries) = (Bed::new(), TcpQueries::default());
    let bytes = [vec![0, 3, 1, 2, 3, 0, 0], pipeline(1)].concat();
    assert_eq!(receive(&mut bed, &mut queries, &bytes), Ok(bytes.len()));
    assert_eq!(messages(queries.waiting()).len(), 1);
    receive(&mut bed, &mut queries, &[0]).unwrap();
    assert!(queries.is_within_query());
}
