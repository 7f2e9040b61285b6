use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

fn labels() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        Just("db".to_owned()),
        Just("my-org".to_owned()),
        Just("kafka".to_owned()),
        Just("internal".to_owned()),
        Just("in-addr".to_owned()),
        Just("arpa".to_owned()),
        Just("72".to_owned()),
        Just("100".to_owned()),
        "[a-zA-Z0-9_-]{1,20}",
    ];
    proptest::collection::vec(label, 1..8).prop_map(|labels| labels.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 1024 }))]

    #[test]
    fn every_question_gets_one_answer_that_echoes_it(
        name in labels(), kind in any::<u16>(), class in any::<u16>(), id in any::<u16>(), payload in any::<Option<u16>>(),
        tcp in any::<bool>(),
    ) {
        let mut query = Message::new(id, MessageType::Query, OpCode::Query);
        let mut asked = Question::query(Name::from_labels(name.split('.').map(str::as_bytes)).unwrap(), RecordType::from(kind));
        asked.set_query_class(DNSClass::from(class));
        query.add_query(asked);
        query.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let bytes = query.to_vec().unwrap();
        let mut bed = Bed::new();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let (outcome, out) = bed.bytes(transport, &bytes);
        let answer = Message::from_vec(&out).unwrap();
        prop_assert_eq!(outcome, Outcome::Answered(answer.response_code));
        prop_assert_eq!(&answer.queries, &query.queries);
        prop_assert_eq!(answer.id, id);
        prop_assert!(tcp || out.len() <= usize::from(payload.unwrap_or(512).clamp(512, MAX_UDP)));
        prop_assert_eq!(bed.bytes(transport, &bytes).1, out, "asked again, it is answered the same");
    }

    #[test]
    fn any_bytes_are_answered_or_dropped(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (outcome, out) = Bed::new().bytes(Transport::Udp, &bytes);
        prop_assert_eq!(outcome == Outcome::Dropped, out.is_empty());
        if !out.is_empty() {
            prop_assert_eq!(&out[..2], &bytes[..2]);
            prop_assert!(Message::from_vec(&out).is_ok());
        }
    }

    /// Against a reference: whatever is asked, reached, forgotten, kept and brought back in whatever order and time, no
    /// address has two names within what programs may remember, and there is one for a new name when one is forgotten.
    #[test]
    fn no_address_has_two_names_that_somebody_may_remember(
        steps in proptest::collection::vec((0_u8..12, 0_u8..20, 0_u64..600), 1..400),
    ) {
        let cidr: postern_proto::bind::Cidr = "10.0.0.0/28".parse().unwrap();
        let (mut hosts, mut now, mut since_start) = (HostAddresses::new(cidr), Duration::ZERO, Duration::ZERO);
        // Who is remembered at an address: until when, and for ever when it was reached.
        let mut remembered: BTreeMap<HostPart, (String, Option<Duration>)> = BTreeMap::new();
        for (action, host, seconds) in steps {
            (now, since_start) = (now + Duration::from_secs(seconds), since_start + Duration::from_secs(seconds));
            hosts.at(since_start);
            let host = format!("h{host}.x");
            let until = now + FORGOTTEN_AFTER;
            match action {
                0 => {
                    let kept = hosts.export();
                    (hosts, since_start) = (HostAddresses::new(cidr), Duration::ZERO);
                    prop_assert_eq!(hosts.import(kept), 0);
                    for (_, memory) in remembered.values_mut() {
                        *memory = memory.map(|_| until);
                    }
                }
                1 | 2 => if let Some(part) = hosts.get(&host) {
                    prop_assert!(hosts.try_out(&host));
                    let (name, memory) = &remembered[&part];
                    prop_assert_eq!(name, &host);
                    if action == 2 && remembered.values().filter(|(_, memory)| memory.is_none()).count() < 4 {
                        prop_assert_eq!(hosts.reach(&host), memory.is_some());
                        remembered.insert(part, (host, None));
                    } else if memory.is_some() {
                        remembered.insert(part, (host, Some(until)));
                    }
                } else {
                    prop_assert!(!hosts.try_out(&host) && !hosts.reach(&host));
                },
                _ => match hosts.give(&host) {
                    Ok(part) => {
                        let memory = remembered.get(&part).map(|(name, memory)| (name == &host, *memory));
                        match memory {
                            Some((true, None)) => {}
                            Some((false, memory)) if memory.is_none_or(|until| until > now) => {
                                prop_assert!(false, "{part:?} is {host}'s and somebody remembers another");
                            }
                            _ => _ = remembered.insert(part, (host.clone(), Some(until))),
                        }
                        prop_assert_eq!(hosts.name(part), Some(host));
                    }
                    Err(_) => {
                        prop_assert_eq!(remembered.len(), 7);
                        let free = remembered.values().filter(|(_, memory)| memory.is_some_and(|until| until <= now));
                        prop_assert_eq!(free.count(), 0, "one is forgotten");
                    }
                },
            }
        }
    }

    /// The same where nobody forgets: no name has two addresses and no address two names.
    #[test]
    fn no_name_has_two_addresses_and_no_address_two_names(
        asked in proptest::collection::vec((0_u8..80, any::<bool>()), 1..200), small in any::<bool>(),
    ) {
        let cidr: postern_proto::bind::Cidr = if small { "10.0.0.0/25" } else { "100.72.0.0/16" }.parse().unwrap();
        let mut hosts = HostAddresses::new(cidr);
        let mut reference: BTreeMap<String, HostPart> = BTreeMap::new();
        for (host, restart) in asked {
            if restart {
                let kept = hosts.export();
                hosts = HostAddresses::new(cidr);
                prop_assert_eq!(hosts.import(kept), 0);
            }
            let host = format!("h{host}.x");
            match hosts.give(&host) {
                Ok(part) => {
                    prop_assert_eq!(*reference.entry(host.clone()).or_insert(part), part);
                    prop_assert_eq!(hosts.name(part), Some(host));
                }
                Err(_) => prop_assert!(small && reference.len() == 63 && !reference.contains_key(&host)),
            }
        }
        let parts: BTreeSet<_> = reference.values().collect();
        prop_assert_eq!(parts.len(), reference.len());
    }
}
