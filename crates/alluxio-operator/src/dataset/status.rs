//! Step 5: say what is. Conditions are computed purely; one patch, and only when it changes
//! something.

use alluxio_crds::conditions::{
    ConditionSet, LOADED, MOUNTABLE, READY, UFS_REACHABLE, Verdict, WORKERS_AVAILABLE,
};
use alluxio_crds::dataset::{
    AlluxioDatasetStatus, CacheStatus, FallbackPolicy, LoadMode, LoadReference, LoadSummary,
    MembershipType, RingStatus, UfsStatus,
};
use alluxio_crds::load::{AlluxioDataLoadStatus, LoadState};
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::apply::{Applied, VolumeOutcome};
use super::observe::Observed;
use super::plan::last_load_name;
use super::validate::InvalidDataset;
use crate::context::{Context, Notice};
use crate::workers::{Members, Root};

/// Why the status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("status of AlluxioDataset {dataset} cannot be written: {source}")]
pub struct StatusError {
    /// `namespace/name`.
    pub dataset: String,
    /// What the API server said.
    pub source: kube::Error,
}

/// How the earlier steps ended.
#[derive(Clone, Debug)]
pub enum Outcome<'a> {
    /// The spec or its Secret cannot work; nothing was applied.
    Invalid(&'a InvalidDataset),
    /// The plan was carried out.
    Applied {
        /// What was done.
        applied: &'a Applied,
        /// The name of the load that the spec asks for.
        wanted_load: Option<&'a str>,
    },
}

