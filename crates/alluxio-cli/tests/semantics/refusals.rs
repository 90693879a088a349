//! What cannot be mounted is refused in words, and a mount that stands goes on.

use crate::MIB;
use crate::bucket::Bucket;
use crate::left_out::can_mount;
use crate::scene::{Dataset, Mount, content};

/// What follows a good `ufs`, and what the refusal must say: object, cause, remedy.
const BAD_OPTIONS: &[(&str, [&str; 3])] = &[
    (
        "client: {page_size: 0}",
        ["client.page_size", "of 0 bytes", "a multiple of 64 KiB"],
    ),
    (
        "client: {page_size: 3000Ki}",
        [
            "client.page_size",
            "of 3072000 bytes",
            "a multiple of 64 KiB",
        ],
    ),
    (
        "client: {page_size: 128Mi}",
        ["client.page_size", "of 134217728 bytes", "at most 64 MiB"],
    ),
    (
        "client: {virtual_nodes_per_worker: 0}",
        ["client.virtual_nodes_per_worker", "0", "1 to 100000"],
    ),
    (
        "client: {virtual_nodes_per_worker: 100001}",
        ["client.virtual_nodes_per_worker", "100001", "1 to 100000"],
    ),
    (
        "client: {pagesize: 1Mi}",
        ["client", "unknown field `pagesize`", "expected one of"],
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: ['http://127.0.0.1:1']}}",
        ["http://127.0.0.1:1", "refused", "check the endpoints"],
    ),
];

/// URIs, and what the refusal must say.
const BAD_URIS: &[(&str, [&str; 3])] = &[
    (
        "nope",
        ["ufs.uri", "`nope` has no scheme", "write it in full"],
    ),
    ("s3:///x", ["ufs.uri", "no bucket", "s3://bucket/prefix"]),
    (
        "s3://key:hunter2@bucket/x",
        ["ufs.uri", "holds credentials", "take them out"],
    ),
    (
        "file:///no/such/folder",
        [
            "file:///no/such/folder",
            "nothing has this name",
            "check the name",
        ],
    ),
];

#[test]
fn what_cannot_be_mounted_is_refused_and_other_mounts_go_on() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(64 * MIB, 1);
    dataset.put("f", &bytes);
    let standing = Mount::of(&dataset, "");
    let forbidden = Bucket::of(&[("data/f", "text")]);
    forbidden.refuse();
    let empty = Bucket::of(&[]);

    let mut cases: Vec<(String, [&str; 3])> = Vec::new();
    for (options, says) in BAD_OPTIONS {
        let uri = dataset.uri();
        cases.push((format!("ufs: {{uri: '{uri}'}}\n{options}"), *says));
    }
    for (uri, says) in BAD_URIS {
        cases.push((format!("ufs: {{uri: '{uri}'}}"), *says));
    }
    let refused = ["s3://bucket/data", "(403)", "give the dataset credentials"];
    cases.push((forbidden.ufs("data"), refused));
    let missing = [
        "s3://bucket/data",
        "nothing has this name",
        "check the name",
    ];
    cases.push((empty.ufs("data"), missing));

    for (number, (config, says)) in cases.iter().enumerate() {
        let message = Mount::refusal(config);
        for part in says {
            assert!(message.contains(part), "{config}: no {part} in: {message}");
        }
        assert!(!message.contains("hunter2"), "{message}");
        let place = number * 4 * MIB;
        let read = crate::part(&standing.open("f"), place, 4096).unwrap();
        assert!(read == bytes[place..place + 4096], "after {config}");
    }
}
