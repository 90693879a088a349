//! Step 4: fold what happened into the status. Pure, but for the one patch.

use std::time::Duration;

use alluxio_crds::AlluxioDataLoad;
use alluxio_crds::conditions::{self, COMPLETE, ConditionSet, Verdict};
use alluxio_crds::load::{AlluxioDataLoadStatus, FileFailure, LoadState, MAX_LISTED_FAILURES};
use alluxio_wire::{LoadCounts, LoadState as WireState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::apply::LoadOutcome;
use crate::context::{Context, Notice};

/// No pause between attempts is longer.
const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// The longest path and reason that a status lists, as its schema says.
const MAX_PATH_BYTES: usize = 2048;

/// Why the status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("status of AlluxioDataLoad {load} cannot be written: {source}")]
pub struct StatusError {
    load: String,
    source: kube::Error,
}

/// The status after a step.
pub fn status(
    load: &AlluxioDataLoad,
    outcome: &LoadOutcome,
    first_backoff: Duration,
    now: Timestamp,
) -> AlluxioDataLoadStatus {
    let mut next = load.status.clone().unwrap_or_default();
    next.observed_generation = load.metadata.generation;
    match outcome {
        LoadOutcome::Paused => {}
        LoadOutcome::Waiting(why) => next.message = Some(conditions::shortened(why)),
        LoadOutcome::Submitted(worker) => {
            next.state = LoadState::Running;
            next.message = None;
            next.next_attempt_time = None;
            next.worker = Some(worker.to_string());
            next.start_time.get_or_insert(Time(now));
        }
        LoadOutcome::Progress {
            state,
            counts,
            message,
            began,
        } => {
            if let Some(counts) = counts {
                let first = next.start_time.as_ref().map(|start| start.0);
                take_counts(&mut next, counts, began.or(first), now);
            }
            take_state(
                &mut next,
                *state,
                message,
                load.spec.backoff_limit,
                first_backoff,
                now,
            );
        }
        LoadOutcome::Unanswered(why) => {
            let text = format!("the load is asked about again: {why}");
            next.message = Some(conditions::shortened(&text));
        }
        LoadOutcome::NotSubmitted { worker, why } => {
            next.worker = Some(worker.to_string());
            fail(&mut next, why, load.spec.backoff_limit, first_backoff, now);
        }
        LoadOutcome::Failed(why) => {
            fail(&mut next, why, load.spec.backoff_limit, first_backoff, now);
        }
    }
    next.conditions = ConditionSet::new(&next.conditions, load.metadata.generation, now)
        .with(COMPLETE, &complete(&next))
        .build();
    next
}

/// Writes the status when it differs from what the object says.
pub(super) async fn write(
    context: &Context,
    load: &AlluxioDataLoad,
    status: &AlluxioDataLoadStatus,
) -> Result<(), StatusError> {
    if load.status.as_ref() == Some(status) {
        return Ok(());
    }
    let namespace = load.namespace().unwrap_or_default();
    let loads: Api<AlluxioDataLoad> = Api::namespaced(context.client.clone(), &namespace);
    let patch = Patch::Merge(json!({ "status": with_nulls(load.status.as_ref(), status) }));
    loads
        .patch_status(&load.name_any(), &PatchParams::default(), &patch)
        .await
        .map(|_| ())
        .map_err(|source| StatusError {
            load: super::qualified_name(load),
            source,
        })
}

/// What to tell about the way from one status to the next.
pub fn notices(previous: &AlluxioDataLoadStatus, next: &AlluxioDataLoadStatus) -> Vec<Notice> {
    let said = next.message.clone().unwrap_or_default();
    if next.retries > previous.retries {
        return vec![Notice::warning("LoadRetry", said)];
    }
    if next.state == previous.state {
        return Vec::new();
    }
    let worker = next.worker.as_deref().unwrap_or("no worker");
    let notice = match next.state {
        LoadState::Pending | LoadState::Verifying => return Vec::new(),
        LoadState::Running if previous.state == LoadState::Verifying => return Vec::new(),
        LoadState::Running => Notice::normal("LoadStarted", format!("submitted to {worker}")),
        LoadState::Succeeded => {
            let (files, bytes) = (next.files_done.unwrap_or(0), next.bytes_done.unwrap_or(0));
            Notice::normal("LoadSucceeded", format!("{files} files, {bytes} bytes"))
        }
        LoadState::Failed => Notice::warning("LoadFailed", said),
        LoadState::Stopped => Notice::warning("LoadStopped", said),
    };
    vec![notice]
}

/// A merge patch keeps what it does not name, so a field that went is named as null.
fn with_nulls(previous: Option<&AlluxioDataLoadStatus>, next: &AlluxioDataLoadStatus) -> Value {
    let mut patch = json!(next);
    let before = previous.map(|status| json!(status));
    if let (Some(patch), Some(Value::Object(before))) = (patch.as_object_mut(), before) {
        for gone in before
            .keys()
            .filter(|key| !patch.contains_key(*key))
            .cloned()
            .collect::<Vec<_>>()
        {
            patch.insert(gone, Value::Null);
        }
    }
    patch
}

fn take_state(
    next: &mut AlluxioDataLoadStatus,
    state: WireState,
    message: &str,
    backoff_limit: i32,
    first_backoff: Duration,
    now: Timestamp,
) {
    match state {
        WireState::Running | WireState::Verifying => {
            let verifying = state == WireState::Verifying;
            next.state = if verifying {
                LoadState::Verifying
            } else {
                LoadState::Running
            };
            next.message = None;
        }
        WireState::Succeeded => end(next, LoadState::Succeeded, None, now),
        WireState::Stopped => {
            let why = "the job was stopped at the workers; make another load to go on";
            end(next, LoadState::Stopped, Some(why), now);
        }
        WireState::Failed => fail(next, message, backoff_limit, first_backoff, now),
    }
}

fn take_counts(
    next: &mut AlluxioDataLoadStatus,
    counts: &LoadCounts,
    began: Option<Timestamp>,
    now: Timestamp,
) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    next.files_done = Some(number(counts.files_done));
    next.files_total = Some(number(counts.files_total));
    next.bytes_done = Some(number(counts.bytes_done));
    next.bytes_total = Some(number(counts.bytes_total));
    next.bytes_percent = Some(percent(counts.bytes_done, counts.bytes_total));
    next.failure_count = Some(number(counts.failure_count));
    next.failures = counts
        .failures
        .iter()
        .take(MAX_LISTED_FAILURES)
        .map(|failure| FileFailure {
            path: failure.path[..failure.path.floor_char_boundary(MAX_PATH_BYTES)].to_owned(),
            reason: conditions::shortened(&failure.reason),
        })
        .collect();
    let seconds = began.map_or(0, |began| (now - began).get_seconds());
    let speed = number(counts.bytes_done)
        .checked_div(seconds.max(1))
        .filter(|speed| *speed > 0);
    next.bytes_per_second = speed;
    let left = number(counts.bytes_total.saturating_sub(counts.bytes_done));
    next.eta_seconds = speed.map(|speed| left.div_euclid(speed) + i64::from(left % speed > 0));
}

