//! Ctrl-C in the middle of a transfer: the exit code says so, nothing half done has the file's name,
//! and the same command goes on from what came.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// The file that is fetched: four pages.
const FILE_BYTES: usize = 4 << 20;
/// Of these the server gives what comes before, and then nothing more as long as it holds back.
const HELD_BACK_FROM: usize = 2 << 20;

fn content() -> Vec<u8> {
    (0..=250_u8)
        .flat_map(|byte| [byte; 64])
        .cycle()
        .take(FILE_BYTES)
        .collect()
}

/// A web server with one file, of which it holds the second half back until it is told.
struct Server {
    address: String,
    /// Told when somebody waits for what is held back.
    reached: Receiver<()>,
    released: Arc<Mutex<bool>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (reach, reached) = channel();
        let released = Arc::new(Mutex::new(false));
        let state = Arc::clone(&released);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (reach, released) = (reach.clone(), Arc::clone(&state));
                std::thread::spawn(move || serve(stream.unwrap(), &reach, &released));
            }
        });
        Self {
            address,
            reached,
            released,
        }
    }
}

fn serve(mut stream: TcpStream, reach: &Sender<()>, released: &Mutex<bool>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let content = content();
    while let Some(Ok(request)) = lines.next() {
        let mut range = None;
        for line in lines.by_ref().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(given) = line.strip_prefix("range: bytes=") {
                let (start, end) = given.split_once('-').unwrap();
                let end = end.parse().map_or(FILE_BYTES, |last: usize| last + 1);
                range = Some(start.parse().unwrap()..end.min(FILE_BYTES));
            }
        }
        let (status, part) = match range {
            Some(range) => ("206 Partial Content", range),
            None => ("200 OK", 0..FILE_BYTES),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {}-{}/{FILE_BYTES}\r\n\
             accept-ranges: bytes\r\netag: \"one\"\r\n\
             last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
            part.len(),
            part.start,
            part.end - 1,
        );
        let sent = stream.write_all(head.as_bytes());
        if request.starts_with("HEAD ") {
            continue;
        }
        let holds_back = part.end > HELD_BACK_FROM && !*released.lock().unwrap();
        let until = if holds_back {
            part.end.min(HELD_BACK_FROM)
        } else {
            part.end
        };
        let sent = sent.and_then(|()| stream.write_all(&content[part.start.min(until)..until]));
        if holds_back {
            // Whoever waits closes the connection when it gives up.
            let _ = reach.send(());
            let _ = lines.next();
            return;
        }
        if sent.is_err() {
            return;
        }
    }
}

fn download(server: &Server, to: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"));
    command
        .env_remove("ALLUXIO_DATASET_CONFIG")
        .env_remove("ALLUXIO_DATASET_LOG")
        .arg("download")
        .arg(format!("http://{}/file", server.address))
        .arg(to)
        .args(["--resume"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_interrupted_download_leaves_no_file_and_goes_on_with_resume() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");

    let child = download(&server, &target).spawn().unwrap();
    server.reached.recv().unwrap();
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert!(told(&output).contains("--resume"), "{}", told(&output));
    assert!(!target.exists());

    *server.released.lock().unwrap() = true;
    let output = download(&server, &target).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(std::fs::read(&target).unwrap() == content());
}
