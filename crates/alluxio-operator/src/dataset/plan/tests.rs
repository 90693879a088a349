//! Plans for sample datasets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use alluxio_crds::dataset::{LoadReference, LoadSummary};
use alluxio_crds::load::LoadState;
use alluxio_crds::{AlluxioDataset, AlluxioDatasetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::dataset::validate::validate;
use crate::samples::{a_dataset, a_load, observed, second};

fn planned(dataset: impl Into<AlluxioDataset>, observed: &Observed) -> Plan {
    let dataset = dataset.into();
    let valid = validate(&dataset, observed).unwrap();
    plan(&valid, observed)
}

fn wanted(dataset: impl Into<AlluxioDataset>) -> WantedVolume {
    match planned(dataset, &observed()).volume {
        VolumePlan::Apply(wanted) => *wanted,
        other => panic!("{other:?}"),
    }
}

/// A cluster that has what a dataset wants, the claim bound.
fn with_volume_of(dataset: impl Into<AlluxioDataset>) -> Observed {
    let WantedVolume {
        mut volume,
        mut claim,
    } = wanted(dataset);
    claim.metadata.uid = Some("claim-1".to_owned());
    let spec = volume.spec.as_mut().unwrap();
    spec.claim_ref.as_mut().unwrap().uid = Some("claim-1".to_owned());
    Observed {
        volume: Some(volume),
        claim: Some(claim),
        ..observed()
    }
}

#[test]
fn a_new_dataset_gets_a_volume_that_only_its_claim_can_take() {
    let WantedVolume { volume, claim } = wanted(a_dataset());
    let spec = volume.spec.unwrap();
    let claim_ref = spec.claim_ref.unwrap();
    assert_eq!(claim_ref.namespace.as_deref(), Some("vision"));
    assert_eq!(claim_ref.name.as_deref(), Some("imagenet"));
    assert_eq!(spec.storage_class_name.as_deref(), Some(""));
    assert_eq!(
        spec.persistent_volume_reclaim_policy.as_deref(),
        Some("Retain")
    );
    let claim_spec = claim.spec.unwrap();
    assert_eq!(claim_spec.volume_name, volume.metadata.name);
    assert_eq!(claim_spec.access_modes.unwrap(), ["ReadOnlyMany"]);
    assert_eq!(claim.metadata.owner_references.unwrap()[0].name, "imagenet");
}

#[test]
fn the_volume_carries_the_configuration_and_no_secret() {
    let WantedVolume { volume, .. } = wanted_with_secret();
    let csi = volume.spec.unwrap().csi.unwrap();
    let attributes = csi.volume_attributes.unwrap();
    let config = alluxio_config::Config::from_yaml(&attributes[names::ATTRIBUTE_CONFIG]).unwrap();
    assert_eq!(config.ufs.uri.as_str(), "s3://ml/imagenet");
    assert_eq!(attributes[names::ATTRIBUTE_DATASET], "vision/imagenet");
    let options: serde_json::Value =
        serde_json::from_str(&attributes[names::ATTRIBUTE_MOUNT_OPTIONS]).unwrap();
    assert_eq!(
        (&options["uid"], &options["fileMode"]),
        (&json!(0), &json!("0444"))
    );
    let secret = csi.node_stage_secret_ref.unwrap();
    assert_eq!(
        (secret.name.as_deref(), secret.namespace.as_deref()),
        (Some("keys"), Some("vision"))
    );
    assert_eq!(
        (csi.driver.as_str(), csi.read_only),
        ("csi.alluxio-dataset.io", Some(true))
    );
}

fn wanted_with_secret() -> WantedVolume {
    let dataset = a_dataset().with_secret("keys").into();
    let config = crate::dataset::client_config(&dataset).unwrap();
    let valid = ValidDataset {
        object: &dataset,
        namespace: "vision",
        name: "imagenet",
        uid: "uid-1",
        config,
    };
    WantedVolume::of(&valid)
}

#[test]
fn a_dataset_that_is_written_has_a_volume_and_a_mount_for_it() {
    let WantedVolume { volume, claim } = wanted(a_dataset().written());
    let (volume, claim) = (volume.spec.unwrap(), claim.spec.unwrap());
    for modes in [volume.access_modes, claim.access_modes] {
        assert_eq!(modes.unwrap(), ["ReadWriteMany"]);
    }
    let csi = volume.csi.unwrap();
    assert_eq!(csi.read_only, Some(false));
    let config = &csi.volume_attributes.unwrap()[names::ATTRIBUTE_CONFIG];
    let config = alluxio_config::Config::from_yaml(config).unwrap();
    assert!(!config.mount.read_only);
    assert_eq!(config.mount.staging_capacity_bytes, 10 << 30);
}

#[test]
fn a_dataset_that_is_to_be_written_gets_another_volume() {
    let observed = with_volume_of(a_dataset());
    assert!(matches!(
        planned(a_dataset().written(), &observed).volume,
        VolumePlan::Replace {
            why: Misfit::Edited
        }
    ));
}

#[test]
fn an_unchanged_dataset_keeps_its_volume() {
    let observed = with_volume_of(a_dataset());
    assert!(matches!(
        planned(a_dataset(), &observed).volume,
        VolumePlan::Apply(_)
    ));
}

#[test]
fn a_configuration_written_differently_is_still_the_same() {
    let mut observed = with_volume_of(a_dataset());
    let csi = observed
        .volume
        .as_mut()
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .csi
        .as_mut()
        .unwrap();
    let config = csi
        .volume_attributes
        .as_mut()
        .unwrap()
        .get_mut(names::ATTRIBUTE_CONFIG)
        .unwrap();
    config.insert_str(0, "# written by another release\n");
    assert!(matches!(
        planned(a_dataset(), &observed).volume,
        VolumePlan::Apply(_)
    ));
}

#[test]
fn an_edited_dataset_needs_another_volume() {
    let observed = with_volume_of(a_dataset());
    let edited = planned(a_dataset().with_pages_of("4Mi"), &observed).volume;
    assert_eq!(
        edited,
        VolumePlan::Replace {
            why: Misfit::Edited
        }
    );
}

#[test]
fn another_configuration_has_another_volume_handle() {
    let handle = |wanted: WantedVolume| wanted.volume.spec.unwrap().csi.unwrap().volume_handle;
    assert_ne!(
        handle(wanted(a_dataset())),
        handle(wanted(a_dataset().with_pages_of("4Mi")))
    );
    assert_eq!(handle(wanted(a_dataset())), handle(wanted(a_dataset())));
}

#[test]
fn a_volume_whose_claim_was_deleted_is_replaced() {
    let mut observed = with_volume_of(a_dataset());
    observed.claim = None;
    let plan = planned(a_dataset(), &observed);
    assert_eq!(
        plan.volume,
        VolumePlan::Replace {
            why: Misfit::Released
        }
    );
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let mut observed = with_volume_of(a_dataset());
    observed.claim.as_mut().unwrap().metadata.labels = None;
    let VolumePlan::Conflict(conflict) = planned(a_dataset(), &observed).volume else {
        panic!("no conflict")
    };
    assert_eq!(conflict.object, "PersistentVolumeClaim vision/imagenet");
    observed.volume.as_mut().unwrap().metadata.labels = None;
    assert!(matches!(
        planned(a_dataset(), &observed).volume,
        VolumePlan::Conflict(_)
    ));
}

#[test]
fn what_is_being_deleted_is_waited_for() {
    let mut observed = with_volume_of(a_dataset());
    observed.claim.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(second(1)));
    assert_eq!(
        planned(a_dataset(), &observed).volume,
        VolumePlan::AwaitDeletion
    );
}

