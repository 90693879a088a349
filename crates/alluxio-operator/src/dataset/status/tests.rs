//! Statuses of sample datasets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use alluxio_crds::conditions::{find, is_true};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::dataset::plan::Conflict;
use crate::samples::{a_dataset, a_load, observed, second, survey};

fn a_claim_that_is(phase: &str) -> VolumeOutcome {
    let status = PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        ..Default::default()
    };
    let claim = PersistentVolumeClaim {
        status: Some(status),
        ..Default::default()
    };
    VolumeOutcome::InPlace(Box::new(claim))
}

fn with_volume(
    dataset: impl Into<AlluxioDataset>,
    observed: &Observed,
    volume: VolumeOutcome,
) -> AlluxioDatasetStatus {
    let applied = Applied {
        volume,
        load_made: None,
    };
    let outcome = Outcome::Applied {
        applied: &applied,
        wanted_load: None,
    };
    status(&dataset.into(), observed, &outcome, second(100))
}

fn bound(dataset: impl Into<AlluxioDataset>, observed: &Observed) -> AlluxioDatasetStatus {
    with_volume(dataset, observed, a_claim_that_is("Bound"))
}

fn says(status: &AlluxioDatasetStatus, type_: &str) -> (String, String) {
    let condition = find(&status.conditions, type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn is(truth: &str, reason: &str) -> (String, String) {
    (truth.to_owned(), reason.to_owned())
}

#[test]
fn a_bound_claim_with_live_workers_and_a_readable_root_is_ready() {
    let status = bound(a_dataset(), &observed());
    for type_ in [READY, MOUNTABLE, WORKERS_AVAILABLE, UFS_REACHABLE] {
        assert!(is_true(&status.conditions, type_), "{type_}");
    }
    let ring = status.ring.unwrap();
    assert_eq!(
        (
            ring.workers,
            ring.live_workers,
            ring.virtual_nodes_per_worker
        ),
        (2, 2, 2000)
    );
    assert_eq!(status.observed_generation, Some(1));
}

#[test]
fn an_unbound_claim_is_not_mountable() {
    let status = with_volume(a_dataset(), &observed(), a_claim_that_is("Pending"));
    assert_eq!(says(&status, MOUNTABLE), is("False", "Binding"));
    assert_eq!(says(&status, READY), is("False", "Binding"));
}

#[test]
fn dead_workers_make_it_unready_and_the_root_unknown() {
    let cluster = Observed {
        survey: survey(&[]),
        ..observed()
    };
    let status = bound(a_dataset(), &cluster);
    assert_eq!(
        says(&status, WORKERS_AVAILABLE),
        is("False", "WorkersUnreachable")
    );
    assert_eq!(
        says(&status, UFS_REACHABLE),
        is("Unknown", "NoWorkerCanTell")
    );
    assert_eq!(says(&status, READY), is("False", "WorkersUnavailable"));
    let message = &find(&status.conditions, WORKERS_AVAILABLE).unwrap().message;
    assert!(
        message.contains("w0:28080, w1:28080") && message.contains("check"),
        "{message}"
    );
}

#[test]
fn one_silent_worker_is_named_and_leaves_it_ready() {
    let status = bound(
        a_dataset(),
        &Observed {
            survey: survey(&["w1"]),
            ..observed()
        },
    );
    assert_eq!(says(&status, WORKERS_AVAILABLE), is("True", "SomeLive"));
    assert!(
        find(&status.conditions, WORKERS_AVAILABLE)
            .unwrap()
            .message
            .contains("w0:28080")
    );
    assert!(is_true(&status.conditions, READY));
}

#[test]
fn an_unreachable_etcd_is_passed_on_in_its_own_words() {
    let mut cluster = observed();
    cluster.survey.members = Members::Unknown("etcd at http://e:1 cannot be read".to_owned());
    cluster.survey.live.clear();
    let status = bound(a_dataset().on_etcd("http://e:1"), &cluster);
    assert_eq!(
        says(&status, WORKERS_AVAILABLE),
        is("False", "MembershipUnreachable")
    );
    assert!(
        find(&status.conditions, READY)
            .unwrap()
            .message
            .contains("http://e:1")
    );
    assert_eq!(status.ring, None);
}

#[test]
fn what_the_under_store_said_decides_about_the_root() {
    let cases = [
        (Root::Missing("no such bucket".to_owned()), "NotFound"),
        (Root::Denied("403".to_owned()), "PermissionDenied"),
        (Root::Failed("timeout".to_owned()), "Unavailable"),
        (Root::File, "NotADirectory"),
    ];
    for (root, reason) in cases {
        let mut cluster = observed();
        cluster.survey.root = root;
        let status = bound(a_dataset(), &cluster);
        assert_eq!(says(&status, UFS_REACHABLE), is("False", reason));
        assert_eq!(says(&status, READY), is("False", "UFSUnreachable"));
        let message = &find(&status.conditions, UFS_REACHABLE).unwrap().message;
        assert!(message.contains("s3://ml/imagenet"), "{message}");
    }
}

#[test]
fn a_dataset_without_workers_is_ready_by_design() {
    let cluster = Observed {
        survey: crate::workers::Survey::none(),
        ..observed()
    };
    let status = bound(a_dataset().without_workers(), &cluster);
    assert_eq!(
        says(&status, WORKERS_AVAILABLE),
        is("False", "NotConfigured")
    );
    assert!(is_true(&status.conditions, READY));
}

#[test]
fn an_invalid_dataset_says_why_and_nothing_else_changes() {
    let dataset: AlluxioDataset = a_dataset().with_pages_of("0").into();
    let error = crate::dataset::client_config(&dataset).unwrap_err();
    let status = status(&dataset, &observed(), &Outcome::Invalid(&error), second(1));
    assert_eq!(says(&status, READY), is("False", "InvalidSpec"));
    assert!(
        find(&status.conditions, READY)
            .unwrap()
            .message
            .contains("spec.client.pageSize")
    );
}

#[test]
fn a_password_in_a_uri_is_in_no_message() {
    let dataset: AlluxioDataset = a_dataset().at("s3://AKIA:hunter2@ml/x").into();
    let error = crate::dataset::client_config(&dataset).unwrap_err();
    let status = status(&dataset, &observed(), &Outcome::Invalid(&error), second(1));
    assert!(!format!("{status:?}").contains("hunter2"));
}

#[test]
fn an_edit_that_waits_for_pods_says_so_and_stays_mountable() {
    let pending = VolumeOutcome::EditPending {
        pods: "train-0".to_owned(),
    };
    let status = with_volume(a_dataset(), &observed(), pending);
    assert_eq!(says(&status, MOUNTABLE), is("True", "EditPending"));
    assert!(
        find(&status.conditions, MOUNTABLE)
            .unwrap()
            .message
            .contains("train-0")
    );
    assert!(is_true(&status.conditions, READY));
}

#[test]
fn a_deleted_volume_that_pods_use_is_said_and_stays_mountable() {
    let deleted = VolumeOutcome::VolumeDeleted {
        pods: "train-0".to_owned(),
    };
    let status = with_volume(a_dataset(), &observed(), deleted);
    assert_eq!(says(&status, MOUNTABLE), is("True", "VolumeDeleted"));
    let message = &find(&status.conditions, MOUNTABLE).unwrap().message;
    assert!(message.contains("train-0"), "{message}");
}

#[test]
fn a_foreign_claim_is_named_with_the_remedy() {
    let conflict = Conflict {
        object: "PersistentVolumeClaim vision/imagenet".to_owned(),
    };
    let status = with_volume(a_dataset(), &observed(), VolumeOutcome::Conflict(conflict));
    assert_eq!(says(&status, MOUNTABLE), is("False", "NameConflict"));
    let message = &find(&status.conditions, MOUNTABLE).unwrap().message;
    assert!(
        message.contains("vision/imagenet") && message.contains("another name"),
        "{message}"
    );
}

#[test]
fn a_finished_load_gives_the_datasets_size_and_share() {
    let load = a_load()
        .ended(LoadState::Succeeded, 50)
        .having_loaded(2000, 3 << 20)
        .into();
    let status = bound(
        a_dataset(),
        &Observed {
            loads: vec![load],
            ..observed()
        },
    );
    assert_eq!(says(&status, LOADED), is("True", "LoadSucceeded"));
    let ufs = status.ufs.unwrap();
    assert_eq!(
        (ufs.files, ufs.bytes, ufs.size.as_str()),
        (2000, 3 << 20, "3.0Mi")
    );
    assert_eq!(status.cache.unwrap().percent, 100);
    let summary = status.load.unwrap();
    assert_eq!(summary.last_load_ref.name, "a-load");
    assert_eq!(summary.last_successful_time, Some(Time(second(50))));
}

#[test]
fn a_load_of_a_part_does_not_count_as_the_dataset() {
    let load = a_load()
        .of_paths(&["/train"])
        .ended(LoadState::Succeeded, 50)
        .having_loaded(1, 1);
    let status = bound(
        a_dataset(),
        &Observed {
            loads: vec![load.into()],
            ..observed()
        },
    );
    assert_eq!(says(&status, LOADED), is("False", "PartlyLoaded"));
    assert_eq!(status.ufs, None);
}

#[test]
fn what_a_pruned_load_reported_is_remembered() {
    let load = a_load()
        .ended(LoadState::Succeeded, 50)
        .having_loaded(7, 70)
        .into();
    let before = bound(
        a_dataset(),
        &Observed {
            loads: vec![load],
            ..observed()
        },
    );
    let after = bound(a_dataset().remembering(before.clone()), &observed());
    assert_eq!(says(&after, LOADED), is("True", "LoadSucceeded"));
    assert_eq!(
        (after.ufs, after.cache, after.load),
        (before.ufs, before.cache, before.load)
    );
}

#[test]
fn an_unchanged_world_gives_an_identical_status_and_no_event() {
    let first = bound(a_dataset(), &observed());
    let again = bound(a_dataset().remembering(first.clone()), &observed());
    assert_eq!(first, again);
    assert_eq!(notices(&first, &again), []);
}

#[test]
fn events_tell_of_conditions_that_flipped() {
    let good = bound(a_dataset(), &observed());
    let bad = bound(
        a_dataset().remembering(good.clone()),
        &Observed {
            survey: survey(&[]),
            ..observed()
        },
    );
    let told = notices(&good, &bad);
    let reasons: Vec<_> = told
        .iter()
        .map(|n| (n.warning, n.reason.as_str()))
        .collect();
    assert_eq!(
        reasons,
        [(true, "WorkersUnavailable"), (true, "WorkersUnreachable")]
    );
    let first = notices(&AlluxioDatasetStatus::default(), &good);
    assert!(
        first.iter().any(|n| !n.warning && n.reason == "Ready"),
        "{first:?}"
    );
}

#[test]
fn sizes_are_written_for_people() {
    let sizes = [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0Ki"),
        (148_015_448_064, "137.8Gi"),
    ];
    for (bytes, text) in sizes {
        assert_eq!(human_size(bytes), text);
    }
}
