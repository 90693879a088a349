//! What the tests of a mount's promises act on: a folder, workers, and a mount of the real binary.
//!
//! Everything ends with its value: mounts are unmounted, processes are waited for.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a process may take to start or end, on a machine that is busy with a build.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at a state that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A folder that is served as a dataset.
pub(crate) struct Dataset {
    folder: TempDir,
}

/// A worker process.
pub(crate) struct Worker {
    child: Child,
    /// `host:port`.
    pub(crate) address: String,
    _folder: TempDir,
}

/// A mount, by a process of the real binary.
pub(crate) struct Mount {
    child: Child,
    folder: TempDir,
}

/// Waits until `is_so`; `what` names it in the failure.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(LOOK_INTERVAL);
    }
}

/// Bytes of which no two words are equal, and none is equal to that of another seed.
pub(crate) fn content(length: usize, seed: u64) -> Vec<u8> {
    let words = (0..=length as u64 / 8).map(|word| (seed << 40) + word);
    let mut bytes: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// Reads a part of a file; fails where it has fewer bytes.
pub(crate) fn part(file: &File, offset: usize, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset as u64)?;
    Ok(bytes)
}

/// An extended attribute; none where the file has no such attribute.
pub(crate) fn xattr(path: &Path, name: &str) -> Option<String> {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value).ok()?;
    Some(String::from_utf8_lossy(&value[..length]).into_owned())
}

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"));
    program
        .env_remove("ALLUXIO_DATASET_CONFIG")
        .env_remove("ALLUXIO_DATASET_LOG")
        .stdout(Stdio::null());
    program
}

/// A folder that the daemon's user may enter.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    // A process that has ended is as good as one that takes the signal.
    let _gone = kill_process(pid, signal);
}

impl Dataset {
    pub(crate) fn new() -> Self {
        Self {
            folder: open_folder(),
        }
    }

    pub(crate) fn uri(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file, or replaces it at once as a store does: no reader meets a half of it.
    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("being-written");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }
}

impl Worker {
    /// Starts a worker on an address of its own; `more` is YAML.
    pub(crate) fn start(host: &str, dataset: &Dataset, more: &str) -> Self {
        let port = TcpListener::bind((host, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let address = format!("{host}:{port}");
        let folder = tempfile::tempdir().unwrap();
        let (uri, pages) = (dataset.uri(), folder.path().join("pages"));
        let config = folder.path().join("worker.yaml");
        let text = format!(
            "ufs: {{uri: '{uri}'}}\nworker: {{listen: '{address}', advertised_host: '{host}', \
             page_store: {{directory: '{}', capacity: 1Gi}}}}\n{more}\n",
            pages.display()
        );
        fs::write(&config, text).unwrap();
        let log = folder.path().join("log");
        let mut child = program()
            .args(["worker", "--config"])
            .arg(&config)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        wait_until("the worker's port", || {
            let ended = child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", fs::read_to_string(&log).unwrap());
            std::net::TcpStream::connect(&address).is_ok()
        });
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// Stops it in its tracks: connections stay, and nothing is answered.
    pub(crate) fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The command that mounts by a folder's configuration at the folder's mount point; its log begins
/// anew.
fn mounting(folder: &Path, arguments: &[&str]) -> Command {
    let at = |name: &str| folder.join(name);
    let mut command = program();
    command
        .args(["mount", "--config"])
        .arg(at("config.yaml"))
        .arg("--run-folder")
        .arg(at("run"))
        .args(arguments)
        .arg(at("mount"))
        .env("TMPDIR", at("tmp"))
        .stderr(File::create(at("log")).unwrap());
    command
}

impl Mount {
    /// Mounts a dataset; `more` is YAML.
    pub(crate) fn of(dataset: &Dataset, more: &str) -> Self {
        Self::by(&format!("ufs: {{uri: '{}'}}\n{more}", dataset.uri()), &[])
    }

    /// Mounts a dataset with workers; `client` is YAML of the client's options.
    pub(crate) fn with_workers(dataset: &Dataset, workers: &[&str], client: &str) -> Self {
        let workers: Vec<_> = workers.iter().map(|worker| format!("'{worker}'")).collect();
        let workers = workers.join(", ");
        let cluster = format!("{{membership: {{type: static, workers: [{workers}]}}}}");
        Self::of(dataset, &format!("cluster: {cluster}\nclient: {client}\n"))
    }

    /// Mounts by a configuration.
    pub(crate) fn by(config: &str, arguments: &[&str]) -> Self {
        let folder = open_folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("mount")).unwrap();
        fs::create_dir(at("tmp")).unwrap();
        fs::write(at("config.yaml"), config).unwrap();
        let child = mounting(folder.path(), arguments).spawn().unwrap();
        let mut mount = Self { child, folder };
        mount.wait();
        mount
    }

    fn wait(&mut self) {
        wait_until("the mount", || {
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.log());
            self.log().contains("; Ctrl-C or")
        });
    }

    /// Kills the process that supervises the mount, and starts the same command again.
    pub(crate) fn restart_supervisor(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = mounting(self.folder.path(), &[]).spawn().unwrap();
        self.wait();
    }

    /// Has the daemon replaced as an upgrade does.
    pub(crate) fn upgrade(&self) {
        signal(&self.child, Signal::HUP);
        wait_until("the upgrade", || self.log().contains("was replaced"));
    }

    /// What is said of a configuration that cannot be mounted.
    pub(crate) fn refusal(config: &str) -> String {
        let folder = open_folder();
        let mountpoint = folder.path().join("mount");
        fs::create_dir(&mountpoint).unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, config).unwrap();
        let mut mount = program();
        mount.args(["mount", "--config"]).arg(file);
        mount.arg("--run-folder").arg(folder.path().join("run"));
        mount.arg(&mountpoint);
        let output = mount.output().unwrap();
        assert!(!output.status.success(), "mounted: {config}");
        // Nothing is mounted there: the folder can be removed.
        fs::remove_dir(mountpoint).unwrap();
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("mount").join(name)
    }

    pub(crate) fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// What the mount and its daemon wrote to their log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The sum of a metric's samples that have this label.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    pub(crate) fn metrics(&self) -> String {
        let socket = find_socket(&self.folder.path().join("tmp")).expect("a metrics socket");
        std::io::read_to_string(UnixStream::connect(socket).unwrap()).unwrap()
    }

    /// The process that serves the mount, which the supervisor started.
    pub(crate) fn daemon(&self) -> u32 {
        let parent = format!("PPid:\t{}\n", self.child.id());
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .find(|pid: &u32| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|status| status.contains(&parent))
            })
            .expect("a daemon")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        signal(&self.child, Signal::TERM);
        let deadline = Instant::now() + DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(LOOK_INTERVAL);
        }
        // Only where it did not end by itself; a mount must not outlive its test.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        let mountpoint = self.path("");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if mounts.contains(mountpoint.to_string_lossy().trim_end_matches('/')) {
            let _gone = Command::new("umount").arg("-l").arg(&mountpoint).status();
        }
    }
}

fn find_socket(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find_map(|path| {
        if path.is_dir() {
            return find_socket(&path);
        }
        path.extension()?.eq("metrics").then_some(path)
    })
}
