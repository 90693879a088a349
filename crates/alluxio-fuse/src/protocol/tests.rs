//! Requests as the kernel lays them out, answers against sizes and places of `fuse.h`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use proptest::prelude::*;

use super::reply::request;
use super::*;

const TTL: Duration = Duration::from_millis(1500);

fn file(inode: u64, length_bytes: u64) -> Attributes {
    Attributes {
        inode,
        kind: EntryKind::File,
        length_bytes,
        modified_ms: 1_700_000_000_123,
        mode: 0o444,
        uid: 1000,
        gid: 1001,
        is_being_written: false,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn a_lookup_names_its_entry() {
    let lookup = decode(&request(1, 7, 9, b"train.bin\0")).unwrap();
    let name = b"train.bin".to_vec();
    assert_eq!(
        lookup,
        Request {
            unique: 7,
            inode: 9,
            operation: Operation::Lookup { name }
        }
    );
}

#[test]
fn a_read_has_handle_offset_and_size() {
    let mut body = Vec::new();
    body.extend(5u64.to_ne_bytes());
    body.extend((1u64 << 40).to_ne_bytes());
    body.extend(4096u32.to_ne_bytes());
    body.extend([0; 20]);
    let read = decode(&request(15, 1, 2, &body)).unwrap();
    let range = Range {
        handle: 5,
        offset: 1 << 40,
        size: 4096,
    };
    assert_eq!(read.operation, Operation::Read(range));
}

#[test]
fn a_request_may_lie_in_a_larger_buffer() {
    let mut bytes = request(3, 1, 1, &[0; 16]);
    bytes.resize(REQUEST_BUFFER_BYTES as usize, 0xAA);
    assert_eq!(decode(&bytes).unwrap().operation, Operation::Getattr);
}

#[test]
fn what_cannot_be_answered_still_names_its_request() {
    let mut too_long = request(3, 77, 1, &[]);
    too_long[..4].copy_from_slice(&9000u32.to_ne_bytes());
    let no_name = request(1, 77, 1, b"endless");
    let empty_name = request(1, 77, 1, b"\0");
    let short_read = request(15, 77, 1, &[0; 12]);
    for broken in [too_long, no_name, empty_name, short_read] {
        assert_eq!(decode(&broken).unwrap_err().unique, Some(77));
    }
    assert_eq!(decode(&[1, 2, 3]).unwrap_err().unique, None);
}

/// Words, then bytes.
fn at(words: &[u32], rest: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    body.extend(rest);
    body
}

#[test]
fn changes_are_decoded() {
    let decoded = |opcode, body: &[u8]| decode(&request(opcode, 1, 1, body)).unwrap().operation;
    let name = |text: &[u8]| text.to_vec();
    let expected = [
        (
            9,
            at(&[0o755, 0], b"d\0"),
            Change::Mkdir { name: name(b"d") },
        ),
        (10, name(b"f\0"), Change::Unlink { name: name(b"f") }),
        (11, name(b"d\0"), Change::Rmdir { name: name(b"d") }),
        (
            35,
            at(&[0o101, 0o644, 0, 0], b"f\0"),
            Change::Create {
                name: name(b"f"),
                flags: 0o101,
            },
        ),
        (
            45,
            at(&[7, 0, 1, 0], b"old\0new\0"),
            Change::Rename {
                name: name(b"old"),
                new_parent: 7,
                new_name: name(b"new"),
                flags: 1,
            },
        ),
        (
            12,
            at(&[7, 0], b"old\0new\0"),
            Change::Rename {
                name: name(b"old"),
                new_parent: 7,
                new_name: name(b"new"),
                flags: 0,
            },
        ),
        (
            16,
            at(&[3, 0, 9, 0, 2, 0, 0, 0, 0, 0], b"hi"),
            Change::Write {
                handle: 3,
                offset: 9,
                bytes: name(b"hi"),
            },
        ),
        (
            4,
            at(&[1 << 3, 0, 0, 0, 77, 0], &[0; 64]),
            Change::Setattr {
                size: Some(Size { bytes: 77 }),
            },
        ),
        (
            4,
            at(&[1, 0, 0, 0, 77, 0], &[0; 64]),
            Change::Setattr { size: None },
        ),
        (6, name(b"l\0to\0"), Change::MakeSpecial),
        (21, Vec::new(), Change::SetAttribute),
        (43, Vec::new(), Change::Other),
    ];
    for (opcode, body, change) in expected {
        assert_eq!(
            decoded(opcode, &body),
            Operation::Change(change),
            "{opcode}"
        );
    }
}

#[test]
fn a_change_that_is_cut_off_is_refused() {
    // Bytes that the request does not have; a name without an end; a second one that is missing.
    for (opcode, body) in [
        (16, at(&[3, 0, 9, 0, 3, 0, 0, 0, 0, 0], b"hi")),
        (35, at(&[0, 0, 0, 0], b"f")),
        (12, at(&[7, 0], b"old\0")),
    ] {
        assert!(decode(&request(opcode, 1, 1, &body)).is_err(), "{opcode}");
    }
}

#[test]
fn forgets_want_no_answer() {
    for opcode in [2, 42, 41] {
        let forget = decode(&request(opcode, 1, 1, &[])).unwrap();
        assert!(!forget.operation.wants_answer(), "{opcode}");
    }
}

#[test]
fn init_takes_what_both_sides_know() {
    let mut body = Vec::new();
    for word in [7u32, 99, 131_072, u32::MAX, u32::MAX] {
        body.extend(word.to_ne_bytes());
    }
    let Operation::Init { minor, flags } = decode(&request(26, 2, 0, &body)).unwrap().operation
    else {
        panic!("not an INIT");
    };
    assert_eq!((minor, flags), (99, u64::MAX));
    let agreed = Init::negotiate(minor, 1 | 1 << 22 | 1 << 50, 1 << 20, 4096);
    assert_eq!((agreed.minor, agreed.flags), (45, 1 | 1 << 22));
    let answer = init(&agreed);
    assert_eq!(answer.len(), 64);
    // max_write after seven words and two half words, then time_gran and max_pages.
    assert_eq!(u32_at(&answer, 20), 4096);
    assert_eq!(&answer[28..30], 256u16.to_ne_bytes());
}

#[test]
fn an_old_kernels_init_has_half_the_flags() {
    let mut body = Vec::new();
    for word in [7u32, 33, 131_072, 1] {
        body.extend(word.to_ne_bytes());
    }
    let init = decode(&request(26, 2, 0, &body)).unwrap().operation;
    assert_eq!(
        init,
        Operation::Init {
            minor: 33,
            flags: 1
        }
    );
}

#[test]
fn answers_have_the_sizes_of_the_header_file() {
    assert_eq!(entry(&file(2, 1), TTL).len(), 128);
    assert_eq!(negative_entry(TTL).len(), 128);
    assert_eq!(attributes(&file(2, 1), TTL).len(), 104);
    let kept = OpenFlags {
        keep_cache: true,
        flush: false,
        backing_id: None,
    };
    assert_eq!(opened(1, kept)[8..], [0x22, 0, 0, 0, 0, 0, 0, 0]);
    let backed = OpenFlags {
        keep_cache: false,
        flush: false,
        backing_id: Some(7),
    };
    assert_eq!(opened(1, backed)[8..], [0xa0, 0, 0, 0, 7, 0, 0, 0]);
    let written_to = OpenFlags {
        flush: true,
        ..kept
    };
    assert_eq!(opened(1, written_to)[8..], [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(created(&file(2, 1), TTL, 1, written_to).len(), 144);
    assert_eq!(written(7).len(), 8);
    assert_eq!(statfs(1 << 30).len(), 80);
    assert_eq!(xattr_size(3).len(), 8);
}

#[test]
fn a_notification_names_the_entry_and_answers_nothing() {
    let message = invalid_entry(7, "ab");
    assert_eq!(u32_at(&message, 0) as usize, message.len());
    assert_eq!((u32_at(&message, 4), u64_at(&message, 8)), (3, 0));
    assert_eq!((u64_at(&message, 16), u32_at(&message, 24)), (7, 2));
    assert_eq!(&message[32..], b"ab\0");
}

#[test]
fn attributes_show_size_blocks_times_and_owner() {
    let answer = attributes(&file(2, 513), TTL);
    assert_eq!(u64_at(&answer, 0), 1);
    assert_eq!(u32_at(&answer, 8), 500_000_000);
    let attr = &answer[16..];
    assert_eq!(u64_at(attr, 0), 2);
    assert_eq!(u64_at(attr, 8), 513);
    assert_eq!(u64_at(attr, 16), 2, "blocks of 512 bytes");
    assert_eq!(u64_at(attr, 32), 1_700_000_000);
    assert_eq!(u32_at(attr, 52), 123_000_000);
    assert_eq!(u32_at(attr, 60), libc::S_IFREG | 0o444);
    assert_eq!((u32_at(attr, 68), u32_at(attr, 72)), (1000, 1001));
}

#[test]
fn what_is_being_written_is_asked_for_each_time_and_its_name_is_kept() {
    let written = Attributes {
        is_being_written: true,
        ..file(2, 513)
    };
    let answer = attributes(&written, TTL);
    assert_eq!((u64_at(&answer, 0), u32_at(&answer, 8)), (0, 0));
    let answer = entry(&written, TTL);
    assert_eq!((u64_at(&answer, 16), u32_at(&answer, 32)), (1, 500_000_000));
    assert_eq!((u64_at(&answer, 24), u32_at(&answer, 36)), (0, 0));
}

#[test]
fn an_error_header_carries_the_negative_number() {
    let bytes = header(9, libc::ENOENT, 0);
    assert_eq!(u32_at(&bytes, 0), 16);
    assert_eq!(u32_at(&bytes, 4).cast_signed(), -libc::ENOENT);
    assert_eq!(u64_at(&bytes, 8), 9);
}

#[test]
fn a_directory_answer_is_padded_and_stops_at_its_limit() {
    // 24 + 3 bytes are padded to 32, so three fit into 100 and the fourth does not.
    let mut packer = DirectoryPacker::new(100);
    for next in 1..=3 {
        assert!(packer.plain(10 + next, EntryKind::File, next, "abc"));
    }
    assert!(!packer.plain(14, EntryKind::File, 4, "abc"));
    let bytes = packer.finish();
    assert_eq!(bytes.len(), 96);
    assert_eq!((u64_at(&bytes, 32), u64_at(&bytes, 40)), (12, 2));
    assert_eq!(u32_at(&bytes, 48), 3);
    assert_eq!(&bytes[56..59], b"abc");
}

#[test]
fn a_plus_answer_puts_the_entry_before_the_name() {
    let mut packer = DirectoryPacker::new(400);
    assert!(packer.plus_dots(1, 1, "."));
    assert!(packer.plus(&file(5, 10), TTL, 2, "f"));
    assert!(!packer.plus(&file(6, 10), TTL, 3, "a name that no longer fits"));
    let bytes = packer.finish();
    assert_eq!(
        u64_at(&bytes, 0),
        0,
        "the kernel takes no reference to a dot"
    );
    assert_eq!(u64_at(&bytes, 128), 1);
    assert_eq!(u64_at(&bytes, 160), 5);
    assert_eq!(u64_at(&bytes, 160 + 128), 5);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        opcode in 0u32..60,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Err(error) = decode(&request(opcode, 3, 1, &body)) {
            prop_assert_eq!(error.unique, Some(3));
        }
    }

    #[test]
    fn packing_never_exceeds_its_limit(
        limit in 0u32..2000,
        names in proptest::collection::vec("[a-z]{1,40}", 0..40),
        plus in any::<bool>(),
    ) {
        let mut packer = DirectoryPacker::new(limit);
        for (next, name) in (1u64..).zip(&names) {
            let fitted = if plus {
                packer.plus(&file(next, 0), TTL, next, name)
            } else {
                packer.plain(next, EntryKind::File, next, name)
            };
            if !fitted {
                break;
            }
        }
        prop_assert!(packer.finish().len() <= limit as usize);
    }
}
