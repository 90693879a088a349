//! Both controllers and both definitions against a real API server and controller manager.
//!
//! One cluster serves all scenarios, each in a namespace of its own, side by side. It runs where
//! Kubernetes' binaries are (`tests/cluster/cluster build`), says one line where they are not, and
//! fails there when CI asks for everything.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod cluster;
mod conditions;
mod deletion;
mod lifecycle;
mod testbed;
mod worker;

use crate::cluster::Cluster;
use crate::testbed::Testbed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_against_a_real_api_server() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let testbed = Testbed::start(&cluster).await;
    bad_input::every_bad_input_is_refused_with_its_remedy(&testbed).await;
    bad_input::defaults_are_stored(&testbed).await;
    tokio::join!(
        lifecycle::a_good_dataset_is_bound_loaded_edited_and_deleted(&testbed),
        lifecycle::a_load_is_stopped_when_it_is_deleted(&testbed),
        lifecycle::a_failing_load_is_given_up_after_its_backoff_limit(&testbed),
        conditions::a_missing_secret_is_waited_for(&testbed),
        conditions::an_unreachable_etcd_is_a_condition(&testbed),
        conditions::workers_are_found_in_etcd(&testbed, &cluster),
        conditions::what_the_under_store_says_is_a_condition(&testbed),
        conditions::a_foreign_claim_is_left_alone(&testbed),
        deletion::dead_workers_do_not_hold_a_deleted_dataset(&testbed),
        deletion::a_deleted_volume_is_made_anew(&testbed),
        deletion::a_pod_that_stays_does_not_hold_it_forever(&testbed),
    );
    testbed.stop().await;
}
