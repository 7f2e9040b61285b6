use std::net::{IpAddr, Ipv4Addr};

use ulid::Ulid;

use super::*;

fn chain(length: u64) -> Vec<Record> {
    let node = NodeId::from_ulid(Ulid::from(1u128));
    let mut previous = GENESIS.to_owned();
    (1..=length)
        .map(|seq| {
            let event = Event::Refused(StreamRefused {
                stream: None,
                account: None,
                device: None,
                resource: None,
                client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000),
                code: format!("denied_{seq}"),
                wanted: (seq % 2 == 0).then(|| "n2.redis.internal:7000".to_owned()),
            });
            let record = Record::link(seq, node, UnixMillis(seq * 1000), event, &previous);
            previous.clone_from(&record.hash);
            record
        })
        .collect()
}

fn verify(records: &[Record]) -> Result<(), ChainError> {
    let mut last = (0, GENESIS.to_owned());
    for record in records {
        record.follows(last.0, &last.1)?;
        last = (record.seq, record.hash.clone());
    }
    Ok(())
}

#[test]
fn a_whole_chain_verifies_also_after_it_travelled_as_json() {
    let records = chain(5);
    verify(&records).unwrap();
    let travelled: Vec<Record> = serde_json::from_str(&serde_json::to_string(&records).unwrap()).unwrap();
    verify(&travelled).unwrap();
}

#[test]
fn a_record_is_written_as_it_serialises() {
    for record in chain(3) {
        let event = serde_json::to_vec(&record.event).unwrap();
        let written = Written::link(record.seq, record.node, record.at, &event, &record.previous);
        assert_eq!(written.hash, record.hash);
        assert_eq!(String::from_utf8(written.json).unwrap(), serde_json::to_string(&record).unwrap());
    }
}

#[test]
fn removed_moved_and_changed_records_are_found() {
    let mut removed = chain(5);
    removed.remove(2);
    assert_eq!(verify(&removed), Err(ChainError::Gap { seq: 4, expected: 3 }));

    let mut moved = chain(5);
    moved.swap(1, 2);
    assert!(verify(&moved).is_err());

    let mut changed = chain(5);
    changed[2].at = UnixMillis(1);
    assert_eq!(verify(&changed), Err(ChainError::Changed { seq: 3 }));

    let mut forged = chain(5);
    forged[2] = Record::link(3, forged[2].node, UnixMillis(1), forged[2].event.clone(), &forged[1].hash);
    assert_eq!(verify(&forged), Err(ChainError::Broken { seq: 4 }));
}