/// The whole status of a dataset after a reconcile.
pub fn status(
    dataset: &AlluxioDataset,
    observed: &Observed,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> AlluxioDatasetStatus {
    let previous = dataset.status.clone().unwrap_or_default();
    let load = CurrentLoad::of(dataset, observed, outcome);
    let workers = workers(observed);
    let ufs = ufs(dataset, observed);
    let mountable = mountable(dataset, observed, outcome);
    let ready = ready(dataset, outcome, &mountable, &workers, &ufs);
    let generation = dataset.metadata.generation;
    let conditions = ConditionSet::new(&previous.conditions, generation, now)
        .with(READY, &ready)
        .with(MOUNTABLE, &mountable)
        .with(WORKERS_AVAILABLE, &workers)
        .with(UFS_REACHABLE, &ufs)
        .with(LOADED, &load.verdict(dataset))
        .build();
    AlluxioDatasetStatus {
        observed_generation: generation,
        conditions,
        ufs: load.ufs().or(previous.ufs),
        ring: ring(dataset, observed),
        cache: load.cache().or(previous.cache),
        load: load.summary(previous.load),
    }
}

/// Writes the status when it differs from what the object says.
pub async fn write(
    context: &Context,
    dataset: &AlluxioDataset,
    status: &AlluxioDatasetStatus,
) -> Result<(), StatusError> {
    if dataset.status.as_ref() == Some(status) {
        return Ok(());
    }
    let namespace = dataset.metadata.namespace.as_deref().unwrap_or_default();
    let datasets: Api<AlluxioDataset> = Api::namespaced(context.client.clone(), namespace);
    // A merge patch leaves out what is gone, so absent parts are named as null.
    let mut patch = json!({ "ufs": null, "ring": null, "cache": null, "load": null });
    merge(&mut patch, &json!(status));
    let patch = Patch::Merge(json!({ "status": patch }));
    datasets
        .patch_status(&dataset.name_any(), &PatchParams::default(), &patch)
        .await
        .map(|_| ())
        .map_err(|source| StatusError {
            dataset: dataset.qualified_name(),
            source,
        })
}

/// What to tell about the way from one status to the next: conditions that flipped.
pub fn notices(previous: &AlluxioDatasetStatus, next: &AlluxioDatasetStatus) -> Vec<Notice> {
    let flipped = next.conditions.iter().filter(|condition| {
        let before = previous
            .conditions
            .iter()
            .find(|c| c.type_ == condition.type_);
        before.is_none_or(|b| b.status != condition.status || b.reason != condition.reason)
    });
    flipped
        .filter_map(|c| notice(&c.type_, &c.status, &c.reason, &c.message))
        .collect()
}

/// What a load does is told by the load's own events; what is not known yet is no news.
fn notice(type_: &str, status: &str, reason: &str, message: &str) -> Option<Notice> {
    let note = format!("{type_}: {message}");
    match (type_, status, reason) {
        (LOADED, ..) | (_, "Unknown", _) | (_, _, "NotConfigured" | "Binding") => None,
        (_, "True", "EditPending" | "VolumeDeleted" | "SomeLive") => {
            Some(Notice::warning(reason, note))
        }
        (_, "True", _) => Some(Notice::normal(reason, note)),
        _ => Some(Notice::warning(reason, note)),
    }
}

fn merge(base: &mut serde_json::Value, over: &serde_json::Value) {
    if let (Some(base), Some(over)) = (base.as_object_mut(), over.as_object()) {
        base.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

fn ready(
    dataset: &AlluxioDataset,
    outcome: &Outcome<'_>,
    mountable: &Verdict,
    workers: &Verdict,
    ufs: &Verdict,
) -> Verdict {
    use alluxio_crds::conditions::Truth::{False, True};
    let without_workers = dataset.spec.cluster.membership.kind == MembershipType::None;
    if let Outcome::Invalid(error) = outcome {
        return Verdict::fails(error.reason(), error.to_string());
    }
    if mountable.truth != True {
        return Verdict::fails(mountable.reason, mountable.message.clone());
    }
    if workers.truth == False && !without_workers {
        let reads = match dataset.spec.client.fallback.policy {
            FallbackPolicy::Never => "reads fail (client.fallback.policy is Never)",
            _ => "reads go to the under-store",
        };
        return Verdict::fails(
            "WorkersUnavailable",
            format!("{}; {reads}", workers.message),
        );
    }
    if ufs.truth == False {
        return Verdict::fails("UFSUnreachable", ufs.message.clone());
    }
    let name = dataset.qualified_name();
    Verdict::holds(
        "Ready",
        format!("pods can mount PersistentVolumeClaim {name}"),
    )
}

fn mountable(dataset: &AlluxioDataset, observed: &Observed, outcome: &Outcome<'_>) -> Verdict {
    let claim_name = dataset.qualified_name();
    let claim = match outcome {
        Outcome::Invalid(_) => observed.claim.as_ref(),
        Outcome::Applied { applied, .. } => match &applied.volume {
            VolumeOutcome::InPlace(claim) => Some(claim.as_ref()),
            VolumeOutcome::Replacing => {
                let text = format!("volume and claim {claim_name} are being replaced");
                return Verdict::fails("Replacing", text);
            }
            VolumeOutcome::EditPending { pods } => {
                let text = format!(
                    "claim {claim_name} keeps the configuration it was made with while pods use \
                     it ({pods}): the edited spec takes effect once they have ended"
                );
                return Verdict::holds("EditPending", text);
            }
            VolumeOutcome::VolumeDeleted { pods } => {
                let text = format!(
                    "the volume of claim {claim_name} was deleted; Kubernetes keeps it while pods \
                     use it ({pods}), and it is made anew once they have ended"
                );
                return Verdict::holds("VolumeDeleted", text);
            }
            VolumeOutcome::Conflict(conflict) => {
                let text = format!(
                    "{} exists and was not made for this dataset: delete it, or give the dataset \
                     another name",
                    conflict.object
                );
                return Verdict::fails("NameConflict", text);
            }
        },
    };
    let phase = claim.and_then(|c| c.status.as_ref()?.phase.as_deref());
    match phase {
        Some("Bound") => Verdict::holds("Bound", format!("claim {claim_name} is bound")),
        Some(phase) => {
            let text = format!("claim {claim_name} is {phase}: waiting for Kubernetes to bind it");
            Verdict::fails("Binding", text)
        }
        None => Verdict::fails("Binding", format!("claim {claim_name} is not there yet")),
    }
}

fn workers(observed: &Observed) -> Verdict {
    let survey = &observed.survey;
    let live = survey.live.len();
    match &survey.members {
        Members::NoneConfigured => Verdict::fails(
            "NotConfigured",
            "the dataset has no workers: all reads go to the under-store",
        ),
        Members::Unknown(why) => Verdict::fails("MembershipUnreachable", why.clone()),
        Members::Known(members) if members.is_empty() => Verdict::fails(
            "NoWorkers",
            "no worker is registered: start workers, or check cluster.name and the etcd endpoints",
        ),
        Members::Known(members) if live == 0 => Verdict::fails(
            "WorkersUnreachable",
            format!(
                "none of {} workers answers ({}): check that they run and that the operator may \
                 reach them",
                members.len(),
                survey.silent()
            ),
        ),
        Members::Known(members) if live < members.len() => Verdict::holds(
            "SomeLive",
            format!(
                "{live} of {} workers answer; silent: {}",
                members.len(),
                survey.silent()
            ),
        ),
        Members::Known(_) => Verdict::holds("AllLive", format!("every worker answers ({live})")),
    }
}

fn ufs(dataset: &AlluxioDataset, observed: &Observed) -> Verdict {
    // A URI that is not valid may hold a password.
    let uri = match alluxio_wire::UfsUri::parse(&dataset.spec.ufs.uri) {
        Ok(uri) => uri,
        Err(error) => return Verdict::unknown("InvalidSpec", error.to_string()),
    };
    match &observed.survey.root {
        Root::Directory { seen_by } => {
            Verdict::holds("Reachable", format!("worker {seen_by} can read {uri}"))
        }
        Root::File => Verdict::fails(
            "NotADirectory",
            format!("{uri} is a file: make a dataset of the folder that it is in"),
        ),
        Root::Missing(said) => Verdict::fails(
            "NotFound",
            format!(
                "{uri} does not exist for the workers ({said}): create it, or make a dataset \
                     with the right URI"
            ),
        ),
        Root::Denied(said) => Verdict::fails(
            "PermissionDenied",
            format!(
                "the workers may not read {uri} ({said}): check the credentials they were \
                     given and the bucket's policy"
            ),
        ),
        Root::Failed(said) => Verdict::fails(
            "Unavailable",
            format!(
                "the workers cannot read {uri} ({said}): check the under-store and its endpoint"
            ),
        ),
        Root::Unknown(why) => {
            Verdict::unknown("NoWorkerCanTell", format!("nobody looked at {uri}: {why}"))
        }
    }
}

fn ring(dataset: &AlluxioDataset, observed: &Observed) -> Option<RingStatus> {
    let Members::Known(members) = &observed.survey.members else {
        return None;
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    Some(RingStatus {
        workers: count(members.len()),
        live_workers: count(observed.survey.live.len()),
        virtual_nodes_per_worker: dataset.spec.client.virtual_nodes_per_worker,
    })
}

/// The load that speaks for the dataset: the wanted one, or else the youngest there is.
struct CurrentLoad<'a> {
    name: Option<String>,
    object: Option<&'a AlluxioDataLoad>,
    /// From the status, when the object was pruned.
    remembered: Option<LoadState>,
}

impl<'a> CurrentLoad<'a> {
    fn of(dataset: &AlluxioDataset, observed: &'a Observed, outcome: &Outcome<'a>) -> Self {
        let name = match outcome {
            Outcome::Applied {
                wanted_load: Some(name),
                ..
            } => Some((*name).to_owned()),
            Outcome::Applied { .. } | Outcome::Invalid(_) => {
                let youngest = observed.loads.iter().max_by_key(|l| l.creation_timestamp());
                let remembered = || last_load_name(dataset).map(str::to_owned);
                youngest.map(ResourceExt::name_any).or_else(remembered)
            }
        };
        let made = match outcome {
            Outcome::Applied { applied, .. } => applied.load_made.as_ref(),
            Outcome::Invalid(_) => None,
        };
        let mut all = observed.loads.iter().chain(made);
        let object = all.find(|load| Some(load.name_any()) == name);
        let summary = dataset.status.as_ref().and_then(|s| s.load.as_ref());
        let same = summary.filter(|s| Some(&s.last_load_ref.name) == name.as_ref());
        Self {
            object,
            remembered: same.and_then(|s| s.state),
            name,
        }
    }

    fn state(&self) -> Option<LoadState> {
        self.object.map(AlluxioDataLoad::state).or(self.remembered)
    }

    fn progress(&self) -> Option<&AlluxioDataLoadStatus> {
        self.object?.status.as_ref()
    }

    fn verdict(&self, dataset: &AlluxioDataset) -> Verdict {
        let name = self.name.as_deref().unwrap_or_default();
        let wanted = dataset.spec.load.mode == LoadMode::Once;
        let part = self.object.is_some_and(|load| !load.covers_dataset()) && !wanted;
        match self.state() {
            None if wanted => Verdict::fails("LoadPending", "the load has not begun"),
            None => Verdict::fails(
                "NotRequested",
                "load.mode is None: pages are cached when they are first read",
            ),
            Some(LoadState::Succeeded) if part => Verdict::fails(
                "PartlyLoaded",
                format!("load {name} covered a part of the dataset"),
            ),
            Some(LoadState::Succeeded) => {
                Verdict::holds("LoadSucceeded", format!("load {name} has succeeded"))
            }
            Some(LoadState::Failed) => {
                let said = self
                    .progress()
                    .and_then(|s| s.message.as_deref())
                    .unwrap_or("no reason");
                Verdict::fails("LoadFailed", format!("load {name} has failed: {said}"))
            }
            Some(LoadState::Stopped) => {
                Verdict::fails("LoadStopped", format!("load {name} was stopped"))
            }
            Some(LoadState::Pending) => {
                Verdict::fails("LoadPending", format!("load {name} has not begun"))
            }
            Some(LoadState::Running | LoadState::Verifying) => {
                Verdict::fails("Loading", format!("load {name} is running"))
            }
        }
    }

    /// The dataset's size is known when a load of all of it has seen every file.
    fn ufs(&self) -> Option<UfsStatus> {
        let load = self.object.filter(|load| load.covers_dataset())?;
        let progress = load
            .status
            .as_ref()
            .filter(|s| s.state == LoadState::Succeeded)?;
        let (files, bytes) = (progress.files_total?, progress.bytes_total?);
        Some(UfsStatus {
            files,
            bytes,
            size: human_size(bytes),
        })
    }

    fn cache(&self) -> Option<CacheStatus> {
        let progress = self.progress()?;
        Some(CacheStatus {
            bytes: progress.bytes_done?,
            percent: progress.bytes_percent?,
        })
    }

    fn summary(&self, previous: Option<LoadSummary>) -> Option<LoadSummary> {
        let name = self.name.clone()?;
        let succeeded = self.progress().filter(|s| s.state == LoadState::Succeeded);
        let now = succeeded.and_then(|s| s.completion_time.clone());
        Some(LoadSummary {
            last_load_ref: LoadReference { name },
            state: self.state(),
            last_successful_time: now.or_else(|| previous?.last_successful_time),
        })
    }
}

/// Bytes for people, such as `137.9Gi`.
pub fn human_size(bytes: i64) -> String {
    const UNITS: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut tenths = u128::from(bytes.unsigned_abs()) * 10;
    let mut unit = "";
    for next in UNITS {
        if tenths < 10 * 1024 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit.is_empty() {
        bytes.to_string()
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests;
