//! Step 3: take the next step at a worker.
//!
//! Submitting is idempotent: when a job for the path exists, the embedded worker answers 409 and
//! the open-source worker closes the connection (and resumes a stopped job), so after either the
//! job itself is asked for.

use alluxio_config::Config;
use alluxio_wire::{LoadCounts, LoadOptions, LoadState, ProgressAnswer, UfsUri};
use k8s_openapi::jiff::Timestamp;

use super::plan::Step;
use crate::context::Context;
use crate::worker_api::{WorkerApi, WorkerEndpoint, WorkerError};
use crate::workers::{self, Members, Survey};

/// Polls in a row without an answer that end an attempt. Polls are a second apart, so a worker that
/// pauses for some seconds keeps its job, whose repetition would cost far more; one that refuses
/// connections is given up after five seconds, and one that hangs within a minute.
const MAX_UNANSWERED_POLLS: u32 = 5;

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadOutcome {
    /// Nothing was tried; it cannot begin yet.
    Waiting(String),
    /// Nothing was tried; the next attempt is later.
    Paused,
    /// A worker has it.
    Submitted(WorkerEndpoint),
    /// How far it is.
    Progress {
        /// Of all its jobs together.
        state: LoadState,
        /// Of all its jobs together, as far as the worker gave numbers.
        counts: Option<LoadCounts>,
        /// The worker's words, for a failure.
        message: String,
        /// When this attempt began, if that is known.
        began: Option<Timestamp>,
    },
    /// The worker did not say how far it is, and is asked again.
    Unanswered(String),
    /// This attempt failed.
    Failed(String),
    /// The worker did not take all of it; it may have taken a part.
    NotSubmitted {
        /// That worker.
        worker: WorkerEndpoint,
        /// Why.
        why: String,
    },
}

/// Takes a step of the load with this uid.
pub(super) async fn apply(context: &Context, uid: &str, step: Step) -> LoadOutcome {
    match step {
        Step::Wait(why) => LoadOutcome::Waiting(why),
        Step::Pause => LoadOutcome::Paused,
        Step::Submit {
            config,
            paths,
            options,
        } => {
            let outcome = submit(context, &config, &paths, &options).await;
            if matches!(outcome, LoadOutcome::Submitted(_)) {
                context.attempts.began(uid, Timestamp::now());
            }
            outcome
        }
        Step::Ask { worker, paths } => match ask(&context.workers, &worker, &paths).await {
            Ok(jobs) => joint_progress(jobs, context.attempts.answered(uid)),
            Err(error) => without_answer(context.attempts.unanswered(uid), error.to_string()),
        },
    }
}

/// What a poll without an answer means, when it is this one in a row.
fn without_answer(in_a_row: u32, why: String) -> LoadOutcome {
    if in_a_row < MAX_UNANSWERED_POLLS {
        LoadOutcome::Unanswered(why)
    } else {
        LoadOutcome::Failed(why)
    }
}

/// Gives all paths to one worker: the first that answers.
async fn submit(
    context: &Context,
    config: &Config,
    paths: &[UfsUri],
    options: &LoadOptions,
) -> LoadOutcome {
    let survey = Survey::take(config, &context.workers).await;
    let Some(worker) = survey.live.first() else {
        return LoadOutcome::Waiting(nobody(&survey));
    };
    for path in paths {
        if let Err(error) = submit_one(&context.workers, worker, path, options).await {
            let (worker, why) = (worker.clone(), error.to_string());
            return LoadOutcome::NotSubmitted { worker, why };
        }
    }
    LoadOutcome::Submitted(worker.clone())
}

fn nobody(survey: &Survey) -> String {
    match &survey.members {
        Members::NoneConfigured => {
            "the dataset has no workers: set spec.cluster.membership of the dataset".to_owned()
        }
        Members::Unknown(why) => why.clone(),
        Members::Known(members) => {
            format!(
                "none of {} workers answers: {}",
                members.len(),
                survey.silent()
            )
        }
    }
}

async fn submit_one(
    api: &WorkerApi,
    worker: &WorkerEndpoint,
    path: &UfsUri,
    options: &LoadOptions,
) -> Result<(), WorkerError> {
    match api.submit(worker, path, options).await {
        Err(error) if error.may_mean_running() => {
            let answer = api.progress(worker, path).await?;
            let runs = matches!(answer.state, LoadState::Running | LoadState::Verifying);
            if runs { Ok(()) } else { Err(error) }
        }
        other => other,
    }
}