/// Done of total in whole percent; 100 only when all is done, and 0 while nothing is listed yet.
fn percent(done: u64, total: u64) -> i32 {
    let share = u128::from(done.min(total)) * 100 / u128::from(total.max(1));
    i32::try_from(share).unwrap_or(100)
}

fn fail(
    next: &mut AlluxioDataLoadStatus,
    why: &str,
    backoff_limit: i32,
    first_backoff: Duration,
    now: Timestamp,
) {
    let why = if why.is_empty() {
        "the workers gave no reason"
    } else {
        why
    };
    next.eta_seconds = None;
    if next.retries >= backoff_limit {
        let text = format!("given up after {} attempts: {why}", next.retries + 1);
        end(next, LoadState::Failed, Some(&text), now);
        return;
    }
    let pause = backoff(first_backoff, next.retries);
    next.retries += 1;
    next.state = LoadState::Pending;
    let text = format!(
        "attempt {} failed, again in {} s: {why}",
        next.retries,
        pause.as_secs()
    );
    next.message = Some(conditions::shortened(&text));
    let pause = SignedDuration::try_from(pause).unwrap_or_default();
    next.next_attempt_time = now.checked_add(pause).ok().map(Time);
}

fn backoff(first: Duration, retries: i32) -> Duration {
    let doubled = 2_u32.saturating_pow(u32::try_from(retries).unwrap_or(0));
    first.saturating_mul(doubled).min(MAX_BACKOFF)
}

