//! A mount that can be written, over each kind of store.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use alluxio_fuse::{Mount, MountOptions, MountRequest, Staging};
use parking_lot::Mutex;

use crate::checks::kill_process;
use crate::gate::{Fate, Gate};
use crate::gateway::{ACCESS_KEY, BUCKET, Gateway, SECRET_KEY};
use crate::sample::{
    NOBODY, Sample, figure, has_ended, shared, this_program_with_client, wait_until,
};
use crate::takeover::{Supervisor, answer_questions};

/// Bytes that may be staged in a check.
pub(crate) const CAPACITY: u64 = 64 << 20;

/// Where a daemon tells its figures.
const METRICS: &str = "metrics.sock";

/// A dataset that can be written, and its mount.
///
/// The supervisor is another process: one that starts a daemon while it has a file of the mount open
/// hands that to the daemon's process for a moment, whose close waits for a daemon.
pub(crate) struct Writable {
    sample: Sample,
    supervisor: Mutex<Supervisor>,
    /// The S3 server that has the files; none where they are in a folder.
    store: Option<Store>,
}

/// An S3 server, and what is before it.
struct Store {
    gateway: Gateway,
    gate: Option<Gate>,
}

impl Store {
    fn endpoint(&self) -> String {
        let gate = self.gate.as_ref().map(Gate::endpoint);
        gate.unwrap_or_else(|| self.gateway.endpoint())
    }
}

impl Writable {
    /// Files in a folder.
    pub(crate) fn on_files() -> Self {
        Self::over(Sample::new(), None)
    }

    /// Does a check over files, and over objects where the S3 server is installed.
    pub(crate) fn on_each_store(check: fn(Self)) {
        check(Self::on_files());
        if let Some(gateway) = Gateway::start() {
            let gate = None;
            check(Self::over(Sample::new(), Some(Store { gateway, gate })));
        }
    }

    /// Objects behind a gate, where the S3 server is installed.
    pub(crate) fn behind_a_gate() -> Option<Self> {
        let gateway = Gateway::start()?;
        let gate = Some(Gate::before(gateway.address()));
        Some(Self::over(Sample::new(), Some(Store { gateway, gate })))
    }

    /// Tells the gate what becomes of what is to be stored.
    pub(crate) fn set_fate(&self, fate: Fate) {
        let gate = self.store.as_ref().and_then(|store| store.gate.as_ref());
        gate.unwrap().set(fate);
    }

    fn over(sample: Sample, store: Option<Store>) -> Self {
        let staging = staging_of(&sample.tree());
        let sockets = sockets_of(&sample.tree());
        for folder in [&staging, &sockets] {
            fs::create_dir_all(folder).unwrap();
        }
        for folder in [&staging, &sockets, &sample.tree()] {
            chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let config = match &store {
            None => format!("ufs: {{uri: \"file://{}\"}}", sample.tree().display()),
            Some(store) => format!(
                "ufs: {{uri: 's3://{BUCKET}', endpoint: '{}', region: us-east-1, \
                 key: {ACCESS_KEY}, secret: {SECRET_KEY}}}",
                store.endpoint()
            ),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("supervise-writable");
        command.args([sample.tree(), sample.mountpoint()]);
        command.arg(config);
        Self {
            sample,
            supervisor: Mutex::new(Supervisor::run(command)),
            store,
        }
    }

    /// Where a path is in the mount.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.sample.mountpoint().join(path)
    }

    /// The bytes that the store has.
    pub(crate) fn stored(&self, path: &str) -> io::Result<Vec<u8>> {
        match &self.store {
            None => fs::read(self.sample.tree().join(path)),
            Some(store) => store.gateway.stored(path),
        }
    }

    /// The store's folder, where it is one.
    pub(crate) fn tree(&self) -> PathBuf {
        self.sample.tree()
    }

    /// Whether the store gives a directory another name in one step.
    pub(crate) fn renames_directories(&self) -> bool {
        self.store.is_none()
    }

    /// Where copies are kept that the store never got.
    pub(crate) fn lost(&self) -> PathBuf {
        staging_of(&self.sample.tree()).join("lost")
    }

    /// A figure of the daemon.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        figure(&sockets_of(&self.sample.tree()).join(METRICS), name)
    }

    /// Kills the daemon, and waits for another.
    pub(crate) fn kill_daemon(&self) {
        let mut supervisor = self.supervisor.lock();
        let daemon = supervisor.present_daemon();
        kill_process(daemon);
        supervisor.daemon_after(daemon);
    }

    /// Ends supervisor, connection and daemon under open files.
    pub(crate) fn crash(&self) {
        let mut supervisor = self.supervisor.lock();
        let daemon = supervisor.present_daemon();
        supervisor.kill();
        let mountpoint = self.sample.mountpoint();
        let path = std::ffi::CString::new(mountpoint.to_str().unwrap()).unwrap();
        // SAFETY: a path that ends with NUL.
        let ended = unsafe { libc::umount2(path.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        assert_eq!(ended, 0, "{}", io::Error::last_os_error());
        wait_until("the daemon has ended", || has_ended(daemon));
    }

    /// Mounted by another supervisor, after a crash.
    pub(crate) fn mounted_again(self) -> Self {
        Self::over(self.sample, self.store)
    }

    /// Unmounts; nothing may be left.
    pub(crate) fn end(self) {
        // Copies are let go a moment after the last close.
        let staging = staging_of(&self.sample.tree());
        wait_until("no copy is left", || {
            fs::read_dir(&staging).unwrap().count() == 1
        });
        assert_eq!(fs::read_dir(self.lost()).unwrap().count(), 0);
        self.supervisor.into_inner().unmount();
        assert!(!self.sample.is_mounted());
    }
}

/// The main of the supervisor's process.
pub(crate) fn supervise(tree: &str, mountpoint: &str, config_yaml: String) {
    let tree = Path::new(tree);
    let staging = staging_of(tree);
    let mut spawner = this_program_with_client();
    let sockets = sockets_of(tree);
    spawner.writable = vec![staging.clone(), sockets.clone(), tree.to_owned()];
    let request = MountRequest {
        mountpoint: mountpoint.into(),
        config_yaml,
        options: MountOptions {
            staging: Some(Staging {
                folder: staging,
                capacity_bytes: CAPACITY,
            }),
            metrics_socket: Some(sockets.join(METRICS)),
            ..MountOptions::default()
        },
        run_folder: None,
    };
    answer_questions(&Mount::start(request, shared(spawner)).unwrap());
}

/// Beside the tree.
fn staging_of(tree: &Path) -> PathBuf {
    tree.parent().unwrap().join("staging")
}

fn sockets_of(tree: &Path) -> PathBuf {
    tree.parent().unwrap().join("sockets")
}

/// close(2), with its answer.
pub(crate) fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor was this file's alone.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The error number of a failure; 0 where there is none.
pub(crate) fn errno<A>(result: io::Result<A>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// Opens a file to be read and changed.
pub(crate) fn for_change(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}