async fn ask(
    api: &WorkerApi,
    worker: &WorkerEndpoint,
    paths: &[UfsUri],
) -> Result<Vec<ProgressAnswer>, WorkerError> {
    let mut jobs = Vec::with_capacity(paths.len());
    for path in paths {
        jobs.push(api.progress(worker, path).await?);
    }
    Ok(jobs)
}

fn joint_progress(jobs: Vec<ProgressAnswer>, began: Option<Timestamp>) -> LoadOutcome {
    let state = joint_state(&jobs.iter().map(|job| job.state).collect::<Vec<_>>());
    let failed = jobs.iter().find(|job| job.state == LoadState::Failed);
    let message = failed.map(|job| job.message.clone()).unwrap_or_default();
    let counts = jobs
        .into_iter()
        .map(|job| job.progress)
        .collect::<Option<Vec<_>>>();
    LoadOutcome::Progress {
        state,
        counts: counts.map(joint_counts),
        message,
        began,
    }
}

/// The state of some jobs together: it runs as long as one does, and succeeds when all do.
fn joint_state(states: &[LoadState]) -> LoadState {
    [
        LoadState::Running,
        LoadState::Verifying,
        LoadState::Failed,
        LoadState::Stopped,
    ]
    .into_iter()
    .find(|state| states.contains(state))
    .unwrap_or(LoadState::Succeeded)
}

fn joint_counts(counts: Vec<LoadCounts>) -> LoadCounts {
    let mut joint = LoadCounts::default();
    for one in counts {
        joint.files_total += one.files_total;
        joint.files_done += one.files_done;
        joint.bytes_total += one.bytes_total;
        joint.bytes_done += one.bytes_done;
        joint.failure_count += one.failure_count;
        joint.failures.extend(one.failures);
    }
    joint
        .failures
        .truncate(alluxio_crds::load::MAX_LISTED_FAILURES);
    joint
}

/// Stops every job of a load at the worker that has it, or else at another that is alive.
pub(super) async fn stop(
    api: &WorkerApi,
    worker: &WorkerEndpoint,
    config: &Config,
    paths: &[UfsUri],
) -> Result<(), WorkerError> {
    match stop_at(api, worker, paths).await {
        Err(error) if error.is_unreachable() => {
            let members = workers::members(&config.cluster, config.client.ring_membership).await;
            let others = members.ok().flatten().unwrap_or_default();
            match others.iter().find(|other| *other != worker) {
                Some(other) => stop_at(api, other, paths).await,
                None => Err(error),
            }
        }
        other => other,
    }
}

async fn stop_at(
    api: &WorkerApi,
    worker: &WorkerEndpoint,
    paths: &[UfsUri],
) -> Result<(), WorkerError> {
    for path in paths {
        match api.stop(worker, path).await {
            // Closed or 404: "there is no such job", by the open-source and the embedded worker.
            Ok(()) | Err(WorkerError::Closed { .. } | WorkerError::Refused { code: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_together_until_the_last_one_ends() {
        use LoadState::{Failed, Running, Stopped, Succeeded, Verifying};
        for (jobs, joint) in [
            (vec![Succeeded, Running, Failed], Running),
            (vec![Succeeded, Verifying], Verifying),
            (vec![Succeeded, Failed, Stopped], Failed),
            (vec![Succeeded, Stopped], Stopped),
            (vec![Succeeded, Succeeded], Succeeded),
        ] {
            assert_eq!(joint_state(&jobs), joint, "{jobs:?}");
        }
    }

    #[test]
    fn a_few_polls_without_an_answer_do_not_end_an_attempt() {
        for (in_a_row, ends) in [(1, false), (4, false), (5, true), (6, true)] {
            let outcome = without_answer(in_a_row, "why".to_owned());
            let failed = LoadOutcome::Failed("why".to_owned());
            assert_eq!(outcome == failed, ends, "{in_a_row}: {outcome:?}");
        }
    }

    #[test]
    fn counts_add_up() {
        let one = LoadCounts {
            files_total: 2,
            bytes_done: 5,
            ..LoadCounts::default()
        };
        let joint = joint_counts(vec![one.clone(), one]);
        assert_eq!((joint.files_total, joint.bytes_done), (4, 10));
    }
}
