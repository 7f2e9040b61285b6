//! Which clients wait for which answer. Pure.
//!
//! Clients with the same question wait for one answer together: that spares the servers, and a server that asks us what
//! we ask it (a loop) waits for itself instead of making queries multiply.

use std::{collections::HashMap, hash::Hash};

/// Questions under way.
const MAX_QUESTIONS: usize = 512;
/// Clients that wait, over all questions.
const MAX_CLIENTS: usize = 2048;

/// What to do with a query that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Ask the servers, then call [`Pending::finish`].
    Ask,
    /// Its answer is on the way.
    Wait,
    /// There is no room: say so to the client.
    Full,
}

/// Keyed by all of the query's bytes but its id; each client by its address, port and id.
#[derive(Debug)]
pub(crate) struct Pending<C> {
    questions: HashMap<Vec<u8>, Vec<C>>,
    clients: usize,
}

impl<C> Default for Pending<C> {
    fn default() -> Self {
        Self { questions: HashMap::new(), clients: 0 }
    }
}

impl<C: Eq + Hash> Pending<C> {
    pub(crate) fn admit(&mut self, question: &[u8], client: C) -> Admission {
        if let Some(waiting) = self.questions.get_mut(question) {
            // A client that asks again.
            if waiting.contains(&client) {
                return Admission::Wait;
            }
            if self.clients >= MAX_CLIENTS {
                return Admission::Full;
            }
            waiting.push(client);
            self.clients += 1;
            return Admission::Wait;
        }
        if self.questions.len() >= MAX_QUESTIONS || self.clients >= MAX_CLIENTS {
            return Admission::Full;
        }
        self.questions.insert(question.to_vec(), vec![client]);
        self.clients += 1;
        Admission::Ask
    }

    /// The answer is there: who waited for it.
    pub(crate) fn finish(&mut self, question: &[u8]) -> Vec<C> {
        let waited = self.questions.remove(question).unwrap_or_default();
        self.clients -= waited.len();
        waited
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_asks_and_the_others_wait_with_it() {
        let mut pending = Pending::default();
        assert_eq!(pending.admit(b"a", 1), Admission::Ask);
        assert_eq!(pending.admit(b"a", 2), Admission::Wait);
        assert_eq!(pending.admit(b"a", 1), Admission::Wait, "asked again");
        assert_eq!(pending.admit(b"b", 1), Admission::Ask);
        assert_eq!(pending.finish(b"a"), [1, 2]);
        assert!(pending.finish(b"a").is_empty());
        assert_eq!(pending.admit(b"a", 3), Admission::Ask);
    }

    #[test]
    fn questions_and_clients_are_bounded() {
        let mut pending = Pending::default();
        for question in 0..MAX_QUESTIONS {
            assert_eq!(pending.admit(&question.to_be_bytes(), 0), Admission::Ask);
        }
        assert_eq!(pending.admit(b"one more", 0), Admission::Full);
        for client in 1..=MAX_CLIENTS - MAX_QUESTIONS {
            assert_eq!(pending.admit(&0_usize.to_be_bytes(), client), Admission::Wait);
        }
        assert_eq!(pending.admit(&0_usize.to_be_bytes(), MAX_CLIENTS), Admission::Full);
        assert_eq!(pending.finish(&0_usize.to_be_bytes()).len(), MAX_CLIENTS - MAX_QUESTIONS + 1);
        assert_eq!(pending.admit(b"one more", 0), Admission::Ask);
    }

    proptest! {
        #[test]
        fn every_client_is_answered_once_per_question(steps in proptest::collection::vec((0_u8..5, 0_u8..6, any::<bool>()), 0..200)) {
            let mut pending = Pending::default();
            let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
            for (question, client, finish) in steps {
                if finish {
                    prop_assert_eq!(pending.finish(&[question]), model.remove(&question).unwrap_or_default());
                } else {
                    let expected = if model.contains_key(&question) { Admission::Wait } else { Admission::Ask };
                    prop_assert_eq!(pending.admit(&[question], client), expected);
                    let waiting = model.entry(question).or_default();
                    if !waiting.contains(&client) {
                        waiting.push(client);
                    }
                }
                prop_assert_eq!(pending.clients, model.values().map(Vec::len).sum::<usize>());
            }
        }
    }
}
