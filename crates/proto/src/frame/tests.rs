use proptest::prelude::*;

use super::*;

/// A frame as a value, to compare what was read with what was written.
#[derive(Clone, Debug, PartialEq)]
enum Frame {
    Text(Kind, Vec<u8>),
    Data(Vec<u8>),
    End,
    Done,
    Over(u64),
    Last,
    Reset(ResetCode),
}

fn write(frame: &Frame) -> Vec<u8> {
    let (kind, payload) = match frame {
        Frame::Text(kind, text) => (*kind, text.clone()),
        Frame::Data(data) => (Kind::Data, data.clone()),
        Frame::End => return END.to_vec(),
        Frame::Done => return DONE.to_vec(),
        Frame::Over(handed) => return over(*handed).to_vec(),
        Frame::Last => return LAST.to_vec(),
        Frame::Reset(code) => return code.frame().to_vec(),
    };
    let mut bytes = Header::new(kind, payload.len()).unwrap().write().to_vec();
    bytes.extend(payload);
    bytes
}

/// Reads everything that comes in `chunks`, keeping what was not taken, and joins the parts of neighbouring data.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<Frame>, usize), FrameError> {
    let (mut reader, mut kept, mut frames) = (Reader::default(), Vec::new(), Vec::new());
    for chunk in chunks {
        kept.extend_from_slice(chunk);
        let mut at = 0;
        while let Some((piece, taken)) = reader.next(&kept[at..])? {
            at += taken;
            match (piece, frames.last_mut()) {
                (Piece::Data(data), Some(Frame::Data(all))) => all.extend_from_slice(data),
                (Piece::Data(data), _) => frames.push(Frame::Data(data.to_vec())),
                (Piece::Head(text), _) => frames.push(Frame::Text(Kind::Head, text.to_vec())),
                (Piece::Reply(text), _) => frames.push(Frame::Text(Kind::Reply, text.to_vec())),
                (Piece::End, _) => frames.push(Frame::End),
                (Piece::Done, _) => frames.push(Frame::Done),
                (Piece::Over(handed), _) => frames.push(Frame::Over(handed)),
                (Piece::Last, _) => frames.push(Frame::Last),
                (Piece::Reset(code), _) => frames.push(Frame::Reset(code)),
            }
        }
        kept.drain(..at);
    }
    Ok((frames, kept.len()))
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..600);
    let frame = prop_oneof![
        bytes().prop_map(|text| Frame::Text(Kind::Head, text)),
        bytes().prop_map(|text| Frame::Text(Kind::Reply, text)),
        bytes().prop_map(Frame::Data),
        Just(Frame::End),
        Just(Frame::Done),
        any::<u64>().prop_map(Frame::Over),
        Just(Frame::Last),
        prop::sample::select(ResetCode::ALL.as_slice()).prop_map(Frame::Reset),
    ];
    prop::collection::vec(frame, 0..20)
}

fn joined(frames: &[Frame]) -> Vec<Frame> {
    let mut all = Vec::new();
    for frame in frames {
        match (frame, all.last_mut()) {
            (Frame::Data(data), Some(Frame::Data(before))) => before.extend(data),
            (frame, _) => all.push(frame.clone()),
        }
    }
    all
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut(
        frames in frames(),
        cuts in prop::collection::vec(1usize..300, 1..40),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(write).collect();
        let (mut chunks, mut rest) = (Vec::new(), bytes.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        prop_assert_eq!(read(chunks), Ok((joined(&frames), 0)));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_never_beyond_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::default();
        let mut at = 0;
        while let Ok(Some((_, taken))) = reader.next(&bytes[at..]) {
            prop_assert!(taken > 0);
            at += taken;
            prop_assert!(at <= bytes.len());
        }
    }
}

proptest! {
    #[test]
    fn passing_over_a_part_of_the_data_leaves_the_rest(
        sizes in prop::collection::vec(1usize..50, 1..10),
        part in 0usize..600,
    ) {
        let data: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| n.to_le_bytes()[0]).collect();
        let (mut bytes, mut at) = (Vec::new(), 0);
        for size in sizes {
            bytes.extend(write(&Frame::Data(data[at..at + size].to_vec())));
            at += size;
        }
        let part = part.min(data.len());
        let mut reader = Reader::default();
        let mut at = reader.advance(&bytes, part).unwrap();
        let mut rest = Vec::new();
        while let Some((Piece::Data(piece), taken)) = reader.next(&bytes[at..]).unwrap() {
            rest.extend_from_slice(piece);
            at += taken;
        }
        prop_assert_eq!(&rest, &data[part..]);
    }
}

#[test]
fn a_length_that_does_not_fit_the_type_is_refused_before_anything_is_read() {
    let too_long = |kind: Kind, length: usize| {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        Header::read([kind as u8, a, b, c])
    };
    for (kind, length) in [
        (Kind::Head, 0),
        (Kind::Head, MAX_TEXT + 1),
        (Kind::Reply, 0),
        (Kind::Reply, MAX_TEXT + 1),
        (Kind::Data, 0),
        (Kind::Data, MAX_DATA + 1),
        (Kind::End, 1),
        (Kind::Done, 1),
        (Kind::Over, 0),
        (Kind::Over, 9),
        (Kind::Last, 1),
        (Kind::Reset, 0),
        (Kind::Reset, 3),
    ] {
        assert!(too_long(kind, length).is_err(), "{kind:?} {length}");
    }
    for kind in [0, 9, 10, 22, 23, b'G', 255] {
        assert_eq!(Header::read([kind, 0, 0, 0]), Err(FrameError::UnknownKind(kind)));
    }
}

#[test]
fn the_longest_frames_are_taken() {
    for (kind, length) in [(Kind::Head, MAX_TEXT), (Kind::Reply, MAX_TEXT), (Kind::Data, MAX_DATA)] {
        let header = Header::new(kind, length).unwrap();
        assert_eq!(Header::read(header.write()), Ok(header));
    }
}

#[test]
fn an_unknown_reset_code_is_still_a_reset() {
    let mut frame = ResetCode::Internal.frame();
    frame[4..].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(Reader::default().next(&frame), Ok(Some((Piece::Reset(ResetCode::Internal), 6))));
}