#[test]
fn a_volume_that_was_deleted_under_its_claim_is_replaced() {
    let mut observed = with_volume_of(a_dataset());
    let leaving = Some(Time(second(1)));
    observed
        .volume
        .as_mut()
        .unwrap()
        .metadata
        .deletion_timestamp = leaving;
    let why = Misfit::Deleted;
    assert_eq!(
        planned(a_dataset(), &observed).volume,
        VolumePlan::Replace { why }
    );
    observed.claim = None;
    assert_eq!(
        planned(a_dataset(), &observed).volume,
        VolumePlan::AwaitDeletion
    );
}

#[test]
fn without_a_load_mode_nothing_is_loaded() {
    assert_eq!(planned(a_dataset(), &observed()).load, None);
}

#[test]
fn a_spec_is_loaded_once() {
    let load = planned(a_dataset().loaded_once(), &observed())
        .load
        .unwrap();
    let made = Observed {
        loads: vec![load.clone()],
        ..observed()
    };
    assert_eq!(planned(a_dataset().loaded_once(), &made).load, None);
    assert_eq!(load.spec.dataset_ref.name, "imagenet");
}

#[test]
fn a_load_that_was_pruned_is_not_made_again() {
    let load = planned(a_dataset().loaded_once(), &observed())
        .load
        .unwrap();
    let summary = LoadSummary {
        last_load_ref: LoadReference {
            name: load.name_any(),
        },
        ..LoadSummary::default()
    };
    let status = AlluxioDatasetStatus {
        load: Some(summary),
        ..AlluxioDatasetStatus::default()
    };
    let dataset = a_dataset().loaded_once().remembering(status);
    assert_eq!(planned(dataset, &observed()).load, None);
}

