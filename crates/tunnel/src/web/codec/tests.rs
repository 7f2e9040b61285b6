use proptest::prelude::*;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{Role, WebSocket},
};

use super::*;

/// What a decoder makes of `bytes` that come in pieces of these sizes.
fn decode(end: End, bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, Decoder), FrameError> {
    let mut decoder = Decoder::at(end);
    let (mut all, mut rest) = (Vec::new(), bytes);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len()));
        let mut piece = piece.to_vec();
        let count = decoder.decode(&mut piece)?;
        all.extend_from_slice(&piece[..count]);
        rest = after;
    }
    Ok((all, decoder))
}

fn frame(opcode: Opcode, mask_key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let (header, length) = header(opcode, payload.len(), mask_key);
    let mut frame = header[..length].to_vec();
    frame.extend_from_slice(payload);
    if let Some(key) = mask_key {
        mask(key, &mut frame[length..]);
    }
    frame
}

fn binary() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let length = prop_oneof![0..4_usize, 120..130_usize, 65_530..65_540_usize];
    prop::collection::vec(length.prop_map(|length| (0..length).map(|n| ((n * 7) >> 2) as u8).collect()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_framed_at_one_end_comes_out_at_the_other_however_it_is_cut(
        messages in binary(),
        key in any::<[u8; 4]>(),
        sizes in prop::collection::vec(1..70_000_usize, 1..5),
        from_client in any::<bool>(),
    ) {
        let (end, key) = if from_client { (End::Node, Some(key)) } else { (End::Client, None) };
        let mut bytes = Vec::new();
        for message in &messages {
            bytes.extend(frame(Opcode::Binary, key, message));
            bytes.extend(frame(Opcode::Ping, key, b"still there?"));
            bytes.extend(frame(Opcode::Pong, key, b""));
        }
        let (all, decoder) = decode(end, &bytes, &sizes).unwrap();
        prop_assert_eq!(all, messages.concat());
        prop_assert_eq!(decoder.ping.as_deref(), Some(b"still there?".as_slice()));
        prop_assert!(!decoder.closed && decoder.is_between_data());
    }

    #[test]
    fn another_implementation_writes_what_is_read_here(messages in binary(), from_client in any::<bool>()) {
        let (end, role) = if from_client { (End::Node, Role::Client) } else { (End::Client, Role::Server) };
        let mut other = WebSocket::from_raw_socket(std::io::Cursor::new(Vec::new()), role, None);
        for message in &messages {
            other.send(Message::binary(message.clone())).unwrap();
        }
        let (all, _) = decode(end, other.get_ref().get_ref(), &[1000, 1]).unwrap();
        prop_assert_eq!(all, messages.concat());
    }

    #[test]
    fn another_implementation_reads_what_is_written_here(
        messages in binary(),
        key in any::<[u8; 4]>(),
        from_client in any::<bool>(),
    ) {
        let (role, key) = if from_client { (Role::Server, Some(key)) } else { (Role::Client, None) };
        let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(Opcode::Binary, key, message)).collect();
        let mut other = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), role, None);
        for message in messages {
            prop_assert_eq!(other.read().unwrap(), Message::binary(message));
        }
    }

    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        sizes in prop::collection::vec(1..20_usize, 1..5),
    ) {
        for end in [End::Client, End::Node] {
            let whole = decode(end, &bytes, &[usize::MAX]).map(|(all, _)| all);
            let parts = decode(end, &bytes, &sizes).map(|(all, _)| all);
            prop_assert_eq!(whole, parts);
        }
    }
}

#[test]
fn a_message_may_come_in_fragments_with_control_frames_between() {
    let mut bytes = frame(Opcode::Binary, None, b"one ");
    bytes[0] &= 0x7f;
    bytes.extend(frame(Opcode::Ping, None, b"?"));
    bytes.extend(frame(Opcode::Continuation, None, b"two"));
    let (all, decoder) = decode(End::Client, &bytes, &[3]).unwrap();
    assert_eq!((all.as_slice(), decoder.ping.as_deref()), (b"one two".as_slice(), Some(b"?".as_slice())));
}

#[test]
fn what_comes_after_a_close_is_passed_over() {
    let bytes = [frame(Opcode::Binary, None, b"in"), frame(Opcode::Close, None, &[3, 0xe8]), b"out".to_vec()].concat();
    let (all, decoder) = decode(End::Client, &bytes, &[4]).unwrap();
    assert_eq!(all, b"in");
    assert!(decoder.closed);
}

#[test]
fn frames_that_the_carrier_does_not_use_are_refused() {
    let key = Some([1, 2, 3, 4]);
    let cases: [(End, Vec<u8>, FrameError); 9] = [
        (End::Client, vec![0x81, 1, b'x'], FrameError::Kind),
        (End::Client, vec![0x80, 1, b'x'], FrameError::Kind),
        (End::Client, vec![0xc2, 1, b'x'], FrameError::Kind),
        (End::Client, vec![0x09, 0], FrameError::Kind),
        (End::Client, vec![0x02, 0, 0x82, 0], FrameError::Kind),
        (End::Client, frame(Opcode::Binary, key, b"x"), FrameError::Mask),
        (End::Node, frame(Opcode::Binary, None, b"x"), FrameError::Mask),
        (End::Client, vec![0x89, 126, 0, 200], FrameError::Length),
        (End::Client, vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
    ];
    for (end, bytes, error) in cases {
        assert_eq!(decode(end, &bytes, &[1]).map(|(all, _)| all), Err(error), "{bytes:?}");
    }
    let too_long = [vec![0x82, 126, 0, 5], vec![0x82, 127, 0, 0, 0, 0, 0, 0, 1, 0]];
    for bytes in too_long {
        assert_eq!(decode(End::Client, &bytes, &[1]).map(|(all, _)| all), Err(FrameError::Length), "{bytes:?}");
    }
}
