//! What holds for any text that a peer may send as head or reply.

use postern_proto::head::{Reply, Request};

/// What is read can be written, and reads back the same; nothing in it can forge a line.
pub(crate) fn check(text: &[u8]) {
    if let Ok(request) = Request::read(text) {
        let written = request.write();
        assert_eq!(Request::read(&written), Ok(request.clone()));
        assert!(!request.host().contains(char::is_control) && !request.lease().contains(char::is_control));
        let lines = if request.wanted().host.is_some() { 6 } else { 5 };
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), lines);
    }
    if let Ok(reply) = Reply::read(text) {
        // A problem that nearly fills a reply may not fit into ours.
        if text.len() <= 4096 {
            assert_eq!(Reply::read(&reply.write()), Ok(reply.clone()));
        }
        if let Reply::Refused(refused) = reply {
            assert!(!refused.to_string().contains(char::is_control));
            assert!((400..=599).contains(&refused.problem.status));
        }
    }
}
