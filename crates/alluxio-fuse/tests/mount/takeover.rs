//! The supervisor's own death, and upgrades.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alluxio_fuse::{
    DaemonProcess, DaemonSpawner, Mount, MountError, MountOptions, MountRequest, find_abandoned,
};
use parking_lot::Mutex;

use crate::checks::{ends_cleanly, kill_process, read_while};
use crate::sample::{Sample, daemon_of, exists, has_ended, shared, this_program, wait_until};

/// Supervisors that die in one check.
const RESTARTS: u32 = 5;

/// Daemons replaced in one check.
const UPGRADES: u32 = 10;

/// A process that supervises a mount of a sample.
pub(crate) struct Supervisor {
    process: Child,
    answers: BufReader<ChildStdout>,
    /// The daemon it had when it was ready.
    pub(crate) daemon: u32,
}

impl Supervisor {
    /// Mounts, or takes over what stands; returns when a daemon serves.
    pub(crate) fn start(sample: &Sample) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("supervise");
        command.args([sample.tree(), sample.mountpoint(), sample.run_folder()]);
        Self::run(command)
    }

    /// Starts this program as a supervisor.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut supervisor = Self {
            process,
            answers,
            daemon: 0,
        };
        supervisor.daemon = supervisor.answer();
        supervisor
    }

    /// The present daemon, as soon as there is one.
    pub(crate) fn present_daemon(&mut self) -> u32 {
        self.ask("daemon")
    }

    /// The daemon that serves in place of one that was killed.
    pub(crate) fn daemon_after(&mut self, killed: u32) -> u32 {
        let mut daemon = killed;
        wait_until("another daemon", || {
            daemon = self.present_daemon();
            daemon != killed
        });
        daemon
    }

    /// Replaces the daemon; for how many microseconds readers had to wait.
    pub(crate) fn upgrade(&mut self) -> u32 {
        self.ask("upgrade")
    }

    /// Ends the mount, and with it the process.
    pub(crate) fn unmount(mut self) {
        self.ask("unmount");
        assert!(self.process.wait().unwrap().success());
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn ask(&mut self, question: &str) -> u32 {
        writeln!(self.process.stdin.as_ref().unwrap(), "{question}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> u32 {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

/// The main of a [`Supervisor`]'s process: prints the daemon's process id, then answers questions.
pub(crate) fn supervise(tree: &str, mountpoint: &str, run_folder: &str) {
    let spawner = shared(this_program());
    let mut found = find_abandoned(Path::new(run_folder)).unwrap();
    let mount = if let Some(found) = found.pop() {
        Mount::adopt(found, spawner).unwrap()
    } else {
        let request = MountRequest {
            mountpoint: mountpoint.into(),
            config_yaml: tree.to_owned(),
            options: MountOptions::default(),
            run_folder: Some(run_folder.into()),
        };
        Mount::start(request, spawner).unwrap()
    };
    answer_questions(&mount);
}

/// Does what a [`Supervisor`] asks its process for.
pub(crate) fn answer_questions(mount: &Mount) {
    println!("{}", daemon_of(mount));
    for question in std::io::stdin().lines() {
        match question.unwrap().as_str() {
            "daemon" => println!("{}", daemon_of(mount)),
            "upgrade" => println!("{}", mount.upgrade().unwrap().as_micros()),
            _ => {
                mount.unmount().unwrap();
                println!("0");
            }
        }
    }
}

/// Whether every file reads as it is.
pub(crate) fn reads_right(sample: &Sample) {
    for path in sample.paths() {
        let expected = fs::read(sample.tree().join(&path)).unwrap();
        let found = fs::read(sample.mountpoint().join(&path)).unwrap();
        assert!(found == expected, "wrong bytes in {}", path.display());
    }
}

pub(crate) fn a_restarted_supervisor_finds_its_mounts() {
    let sample = Sample::with_files();
    let first = Supervisor::start(&sample).daemon_after_its_end();
    let read = read_while(&sample, |_| {
        let mut daemon = first;
        for restart in 0..RESTARTS {
            let mut supervisor = Supervisor::start(&sample);
            assert_eq!(supervisor.daemon, daemon, "the daemon was not adopted");
            if restart % 2 == 0 {
                // The supervisor first, the daemon after it has been adopted again.
                supervisor.kill();
                supervisor = Supervisor::start(&sample);
            }
            kill_process(daemon);
            wait_until("the dead daemon is gone", || has_ended(daemon));
            let path = sample.mountpoint().join("small/1/f001.jpg");
            assert_eq!(fs::read(path).unwrap().len(), 1311);
            daemon = supervisor.daemon_after(daemon);
            supervisor.kill();
        }
    });
    println!("  {read} files read while supervisors and daemons died");
    let found = find_abandoned(&sample.run_folder()).unwrap().pop().unwrap();
    assert_eq!(found.mountpoint(), sample.mountpoint());
    assert_eq!(found.source_name(), "alluxio-dataset");
    assert_eq!(found.daemon_version(), env!("CARGO_PKG_VERSION"));
    assert!(found.is_mounted().unwrap());
    let mount = Mount::adopt(found, shared(this_program())).unwrap();
    assert!(mount.restarts() >= RESTARTS, "{}", mount.restarts());
    let daemon = daemon_of(&mount);
    mount.unmount().unwrap();
    assert!(!sample.is_mounted());
    // It is not this process's child, so whoever adopted it reaps it.
    wait_until("the daemon ends with its mount", || has_ended(daemon));
    assert_eq!(fs::read_dir(sample.run_folder()).unwrap().count(), 0);
    // What a mount without a daemon left is cleared away.
    let socket = sample.run_folder().join("0123.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(find_abandoned(&sample.run_folder()).unwrap().is_empty());
    assert!(!socket.exists());
}

pub(crate) fn readers_do_not_notice_upgrades() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let mut pauses = Vec::new();
    let read = read_while(&sample, |read| {
        for upgrade in 0..UPGRADES {
            let old = daemon_of(&mount);
            let enough = read.load(Ordering::Relaxed) + 20;
            pauses.push(mount.upgrade().unwrap());
            assert_eq!(mount.restarts(), upgrade + 1);
            assert_ne!(daemon_of(&mount), old);
            assert!(!exists(old), "daemon {old} is left");
            wait_until("reads go on", || read.load(Ordering::Relaxed) > enough);
        }
    });
    pauses.sort();
    println!(
        "  {read} files read over {UPGRADES} upgrades; pauses: median {:.1?}, longest {:.1?}",
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    ends_cleanly(&sample, &mount);
}

/// Starts what it is told.
struct Changing(Mutex<Arc<dyn DaemonSpawner>>);

impl DaemonSpawner for Changing {
    fn spawn(&self, control: std::os::fd::OwnedFd) -> std::io::Result<Box<dyn DaemonProcess>> {
        self.0.lock().spawn(control)
    }
}

pub(crate) fn an_upgrade_that_fails_leaves_the_old_daemon() {
    let sample = Sample::with_files();
    let changing = Arc::new(Changing(Mutex::new(shared(this_program()))));
    let spawner: Arc<dyn DaemonSpawner> = changing.clone();
    let mount = Mount::start(sample.request(), spawner).unwrap();
    let daemon = daemon_of(&mount);
    for program in ["/no/such/program", "/bin/false"] {
        let mut broken = this_program();
        broken.program = program.into();
        *changing.0.lock() = shared(broken);
        let failure = mount.upgrade().unwrap_err();
        assert!(matches!(failure, MountError::Upgrade(_)), "{failure}");
        assert_eq!(daemon_of(&mount), daemon);
        reads_right(&sample);
    }
    *changing.0.lock() = shared(this_program());
    mount.upgrade().unwrap();
    assert_ne!(daemon_of(&mount), daemon);
    ends_cleanly(&sample, &mount);
    assert!(matches!(mount.upgrade(), Err(MountError::Upgrade(_))));
}

impl Supervisor {
    /// Kills it; its daemon, which is left.
    fn daemon_after_its_end(mut self) -> u32 {
        self.kill();
        self.daemon
    }
}
