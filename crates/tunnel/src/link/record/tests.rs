use proptest::prelude::*;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;

/// Two ends of one direction. (A key of 16 bytes cannot be made outside rustls; AES-128 is tested with real handshakes.)
fn keys(chacha: bool, sequence: u64) -> (Key, Key) {
    let make = || {
        let (key, iv) = (AeadKey::from([9; 32]), Iv::from([3; 12]));
        let secrets = if chacha {
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
        } else {
            ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        };
        Key::new((sequence, secrets)).unwrap()
    };
    (make(), make())
}

fn seal(key: &mut Key, content: Content, text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let (header, tail) = key.seal(content, &mut text).unwrap();
    [header.as_slice(), &text, &tail].concat()
}

fn open(key: &mut Key, record: &[u8]) -> Result<(Content, Vec<u8>), RecordError> {
    let mut text = vec![0xaa; record.len()];
    let (content, size) = key.open(record, &mut text)?;
    text.truncate(size);
    Ok((content, text))
}

proptest! {
    #[test]
    fn records_are_opened_as_they_were_sealed_and_in_their_order(
        chacha: bool,
        sequence in any::<u64>().prop_filter("room for more", |sequence| *sequence < u64::MAX - 10),
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..5),
    ) {
        let (mut sealing, mut opening) = keys(chacha, sequence);
        let records: Vec<_> = texts.iter().map(|text| seal(&mut sealing, Content::Data, text)).collect();
        for (record, text) in records.iter().zip(&texts) {
            prop_assert_eq!(length(record), Ok(Some(record.len())));
            prop_assert_eq!(open(&mut opening, record), Ok((Content::Data, text.clone())));
        }
        // The first one again: its number is used up.
        prop_assert_eq!(open(&mut opening, &records[0]), Err(RecordError::BadSeal));
    }

    #[test]
    fn a_record_with_one_bit_changed_is_not_opened(
        chacha: bool,
        text in prop::collection::vec(any::<u8>(), 0..200),
        at: prop::sample::Index,
        bit in 0..8u8,
    ) {
        let (mut sealing, mut opening) = keys(chacha, 5);
        let mut record = seal(&mut sealing, Content::Data, &text);
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        prop_assert!(open(&mut opening, &record).is_err());
    }

    #[test]
    fn any_bytes_are_no_record_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = length(&bytes);
        prop_assert!(open(&mut keys(false, 0).1, &bytes).is_err());
    }
}

#[test]
fn padding_is_taken_off_and_nothing_but_padding_is_refused() {
    for (text, expected) in [
        (b"abc\x17\0\0\0".as_slice(), Ok((Content::Data, b"abc".to_vec()))),
        (b"\x15\0".as_slice(), Ok((Content::Alert, vec![]))),
        (b"ab\0\x16".as_slice(), Ok((Content::Handshake, b"ab\0".to_vec()))),
        (b"abc\x14".as_slice(), Err(RecordError::BadContent)),
        (b"\0\0\0".as_slice(), Err(RecordError::BadContent)),
    ] {
        let (sealing, mut opening) = keys(false, 0);
        let header = header(text.len() + MAX_TAG_LEN).unwrap();
        let mut sealed = text.to_vec();
        let nonce = Nonce::assume_unique_for_key([3; 12]);
        let tag = sealing.aead.seal_in_place_separate_tag(nonce, Aad::from(header), &mut sealed).unwrap();
        let record = [header.as_slice(), &sealed, tag.as_ref()].concat();
        assert_eq!(open(&mut opening, &record), expected, "{text:?}");
    }
}

#[test]
fn headers_that_no_record_has_are_refused() {
    for bad in [
        [22, 3, 3, 0, 40],
        [20, 3, 3, 0, 1],
        [23, 3, 1, 0, 40],
        [23, 2, 3, 0, 40],
        [23, 3, 3, 0, 16],
        [23, 3, 3, 0x41, 1],
        [23, 3, 3, 0xff, 0xff],
    ] {
        assert_eq!(length(&bad), Err(RecordError::BadHeader), "{bad:?}");
    }
    assert_eq!(length(&[23, 3, 3, 0]), Ok(None));
    assert_eq!(length(&[23, 3, 3, 0x41, 0]), Ok(Some(HEADER + MOST)));
}

#[test]
fn a_key_whose_numbers_are_used_up_seals_nothing_more() {
    let (mut sealing, _) = keys(false, u64::MAX - 1);
    assert!(sealing.seal(Content::Data, &mut [1]).is_ok());
    assert_eq!(sealing.seal(Content::Data, &mut [1]), Err(RecordError::UsedUp));
}