fn end(next: &mut AlluxioDataLoadStatus, state: LoadState, why: Option<&str>, now: Timestamp) {
    next.state = state;
    next.message = why.map(conditions::shortened);
    next.next_attempt_time = None;
    next.eta_seconds = None;
    next.completion_time = Some(Time(now));
    if state == LoadState::Succeeded && next.bytes_total == Some(0) {
        next.bytes_percent = Some(100);
    }
}

fn complete(status: &AlluxioDataLoadStatus) -> Verdict {
    let message = || status.message.clone().unwrap_or_default();
    match status.state {
        LoadState::Pending => Verdict::fails("Pending", message()),
        LoadState::Running => Verdict::fails("Running", "the workers load"),
        LoadState::Verifying => Verdict::fails("Verifying", "the workers check what they loaded"),
        LoadState::Succeeded => Verdict::holds("Succeeded", "all is loaded"),
        LoadState::Failed => Verdict::fails("Failed", message()),
        LoadState::Stopped => Verdict::fails("Stopped", message()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;
    use crate::samples::{a_load, second};
    use crate::worker_api::WorkerEndpoint;

    const BACKOFF: Duration = Duration::from_secs(5);

    fn after(
        load: impl Into<AlluxioDataLoad>,
        outcome: &LoadOutcome,
        now: i64,
    ) -> AlluxioDataLoadStatus {
        status(&load.into(), outcome, BACKOFF, second(now))
    }

    fn progress(state: WireState, done: u64, total: u64) -> LoadOutcome {
        let counts = LoadCounts {
            bytes_done: done,
            bytes_total: total,
            ..LoadCounts::default()
        };
        LoadOutcome::Progress {
            state,
            counts: Some(counts),
            message: "said".to_owned(),
            began: None,
        }
    }

    #[test]
    fn a_submitted_load_remembers_its_worker_and_start() {
        let outcome = LoadOutcome::Submitted(WorkerEndpoint::new("w0", 1));
        let next = after(a_load(), &outcome, 10);
        assert_eq!(
            (next.state, next.worker.as_deref()),
            (LoadState::Running, Some("w0:1"))
        );
        assert_eq!(next.start_time, Some(Time(second(10))));
        assert_eq!(
            notices(&AlluxioDataLoadStatus::default(), &next)[0].reason,
            "LoadStarted"
        );
    }

    #[test]
    fn speed_and_time_left_are_averages_since_the_start() {
        let load = a_load().running_at("w0:1").started_at(0);
        let next = after(load, &progress(WireState::Running, 300, 1000), 10);
        assert_eq!(
            (next.bytes_per_second, next.eta_seconds),
            (Some(30), Some(24))
        );
        assert_eq!(next.bytes_percent, Some(30));
    }

    #[test]
    fn the_speed_of_another_attempt_is_counted_from_its_own_start() {
        let counts = LoadCounts {
            bytes_done: 300,
            bytes_total: 1000,
            ..LoadCounts::default()
        };
        let outcome = LoadOutcome::Progress {
            state: WireState::Running,
            counts: Some(counts),
            message: String::new(),
            began: Some(second(90)),
        };
        let load = a_load().running_at("w0:1").started_at(0).after_retries(1);
        let next = after(load, &outcome, 100);
        assert_eq!(next.bytes_per_second, Some(30));
        assert_eq!(next.start_time, Some(Time(second(0))));
    }

    #[test]
    fn a_poll_without_an_answer_leaves_the_load_with_its_worker() {
        let outcome = LoadOutcome::Unanswered("worker w0:1 cannot be reached".to_owned());
        let mut load: AlluxioDataLoad = a_load().running_at("w0:1").into();
        let next = after(load.clone(), &outcome, 1);
        assert_eq!((next.state, next.retries), (LoadState::Running, 0));
        assert_eq!(next.worker.as_deref(), Some("w0:1"));
        assert!(
            next.message
                .as_deref()
                .unwrap()
                .contains("cannot be reached")
        );
        load.status = Some(next);
        let next = after(load, &progress(WireState::Running, 1, 2), 2);
        assert_eq!(next.message, None);
    }

    #[test]
    fn a_worker_that_took_only_a_part_is_remembered() {
        let outcome = LoadOutcome::NotSubmitted {
            worker: WorkerEndpoint::new("w0", 1),
            why: "refused".to_owned(),
        };
        let next = after(a_load(), &outcome, 1);
        assert_eq!((next.state, next.retries), (LoadState::Pending, 1));
        assert_eq!(next.worker.as_deref(), Some("w0:1"));
    }

    #[test]
    fn a_failed_attempt_is_tried_again_later_and_later() {
        let first = after(
            a_load().running_at("w0:1"),
            &progress(WireState::Failed, 0, 0),
            0,
        );
        assert_eq!((first.state, first.retries), (LoadState::Pending, 1));
        assert_eq!(first.next_attempt_time, Some(Time(second(5))));
        // A job that may still run is to be stopped when the load is deleted.
        assert_eq!(first.worker.as_deref(), Some("w0:1"));
        assert_eq!(
            (backoff(BACKOFF, 2).as_secs(), backoff(BACKOFF, 30)),
            (20, MAX_BACKOFF)
        );
    }

    #[test]
    fn beyond_its_backoff_limit_it_has_failed() {
        let load = a_load().running_at("w0:1").after_retries(3);
        let next = after(load, &progress(WireState::Failed, 0, 0), 9);
        assert_eq!((next.state, next.retries), (LoadState::Failed, 3));
        assert!(
            next.message
                .as_deref()
                .unwrap()
                .contains("4 attempts: said"),
            "{next:?}"
        );
        assert_eq!(next.completion_time, Some(Time(second(9))));
    }

    #[test]
    fn an_empty_dataset_is_loaded_in_full() {
        let next = after(
            a_load().running_at("w0:1"),
            &progress(WireState::Succeeded, 0, 0),
            1,
        );
        assert_eq!(
            (next.state, next.bytes_percent),
            (LoadState::Succeeded, Some(100))
        );
        assert!(conditions::is_true(&next.conditions, COMPLETE));
    }

    #[test]
    fn a_hundred_percent_means_all() {
        assert_eq!(
            (percent(999, 1000), percent(1000, 1000), percent(0, 0)),
            (99, 100, 0)
        );
    }

    #[test]
    fn failures_are_listed_up_to_twenty_and_counted_beyond() {
        let failure = alluxio_wire::LoadFailure {
            path: "p".to_owned(),
            reason: "r".to_owned(),
        };
        let counts = LoadCounts {
            failures: vec![failure; 30],
            failure_count: 30,
            ..LoadCounts::default()
        };
        let outcome = LoadOutcome::Progress {
            state: WireState::Running,
            counts: Some(counts),
            message: String::new(),
            began: None,
        };
        let next = after(a_load().running_at("w0:1"), &outcome, 1);
        assert_eq!((next.failures.len(), next.failure_count), (20, Some(30)));
    }

    #[test]
    fn fields_that_went_are_taken_out_of_the_stored_status() {
        let before = AlluxioDataLoadStatus {
            eta_seconds: Some(3),
            ..Default::default()
        };
        let patch = with_nulls(Some(&before), &AlluxioDataLoadStatus::default());
        assert_eq!(patch["etaSeconds"], Value::Null);
        assert!(patch.as_object().unwrap().contains_key("etaSeconds"));
    }
}