#[test]
fn other_paths_are_another_load_and_end_the_old_one() {
    let old = planned(a_dataset().loaded_once(), &observed())
        .load
        .unwrap();
    let made = Observed {
        loads: vec![old.clone()],
        ..observed()
    };
    let plan = planned(a_dataset().loaded_once().of_paths(&["/train"]), &made);
    assert_ne!(plan.load.unwrap().name_any(), old.name_any());
    assert_eq!(plan.delete_loads, [old.name_any()]);
}

#[test]
fn a_users_own_load_is_not_superseded() {
    let made = Observed {
        loads: vec![a_load().running_at("w0:1").into()],
        ..observed()
    };
    assert!(
        planned(a_dataset().loaded_once(), &made)
            .delete_loads
            .is_empty()
    );
}

#[test]
fn the_oldest_finished_loads_go_beyond_the_history() {
    let ended = |name: &str, at| {
        let load = a_load().named(name).made_for("uid-1");
        load.ended(LoadState::Succeeded, at).into()
    };
    let loads = vec![ended("new", 30), ended("old", 10), ended("middle", 20)];
    let made = Observed {
        loads,
        ..observed()
    };
    let plan = planned(a_dataset().keeping_history_of(2), &made);
    assert_eq!(plan.delete_loads, ["old"]);
    let all = planned(a_dataset().keeping_history_of(0), &made).delete_loads;
    assert_eq!(all, ["old", "middle", "new"]);
}

#[test]
fn a_users_own_finished_load_is_not_pruned() {
    let made = Observed {
        loads: vec![a_load().ended(LoadState::Succeeded, 1).into()],
        ..observed()
    };
    let plan = planned(a_dataset().keeping_history_of(0), &made);
    assert!(plan.delete_loads.is_empty(), "{:?}", plan.delete_loads);
}

#[test]
fn turning_the_load_off_ends_the_operators_running_load() {
    let ours = a_load()
        .named("ours")
        .made_for("uid-1")
        .running_at("w0:1")
        .into();
    let made = Observed {
        loads: vec![ours],
        ..observed()
    };
    assert_eq!(planned(a_dataset(), &made).delete_loads, ["ours"]);
}
