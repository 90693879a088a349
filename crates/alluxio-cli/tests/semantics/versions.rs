//! Promises about versions: of workers that know none, and of manifests.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::io::Errno;

use crate::left_out::can_mount;
use crate::scene::{Dataset, Mount, content};
use crate::{EXACT, MIB, errno};

/// A worker like Alluxio's open-source one that loaded a file some time ago: it tells and serves
/// what it had then, whatever version it is asked for, and closes the connection at all else.
struct OldCopy {
    address: String,
}

impl OldCopy {
    fn of(dataset: &Dataset, name: &str, bytes: Vec<u8>) -> Self {
        let modified = fs::metadata(dataset.path(name))
            .unwrap()
            .modified()
            .unwrap();
        let modified = modified.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let uri = format!("{}/{name}", dataset.uri());
        let status = format!(
            r#"[{{"mType":"file","mName":"{name}","mPath":"/{name}","mUfsPath":"{uri}","mLastModificationTimeMs":{modified},"mLength":{}}}]"#,
            bytes.len()
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (status, bytes) = (Arc::new(status.into_bytes()), Arc::new(bytes));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (status, bytes) = (Arc::clone(&status), Arc::clone(&bytes));
                std::thread::spawn(move || serve(&stream, &status, &bytes));
            }
        });
        Self { address }
    }
}

fn serve(stream: &TcpStream, status: &[u8], bytes: &[u8]) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let body = if request.contains("/v1/info") {
            Some(status)
        } else {
            let index = request.split("/page/").nth(1).map(|rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<usize>().unwrap()
            });
            index.and_then(|index| bytes.chunks(MIB).nth(index))
        };
        // The rest of the head.
        for line in lines.by_ref() {
            if line.is_empty() {
                break;
            }
        }
        let Some(body) = body else { return };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut writer = stream;
        if writer.write_all(&[head.as_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

#[test]
fn an_old_page_of_a_worker_that_knows_no_versions_is_never_served() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let (old, new) = (content(3 * MIB, 1), content(3 * MIB, 2));
    dataset.put("f", &old);
    let worker = OldCopy::of(&dataset, "f", old.clone());
    let fallbacks = "alluxio_client_fallback_total";
    let before = Mount::with_workers(&dataset, &[&worker.address], EXACT);
    assert!(before.read("f") == old);
    assert!(before.metric("alluxio_client_bytes_total", "source=\"worker\"") > 0.0);
    let first = fs::metadata(dataset.path("f")).unwrap().modified().unwrap();
    dataset.put("f", &new);
    // So that also a time in whole seconds tells them apart.
    let file = fs::File::options()
        .write(true)
        .open(dataset.path("f"))
        .unwrap();
    file.set_modified(first + Duration::from_secs(2)).unwrap();
    let after = Mount::with_workers(&dataset, &[&worker.address], EXACT);
    assert!(after.read("f") == new, "the worker's old pages");
    assert!(after.metric(fallbacks, "reason=\"stale\"") > 0.0);
    // What it is for: a client that is told not to ask is served the old pages.
    let options = format!("{{verify_worker_version: false, {}", &EXACT[1..]);
    let trusting = Mount::with_workers(&dataset, &[&worker.address], &options);
    assert!(trusting.read("f") == old);
}

#[test]
fn a_pinned_dataset_is_its_manifest() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let (old, new) = (content(3 * MIB, 1), content(2 * MIB, 2));
    dataset.put("kept", &old);
    dataset.put("replaced", &old);
    dataset.put("gone", &old);
    // The daemon, which is nobody, reads it.
    let file = std::env::temp_dir().join(format!("manifest-{}", std::process::id()));
    let created = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
        .args(["manifest", "create", &dataset.uri(), "--output"])
        .arg(&file)
        .env_remove("ALLUXIO_DATASET_CONFIG")
        .status();
    assert!(created.unwrap().success());
    let options = format!(
        "client: {{consistency: pinned, manifest: {{path: '{}'}}}}",
        file.display()
    );
    let mount = Mount::of(&dataset, &options);
    fs::remove_file(&file).unwrap();
    dataset.put("replaced", &new);
    dataset.put("new", &new);
    fs::remove_file(dataset.path("gone")).unwrap();
    assert!(mount.read("kept") == old);
    assert_eq!(mount.names(""), ["gone", "kept", "replaced"]);
    assert_eq!(errno(fs::metadata(mount.path("new"))), Errno::NOENT);
    for name in ["replaced", "gone"] {
        let length = fs::metadata(mount.path(name)).unwrap().len();
        assert_eq!(length, old.len() as u64, "{name}");
        assert_eq!(errno(fs::read(mount.path(name))), Errno::STALE, "{name}");
    }
}
