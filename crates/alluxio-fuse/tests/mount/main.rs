//! Real mounts over a local folder: bytes, names, attributes, and daemons that are killed.
//!
//! This program is its own daemon: started with `daemon` it serves what is handed over, with
//! `client-daemon` it does so through the embedded client. With `chaos` or `stress` it does that one
//! check for long, and writes what it saw to the file that is named (`make chaos`). The checks
//! need root and `/dev/fuse`. Where those are missing the program says so in one line and succeeds,
//! except under `CI=true`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one is its own harness"
)]
#![allow(
    unsafe_code,
    reason = "mmap and getxattr are what is tested, and the standard library has neither"
)]

mod chaos;
mod checks;
mod gate;
#[path = "../../../alluxio-ufs/tests/support/gateway.rs"]
mod gateway;
mod local_tree;
mod passing;
mod posix;
mod programs;
mod sample;
mod stress;
mod takeover;
mod writable;
mod writing;

use std::process::ExitCode;

use alluxio_fuse::CONTROL_FD;
use alluxio_fuse::daemon::{Daemon, DaemonError};
use local_tree::LocalTree;

/// The checks, in the order they run: from a single read to the loss of daemons.
const CHECKS: [(&str, fn()); 48] = [
    (
        "bytes_equal_by_read_and_by_mmap",
        checks::bytes_equal_by_read_and_by_mmap,
    ),
    (
        "five_thousand_names_are_listed",
        checks::five_thousand_names_are_listed,
    ),
    (
        "attributes_are_those_of_the_options",
        checks::attributes_are_those_of_the_options,
    ),
    (
        "what_is_missing_or_written_is_refused",
        checks::what_is_missing_or_written_is_refused,
    ),
    (
        "the_daemon_has_no_privilege",
        checks::the_daemon_has_no_privilege,
    ),
    (
        "a_daemon_cannot_leave_its_sandbox",
        checks::a_daemon_cannot_leave_its_sandbox,
    ),
    (
        "a_tree_that_cannot_be_reached_leaves_nothing",
        checks::a_tree_that_cannot_be_reached_leaves_nothing,
    ),
    (
        "a_foreign_unmount_ends_the_mount",
        checks::a_foreign_unmount_ends_the_mount,
    ),
    (
        "a_busy_mount_ends_all_the_same",
        checks::a_busy_mount_ends_all_the_same,
    ),
    (
        "the_client_serves_a_dataset_of_local_files",
        checks::the_client_serves_a_dataset_of_local_files,
    ),
    (
        "a_change_that_a_read_meets_is_seen_at_once",
        checks::a_change_that_a_read_meets_is_seen_at_once,
    ),
    (
        "a_dataset_that_is_not_there_is_named",
        checks::a_dataset_that_is_not_there_is_named,
    ),
    (
        "metrics_are_told_on_a_socket",
        checks::metrics_are_told_on_a_socket,
    ),
    (
        "a_daemon_serves_on_without_its_supervisor",
        checks::a_daemon_serves_on_without_its_supervisor,
    ),
    (
        "a_request_that_no_daemon_survives_is_given_up",
        checks::a_request_that_no_daemon_survives_is_given_up,
    ),
    (
        "readers_do_not_notice_killed_daemons",
        checks::readers_do_not_notice_killed_daemons,
    ),
    (
        "an_agents_daemons_are_replaced_too",
        checks::an_agents_daemons_are_replaced_too,
    ),
    (
        "a_restarted_supervisor_finds_its_mounts",
        takeover::a_restarted_supervisor_finds_its_mounts,
    ),
    (
        "readers_do_not_notice_upgrades",
        takeover::readers_do_not_notice_upgrades,
    ),
    (
        "an_upgrade_that_fails_leaves_the_old_daemon",
        takeover::an_upgrade_that_fails_leaves_the_old_daemon,
    ),
    (
        "a_written_file_is_whole_in_the_store_when_it_is_closed",
        writing::a_written_file_is_whole_in_the_store_when_it_is_closed,
    ),
    (
        "a_file_has_the_stores_time_from_its_close_on",
        writing::a_file_has_the_stores_time_from_its_close_on,
    ),
    (
        "names_change_as_on_a_local_disk",
        writing::names_change_as_on_a_local_disk,
    ),
    (
        "what_a_store_cannot_hold_is_refused",
        writing::what_a_store_cannot_hold_is_refused,
    ),
    (
        "what_is_written_is_measured",
        writing::what_is_written_is_measured,
    ),
    (
        "a_failed_upload_is_told_by_close_and_leaves_the_old_file",
        writing::a_failed_upload_is_told_by_close_and_leaves_the_old_file,
    ),
    (
        "an_upload_that_s3_refuses_is_told_and_leaves_the_old_object",
        writing::an_upload_that_s3_refuses_is_told_and_leaves_the_old_object,
    ),
    (
        "writers_do_not_notice_killed_daemons",
        writing::writers_do_not_notice_killed_daemons,
    ),
    (
        "a_file_is_what_a_model_of_it_is",
        writing::a_file_is_what_a_model_of_it_is,
    ),
    (
        "a_crash_leaves_the_old_file_and_keeps_what_was_written",
        writing::a_crash_leaves_the_old_file_and_keeps_what_was_written,
    ),
    (
        "readers_of_one_mount_see_what_is_written",
        writing::readers_of_one_mount_see_what_is_written,
    ),
    ("the_last_close_wins", writing::the_last_close_wins),
    (
        "programs_write_what_they_write_on_a_local_disk",
        programs::programs_write_what_they_write_on_a_local_disk,
    ),
    ("fsx_finds_no_wrong_byte", posix::fsx_finds_no_wrong_byte),
    (
        "pjdfstest_fails_where_the_list_says",
        posix::pjdfstest_fails_where_the_list_says,
    ),
    (
        "applications_do_not_notice_chaos",
        chaos::applications_do_not_notice_chaos,
    ),
    (
        "nothing_is_left_after_stress",
        stress::nothing_is_left_after_stress,
    ),
    (
        "a_wholly_cached_file_is_read_past_the_daemon",
        passing::a_wholly_cached_file_is_read_past_the_daemon,
    ),
    (
        "a_file_that_is_open_keeps_its_way_and_no_reader_sees_an_error",
        passing::a_file_that_is_open_keeps_its_way_and_no_reader_sees_an_error,
    ),
    (
        "a_passed_file_is_read_on_while_no_daemon_lives",
        passing::a_passed_file_is_read_on_while_no_daemon_lives,
    ),
    (
        "readers_of_cached_files_do_not_notice_killed_daemons",
        passing::readers_of_cached_files_do_not_notice_killed_daemons,
    ),
    (
        "an_agents_daemons_pass_files_through_too",
        passing::an_agents_daemons_pass_files_through_too,
    ),
    (
        "a_new_mount_passes_through_what_an_earlier_one_cached",
        passing::a_new_mount_passes_through_what_an_earlier_one_cached,
    ),
    (
        "the_second_file_of_a_directory_has_its_neighbours_registered",
        passing::the_second_file_of_a_directory_has_its_neighbours_registered,
    ),
    (
        "a_damaged_cache_file_is_never_passed_through",
        passing::a_damaged_cache_file_is_never_passed_through,
    ),
    (
        "what_was_evicted_is_read_on_by_who_has_it_open",
        passing::what_was_evicted_is_read_on_by_who_has_it_open,
    ),
    (
        "without_a_disk_cache_nothing_is_tried",
        passing::without_a_disk_cache_nothing_is_tried,
    ),
    (
        "the_document_names_each_of_these_checks",
        passing::the_document_names_each_of_these_checks,
    ),
];

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "daemon" => return serve(|daemon| daemon.serve(LocalTree::connect)),
        "client-daemon" => return serve(Daemon::run),
        _ => {}
    }
    if argument == "supervise" {
        let [tree, mountpoint, run] = [2, 3, 4].map(|at| std::env::args().nth(at).unwrap());
        takeover::supervise(&tree, &mountpoint, &run);
        return ExitCode::SUCCESS;
    }
    if argument == "supervise-writable" {
        let [tree, mountpoint, config] = [2, 3, 4].map(|at| std::env::args().nth(at).unwrap());
        writable::supervise(&tree, &mountpoint, config);
        return ExitCode::SUCCESS;
    }
    if argument == "readers" {
        let [tree, mountpoint] = [2, 3].map(|at| std::env::args().nth(at).unwrap());
        passing::read_on(tree.as_ref(), mountpoint.as_ref());
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = what_is_missing() {
        println!(
            "left out: {} checks of real mounts, {missing}",
            CHECKS.len()
        );
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        return if is_ci {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let report = std::env::args().nth(2).unwrap_or_default();
    match argument.as_str() {
        "chaos" => {
            chaos::at_length(&report);
            return ExitCode::SUCCESS;
        }
        "stress" => {
            stress::at_length(&report);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    for (name, check) in CHECKS {
        // A filter, as the usual harness has it; its options are not ours.
        if argument.starts_with('-') || name.contains(&argument) {
            let begun = std::time::Instant::now();
            check();
            println!("mount::{name} ok ({:.1?})", begun.elapsed());
        }
    }
    ExitCode::SUCCESS
}

fn serve(run: impl FnOnce(Daemon) -> Result<(), DaemonError>) -> ExitCode {
    // A second installation is refused, which is as good.
    let _first = rustls::crypto::ring::default_provider().install_default();
    match Daemon::receive(CONTROL_FD).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn what_is_missing() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status
        .lines()
        .any(|line| line.split_whitespace().take(3).eq(["Uid:", "0", "0"]));
    if !is_root {
        return Some("they need root");
    }
    let device = std::fs::OpenOptions::new().read(true).open("/dev/fuse");
    device.is_err().then_some("they need /dev/fuse")
}
