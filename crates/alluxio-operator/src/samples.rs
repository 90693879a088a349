//! Objects for tests that read as sentences: `a_dataset().with_secret("keys").on_etcd("...")`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use alluxio_crds::dataset::{
    AccessMode, CredentialsType, EtcdMembership, FallbackPolicy, LoadMode, MembershipType,
    ObjectName, StaticMembership,
};
use alluxio_crds::load::{AlluxioDataLoadSpec, LoadState};
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset, ByteQuantity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::dataset::observe::{Observed, SecretState};
use crate::worker_api::WorkerEndpoint;
use crate::workers::{Members, Root, Survey};

/// Builds a dataset: `vision/imagenet` at `s3://ml/imagenet` with two workers and no load.
pub(crate) struct DatasetBuilder(AlluxioDataset);

/// Builds a load of `vision/imagenet`.
pub(crate) struct LoadBuilder(AlluxioDataLoad);

pub(crate) fn a_dataset() -> DatasetBuilder {
    let yaml = "
        apiVersion: data.alluxio.io/v1alpha1
        kind: AlluxioDataset
        metadata: {name: imagenet, namespace: vision, uid: uid-1, generation: 1}
        spec:
          ufs: {uri: 's3://ml/imagenet'}
          cluster: {membership: {type: Static, static: {workers: ['w0:28080', 'w1:28080']}}}";
    DatasetBuilder(serde_yaml::from_str(yaml).unwrap())
}

impl DatasetBuilder {
    pub(crate) fn at(mut self, uri: &str) -> Self {
        uri.clone_into(&mut self.0.spec.ufs.uri);
        self
    }

    pub(crate) fn with_secret(mut self, name: &str) -> Self {
        let credentials = &mut self.0.spec.ufs.credentials;
        credentials.kind = CredentialsType::SecretRef;
        credentials.secret_ref = Some(ObjectName {
            name: name.to_owned(),
        });
        self
    }

    pub(crate) fn never_from_the_ufs(mut self) -> Self {
        self.0.spec.client.fallback.policy = FallbackPolicy::Never;
        self
    }

    pub(crate) fn written(mut self) -> Self {
        self.0.spec.mount.access_modes = vec![AccessMode::ReadWriteMany];
        self
    }

    pub(crate) fn with_pages_of(mut self, size: &str) -> Self {
        self.0.spec.client.page_size = ByteQuantity::new(size);
        self
    }

    pub(crate) fn with_virtual_nodes(mut self, number: i32) -> Self {
        self.0.spec.client.virtual_nodes_per_worker = number;
        self
    }

    pub(crate) fn on_workers(mut self, workers: &[&str]) -> Self {
        let workers = workers.iter().map(ToString::to_string).collect();
        self.0.spec.cluster.membership.static_list = Some(StaticMembership { workers });
        self
    }

    pub(crate) fn on_etcd(mut self, endpoint: &str) -> Self {
        let membership = &mut self.0.spec.cluster.membership;
        membership.kind = MembershipType::Etcd;
        membership.static_list = None;
        membership.etcd = Some(EtcdMembership {
            endpoints: vec![endpoint.to_owned()],
        });
        self
    }

    pub(crate) fn without_workers(mut self) -> Self {
        self.0.spec.cluster.membership.kind = MembershipType::None;
        self.0.spec.cluster.membership.static_list = None;
        self
    }

    pub(crate) fn loaded_once(mut self) -> Self {
        self.0.spec.load.mode = LoadMode::Once;
        self
    }

    pub(crate) fn keeping_history_of(mut self, loads: i32) -> Self {
        self.0.spec.load.history_limit = loads;
        self
    }

    pub(crate) fn of_paths(mut self, paths: &[&str]) -> Self {
        self.0.spec.load.paths = paths.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn remembering(mut self, status: alluxio_crds::AlluxioDatasetStatus) -> Self {
        self.0.status = Some(status);
        self
    }
}

impl From<DatasetBuilder> for AlluxioDataset {
    fn from(builder: DatasetBuilder) -> Self {
        builder.0
    }
}

pub(crate) fn a_load() -> LoadBuilder {
    let spec: AlluxioDataLoadSpec = serde_yaml::from_str("datasetRef: {name: imagenet}").unwrap();
    let mut load = AlluxioDataLoad::new("a-load", spec);
    load.metadata.namespace = Some("vision".to_owned());
    LoadBuilder(load)
}

impl LoadBuilder {
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.0.metadata.name = Some(name.to_owned());
        self
    }

    /// Made by the operator for the dataset with this uid.
    pub(crate) fn made_for(mut self, uid: &str) -> Self {
        let labels = self.0.metadata.labels.get_or_insert_default();
        labels.insert(crate::names::LABEL_DATASET_UID.to_owned(), uid.to_owned());
        self
    }

    pub(crate) fn of_paths(mut self, paths: &[&str]) -> Self {
        self.0.spec.paths = paths.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn running_at(mut self, worker: &str) -> Self {
        let status = self.0.status.get_or_insert_default();
        status.state = LoadState::Running;
        status.worker = Some(worker.to_owned());
        self
    }

    pub(crate) fn started_at(mut self, seconds: i64) -> Self {
        self.0.status.get_or_insert_default().start_time = Some(Time(second(seconds)));
        self
    }

    pub(crate) fn waiting_for_its_attempt_at(mut self, seconds: i64) -> Self {
        self.0.status.get_or_insert_default().next_attempt_time = Some(Time(second(seconds)));
        self
    }

    pub(crate) fn after_retries(mut self, retries: i32) -> Self {
        self.0.status.get_or_insert_default().retries = retries;
        self
    }

    pub(crate) fn ended(mut self, state: LoadState, seconds: i64) -> Self {
        let status = self.0.status.get_or_insert_default();
        status.state = state;
        status.completion_time = Some(Time(second(seconds)));
        self
    }

    pub(crate) fn having_loaded(mut self, files: i64, bytes: i64) -> Self {
        let status = self.0.status.get_or_insert_default();
        status.files_done = Some(files);
        status.files_total = Some(files);
        status.bytes_done = Some(bytes);
        status.bytes_total = Some(bytes);
        status.bytes_percent = Some(100);
        self
    }
}

impl From<LoadBuilder> for AlluxioDataLoad {
    fn from(builder: LoadBuilder) -> Self {
        builder.0
    }
}

/// An otherwise empty cluster with both workers alive and a readable root.
pub(crate) fn observed() -> Observed {
    Observed {
        secret: SecretState::NotNeeded,
        volume: None,
        claim: None,
        loads: Vec::new(),
        survey: survey(&["w0", "w1"]),
    }
}

/// Of two workers these answer.
pub(crate) fn survey(live: &[&str]) -> Survey {
    let worker = |host: &str| WorkerEndpoint::new(host, 28080);
    let live: Vec<_> = live.iter().map(|host| worker(host)).collect();
    let root = match live.first() {
        Some(first) => Root::Directory {
            seen_by: first.clone(),
        },
        None => Root::Unknown("no worker answers".to_owned()),
    };
    Survey {
        members: Members::Known(vec![worker("w0"), worker("w1")]),
        live,
        root,
    }
}

pub(crate) fn second(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}
