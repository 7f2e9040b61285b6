//! What holds for any bytes that a peer may send as frames.

use postern_proto::frame::{FrameError, MAX_DATA, MAX_TEXT, Piece, Reader};

/// Frames, neighbouring data joined, and what was left unread or the mistake that ended it.
type Frames = (Vec<(u8, Vec<u8>)>, Result<Vec<u8>, FrameError>);

/// Reads everything that comes in `chunks`.
fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Frames {
    let (mut reader, mut kept, mut pieces) = (Reader::default(), Vec::new(), Vec::<(u8, Vec<u8>)>::new());
    for chunk in chunks {
        kept.extend_from_slice(chunk);
        let mut at = 0;
        loop {
            let before = reader;
            let (piece, taken) = match reader.next(&kept[at..]) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => return (pieces, Err(error)),
            };
            assert!(taken > 0 && at + taken <= kept.len());
            match piece {
                Piece::Data(data) => {
                    assert!((1..=MAX_DATA).contains(&data.len()));
                    // To pass over the data leads to where reading it leads.
                    let mut passing = before;
                    assert_eq!(passing.advance(&kept[at..], data.len()), Ok(taken));
                    assert_eq!(passing, reader);
                    match pieces.last_mut() {
                        Some((0, all)) => all.extend_from_slice(data),
                        _ => pieces.push((0, data.to_vec())),
                    }
                }
                Piece::Head(text) | Piece::Reply(text) => {
                    assert!((1..=MAX_TEXT).contains(&text.len()));
                    pieces.push((1, text.to_vec()));
                }
                Piece::End => pieces.push((2, vec![])),
                Piece::Done => pieces.push((3, vec![])),
                Piece::Over(handed) => pieces.push((5, handed.to_be_bytes().to_vec())),
                Piece::Last => pieces.push((6, vec![])),
                Piece::Reset(code) => pieces.push((4, code.frame().to_vec())),
            }
            at += taken;
        }
        kept.drain(..at);
    }
    (pieces, Ok(kept))
}

/// However the bytes are cut, they read as the same frames, up to the same mistake.
pub(crate) fn check(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let whole = read(std::iter::once(bytes));
    let parts = read(bytes.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, parts);
}
