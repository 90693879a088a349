//! A folder with known content, and a mount of it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use alluxio_fuse::{DaemonSpawner, LocalSpawner, Mount, MountOptions, MountRequest};
use sha2::{Digest, Sha256};

/// The unprivileged user that daemons run as.
pub(crate) const NOBODY: u32 = 65534;

/// How long a check waits for a state; far above what it takes on a starved machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A folder of files and an empty folder to mount at.
pub(crate) struct Sample {
    folder: tempfile::TempDir,
}

impl Sample {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sample = Self { folder };
        // The daemon's user must be able to read it.
        open_to_all(sample.folder.path());
        for path in [sample.tree(), sample.mountpoint()] {
            fs::create_dir(&path).unwrap();
            open_to_all(&path);
        }
        sample
    }

    /// Large, small and empty files at several depths.
    pub(crate) fn with_files() -> Self {
        let sample = Self::new();
        sample.file("large.bin", 12 << 20);
        sample.file("odd.bin", (3 << 20) + 4097);
        sample.file("empty", 0);
        sample.file("one byte", 1);
        for number in 0..200 {
            let path = format!("small/{}/f{number:03}.jpg", number % 7);
            sample.file(&path, 1000 + number * 311);
        }
        sample
    }

    /// Adds a file whose content follows from its path.
    pub(crate) fn file(&self, path: &str, length: usize) {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let seed = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let mut state = u64::from_ne_bytes(seed[..8].try_into().unwrap()) | 1;
        let mut content = Vec::with_capacity(length + 8);
        while content.len() < length {
            // Marsaglia's xorshift: no page is like another.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_ne_bytes());
        }
        content.truncate(length);
        fs::write(path, content).unwrap();
    }

    /// Where the files lie.
    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Where they are mounted; with a space, which mountinfo writes in its own way.
    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.folder.path().join("mount point")
    }

    /// A path for a socket.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What to mount.
    pub(crate) fn request(&self) -> MountRequest {
        MountRequest {
            mountpoint: self.mountpoint(),
            config_yaml: self.tree().to_str().unwrap().to_owned(),
            options: MountOptions {
                uid: 1000,
                gid: 1001,
                file_mode: 0o440,
                directory_mode: 0o550,
                source_name: "s3://bucket/tree/".to_owned(),
                ..MountOptions::default()
            },
            run_folder: None,
        }
    }

    /// Where supervisors find the mount.
    pub(crate) fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Mounts it.
    pub(crate) fn mount(&self) -> Mount {
        Mount::start(self.request(), Arc::new(this_program())).unwrap()
    }

    /// All files below the tree, as relative paths.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.tree()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(self.tree()).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Whether anything is mounted at the mount point, by mountinfo and not by a stat.
    pub(crate) fn is_mounted(&self) -> bool {
        let mountpoint = self.mountpoint();
        let mountpoint = mountpoint.to_str().unwrap().replace(' ', "\\040");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(&mountpoint))
    }
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts this program as a daemon.
pub(crate) fn this_program() -> LocalSpawner {
    LocalSpawner {
        program: std::env::current_exe().unwrap(),
        args: vec!["daemon".to_owned()],
        uid: NOBODY,
        gid: NOBODY,
        writable: Vec::new(),
        data_limit_bytes: Some(8 << 30),
    }
}

/// Starts this program as a daemon with the embedded client.
pub(crate) fn this_program_with_client() -> LocalSpawner {
    LocalSpawner {
        args: vec!["client-daemon".to_owned()],
        ..this_program()
    }
}

/// A spawner as the mount takes it.
pub(crate) fn shared(spawner: impl DaemonSpawner + 'static) -> Arc<dyn DaemonSpawner> {
    Arc::new(spawner)
}

/// The sum of a content.
pub(crate) fn sum(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A figure that a daemon tells on its socket.
pub(crate) fn figure(socket: &Path, name: &str) -> u64 {
    let mut figure = None;
    // While a daemon is being replaced nobody answers, or one that dies while it does.
    wait_until("a daemon tells its figures", || {
        let mut text = String::new();
        let told = UnixStream::connect(socket)
            .and_then(|mut connection| connection.read_to_string(&mut text));
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        figure = line.filter(|_| told.is_ok()).map(str::to_owned);
        figure.is_some()
    });
    figure.unwrap().trim().parse().unwrap()
}

/// The present daemon of a mount.
pub(crate) fn daemon_of(mount: &Mount) -> u32 {
    let mut pid = None;
    wait_until("a daemon serves", || {
        pid = mount.daemon_pid();
        pid.is_some()
    });
    pid.unwrap()
}

/// Whether a process exists, be it a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process, of which this program may not be the parent, has ended.
pub(crate) fn has_ended(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}
