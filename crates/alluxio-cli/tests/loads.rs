//! Loads over real worker processes, some of which are killed in the middle.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const FILES: u64 = 60;
const PAGE: usize = 64 * 1024;

/// A worker process; killed with SIGKILL.
struct WorkerProcess {
    child: Child,
    port: u16,
    config: String,
}

impl WorkerProcess {
    fn start(folder: &Path, port: u16, ports: &[u16]) -> Self {
        let workers: Vec<String> = ports.iter().map(|p| format!("'127.0.0.1:{p}'")).collect();
        let text = format!(
            "ufs: {{uri: 'file://{data}'}}\n\
             cluster: {{membership: {{type: static, workers: [{workers}]}}}}\n\
             client: {{page_size: 64Ki}}\n\
             worker: {{listen: '127.0.0.1:{port}', page_store: {{directory: '{store}', \
             capacity: 64Mi}}}}\n",
            data = folder.join("data").display(),
            workers = workers.join(", "),
            store = folder.join(format!("store-{port}")).display(),
        );
        let config = folder.join(format!("{port}.yaml"));
        std::fs::write(&config, text).unwrap();
        let config = config.display().to_string();
        let mut worker = Self {
            child: spawn(&config),
            port,
            config,
        };
        worker.wait_for_health();
        worker
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(&self.config);
        self.wait_for_health();
    }

    fn wait_for_health(&mut self) {
        until("the worker is up", || get(self.port, "/v1/health"));
    }

    /// How far the load of the root is, if this worker coordinates it.
    fn progress(&self, folder: &Path) -> Option<Value> {
        let root = folder.join("data").display().to_string();
        let target = format!("/v1/load?path=file://{root}&opType=progress&progressFormat=JSON");
        let body = get(self.port, &target)?;
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer.get("progress").cloned()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
        .args(["worker", "--config", config])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The body of a GET, if there is a whole answer.
fn get(port: u16, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {target} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// Files of one page each, and three workers over them.
fn cluster() -> (TempDir, Vec<WorkerProcess>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for number in 0..FILES {
        let path = folder.path().join(format!("data/{number:03}"));
        std::fs::write(path, vec![u8::try_from(number).unwrap(); PAGE]).unwrap();
    }
    let listeners: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports = listeners.iter().map(|l| l.local_addr().unwrap().port());
    let ports: Vec<u16> = ports.collect();
    drop(listeners);
    let start = |port: &u16| WorkerProcess::start(folder.path(), *port, &ports);
    let workers = ports.iter().map(start).collect();
    (folder, workers)
}

/// `load` of the whole dataset, slow enough to be met at work.
fn load(workers: &[WorkerProcess], arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
        .args(["load", "--config", &workers[0].config, "--json"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until some files are loaded; the number of the worker that coordinates.
fn coordinator(folder: &Path, workers: &[WorkerProcess]) -> usize {
    until("some files are loaded", || {
        workers.iter().position(|worker| {
            let progress = worker.progress(folder);
            progress.is_some_and(|p| p["filesDone"].as_u64().unwrap() > 5)
        })
    })
}

/// The last line of `--json`, of a command that must end well.
fn ended(command: Child) -> Value {
    let output = command.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn assert_complete(end: &Value) {
    assert_eq!(end["state"], "SUCCEEDED", "{end}");
    assert_eq!(end["filesTotal"], FILES, "{end}");
    assert_eq!(end["filesDone"], FILES, "{end}");
    assert_eq!(end["bytesDone"], FILES * PAGE as u64, "{end}");
    assert_eq!(end["failureCount"], 0, "{end}");
}

#[test]
fn a_killed_coordinator_goes_on_by_itself_when_it_starts_again() {
    let (folder, mut workers) = cluster();
    let submitted = load(&workers, &["--bandwidth", "128Ki", "--no-wait"]);
    assert!(submitted.wait_with_output().unwrap().status.success());
    let killed = coordinator(folder.path(), &workers);
    workers[killed].kill();
    workers[killed].start_again();
    let resumed = workers[killed].progress(folder.path());
    assert!(resumed.is_some(), "it has forgotten the load");
    assert_complete(&ended(load(&workers, &["--progress"])));
}

#[test]
fn a_killed_worker_leaves_its_files_to_the_others() {
    let (folder, mut workers) = cluster();
    let following = load(&workers, &["--bandwidth", "128Ki"]);
    let coordinator = coordinator(folder.path(), &workers);
    workers[(coordinator + 1) % 3].kill();
    assert_complete(&ended(following));
}

#[test]
fn who_follows_a_load_outlives_its_coordinator() {
    let (folder, mut workers) = cluster();
    let following = load(&workers, &["--bandwidth", "128Ki"]);
    let killed = coordinator(folder.path(), &workers);
    workers[killed].kill();
    assert_complete(&ended(following));
}

#[test]
fn a_stopped_load_says_so_by_its_exit_code() {
    let (folder, workers) = cluster();
    let following = load(&workers, &["--bandwidth", "64Ki"]);
    coordinator(folder.path(), &workers);
    assert!(
        load(&workers, &["--stop"])
            .wait_with_output()
            .unwrap()
            .status
            .success()
    );
    let output = following.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let now = load(&workers, &["--progress", "--no-wait"]);
    let now = now.wait_with_output().unwrap();
    assert_eq!(now.status.code(), Some(3));
}
