//! Step 2: submit, ask, or wait? Pure.

use alluxio_config::Config;
use alluxio_crds::dataset::{CachedFiles, Verification};
use alluxio_crds::load::{LoadContent, LoadState};
use alluxio_crds::{AlluxioDataLoad, ByteQuantity};
use alluxio_wire::{LoadOptions, UfsUri};
use k8s_openapi::jiff::Timestamp;

use super::observe::Observed;
use crate::worker_api::WorkerEndpoint;

/// The next step of a load.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It cannot begin yet: why.
    Wait(String),
    /// It failed a moment ago and is to be submitted later.
    Pause,
    /// Give it to a worker.
    Submit {
        /// Who the workers are.
        config: Box<Config>,
        /// One job for each.
        paths: Vec<UfsUri>,
        /// How to load.
        options: LoadOptions,
    },
    /// Ask the worker that has it.
    Ask {
        /// That worker.
        worker: WorkerEndpoint,
        /// One job for each.
        paths: Vec<UfsUri>,
    },
}

/// Decides the next step of a load that has not ended.
pub(super) fn plan(load: &AlluxioDataLoad, observed: &Observed, now: Timestamp) -> Step {
    let config = match observed {
        Observed::NotLoadable(why) => return Step::Wait(why.clone()),
        Observed::Dataset(config) => config,
    };
    let paths = match paths(load, &config.ufs.uri) {
        Ok(paths) => paths,
        Err(why) => return Step::Wait(why),
    };
    let status = load.status.clone().unwrap_or_default();
    // While it waits for another attempt it keeps its worker, for a cleanup to stop.
    let runs = matches!(status.state, LoadState::Running | LoadState::Verifying);
    if let Some(worker) = status.worker.filter(|_| runs) {
        return Step::Ask {
            worker: WorkerEndpoint::parse(&worker),
            paths,
        };
    }
    if status.next_attempt_time.is_some_and(|at| at.0 > now) {
        return Step::Pause;
    }
    match options(load) {
        Ok(options) => Step::Submit {
            config: config.clone(),
            paths,
            options,
        },
        Err(why) => Step::Wait(why),
    }
}

/// The full URIs of a load's paths.
pub(super) fn paths(load: &AlluxioDataLoad, root: &UfsUri) -> Result<Vec<UfsUri>, String> {
    let one = |path: &String| {
        let relative = path.trim_matches('/');
        root.join(relative)
            .map_err(|error| format!("spec.paths: {error}"))
    };
    load.spec.paths.iter().map(one).collect()
}

fn options(load: &AlluxioDataLoad) -> Result<LoadOptions, String> {
    let spec = &load.spec;
    let bandwidth = spec
        .bandwidth_per_worker
        .as_ref()
        .map(ByteQuantity::bytes)
        .transpose();
    Ok(LoadOptions {
        verify: spec.verification == Verification::Size,
        bandwidth_bytes_per_second: bandwidth
            .map_err(|error| format!("spec.bandwidthPerWorker: {error}"))?,
        // The first files load while the last are still listed.
        partial_listing: true,
        metadata_only: spec.content == LoadContent::Metadata,
        skip_if_exists: spec.cached_files == CachedFiles::Skip,
        file_filter: spec.file_filter.clone(),
        verbose: false,
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;
    use crate::dataset::client_config;
    use crate::samples::{a_dataset, a_load, second};

    fn next(load: impl Into<AlluxioDataLoad>) -> Step {
        let config = client_config(&a_dataset().into()).unwrap();
        plan(
            &load.into(),
            &Observed::Dataset(Box::new(config)),
            second(100),
        )
    }

    #[test]
    fn a_new_load_is_submitted_with_its_paths_below_the_root() {
        let Step::Submit { paths, options, .. } = next(a_load().of_paths(&["/", "/a b/"])) else {
            panic!("not submitted")
        };
        let paths: Vec<_> = paths.iter().map(UfsUri::as_str).collect();
        assert_eq!(paths, ["s3://ml/imagenet", "s3://ml/imagenet/a b"]);
        assert!(options.skip_if_exists && !options.verify && !options.metadata_only);
    }

    #[test]
    fn a_submitted_load_is_only_asked_about() {
        let load = a_load().running_at("w1:28080");
        assert!(matches!(next(load), Step::Ask { worker, .. } if worker.as_str() == "w1:28080"));
    }

    #[test]
    fn after_a_failure_it_waits_for_its_next_attempt() {
        assert!(matches!(
            next(a_load().waiting_for_its_attempt_at(101)),
            Step::Pause
        ));
        assert!(matches!(
            next(a_load().waiting_for_its_attempt_at(99)),
            Step::Submit { .. }
        ));
    }

    #[test]
    fn a_failed_attempt_is_submitted_again_though_its_worker_is_known() {
        let mut load: AlluxioDataLoad = a_load().running_at("w1:28080").into();
        load.status.as_mut().unwrap().state = LoadState::Pending;
        assert!(matches!(next(load), Step::Submit { .. }));
    }

    #[test]
    fn without_its_dataset_it_waits_and_says_why() {
        let observed = Observed::NotLoadable("gone".to_owned());
        let step = plan(&a_load().into(), &observed, second(0));
        assert!(matches!(step, Step::Wait(why) if why == "gone"));
    }
}
