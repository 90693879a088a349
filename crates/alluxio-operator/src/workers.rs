//! Who the workers are, which of them answer, and what one of them sees at the dataset's root.
//!
//! This is the control plane's whole view of the data plane: it never reads the under-store itself.
//! A survey is bounded in time and in requests, and what it could not learn stays unknown.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use alluxio_config::{ClusterConfig, Config, Membership, RingMembership};
use alluxio_etcd::{EtcdClient, EtcdError, EtcdOptions};
use alluxio_wire::{FileKind, WorkerRecord, etcd};
use futures::StreamExt;

use crate::worker_api::{WorkerApi, WorkerEndpoint, WorkerError};

/// etcd answers from memory; a slower one is down or unreachable from here.
const ETCD_TIMEOUT: Duration = Duration::from_secs(3);
/// A cluster's DNS answers in a millisecond; a slower one is down.
const DNS_TIMEOUT: Duration = Duration::from_secs(3);
/// More workers than the largest Alluxio cluster has; bounds memory and requests.
const MAX_WORKERS: usize = 1024;
/// Health checks under way at one time: 1,024 dead workers take four turns of `HEALTH_TIMEOUT`,
/// which stays in the deadline, and the sockets stay far below a process's usual 1,024.
const PARALLEL_CHECKS: usize = 256;
/// The most that one round of health checks takes: four turns, and a little.
const SURVEY_DEADLINE: Duration = Duration::from_secs(10);
/// How many workers are asked about the root before it stays unknown.
const ROOT_ATTEMPTS: usize = 3;
/// Reconciles that follow one another within this time share a survey: a running load updates
/// its status every second, and each update reconciles the dataset.
const SURVEY_AGE: Duration = Duration::from_secs(5);
/// How many workers a message names.
const NAMED_WORKERS: usize = 5;

/// What was learnt about a dataset's workers.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Who they are.
    pub members: Members,
    /// Those that answered their health check, sorted.
    pub live: Vec<WorkerEndpoint>,
    /// What the dataset's root looks like to them.
    pub root: Root,
}

/// Who the workers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// The dataset has none by its spec.
    NoneConfigured,
    /// They are these, sorted.
    Known(Vec<WorkerEndpoint>),
    /// Nobody can tell: why, and what to do.
    Unknown(String),
}

/// What the dataset's root looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A directory.
    Directory {
        /// The worker that saw it.
        seen_by: WorkerEndpoint,
    },
    /// A file, which cannot be a dataset's root.
    File,
    /// It does not exist.
    Missing(String),
    /// The workers may not read it.
    Denied(String),
    /// The under-store failed.
    Failed(String),
    /// No worker can tell.
    Unknown(String),
}

/// Why the membership could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// etcd does not answer.
    #[error("{0}; the operator and the nodes must reach cluster.membership.etcd.endpoints")]
    Etcd(#[from] EtcdError),
    /// etcd does not answer in time.
    #[error(
        "etcd at {0} did not answer in time: check cluster.membership.etcd.endpoints and that the \
         operator and the nodes may reach it"
    )]
    TimedOut(String),
    /// DNS does not know the service.
    #[error(
        "the service {service} cannot be resolved ({cause}): check the name and that the service is \
         headless"
    )]
    Dns {
        /// Its name.
        service: String,
        /// Why not.
        cause: String,
    },
}

/// The last survey of each dataset, for a few seconds.
#[derive(Debug, Default)]
pub struct SurveyCache {
    surveys: Mutex<HashMap<String, CachedSurvey>>,
}

#[derive(Debug)]
struct CachedSurvey {
    generation: i64,
    taken: Instant,
    survey: Survey,
}

impl Survey {
    /// A dataset whose spec says nothing usable about workers.
    pub fn none() -> Self {
        let root = Root::Unknown("the dataset has no worker that could look".to_owned());
        Self {
            members: Members::NoneConfigured,
            live: Vec::new(),
            root,
        }
    }

    /// Asks who the workers are, which are alive, and one of them about the root.
    pub async fn take(config: &Config, api: &WorkerApi) -> Self {
        let members = match members(&config.cluster, config.client.ring_membership).await {
            Ok(None) => return Self::none(),
            Ok(Some(workers)) => workers,
            Err(error) => {
                let root = Root::Unknown("the workers are not known".to_owned());
                return Self {
                    members: Members::Unknown(error.to_string()),
                    live: Vec::new(),
                    root,
                };
            }
        };
        let live = live(&members, api).await;
        let root = root(config, &live, api).await;
        Self {
            members: Members::Known(members),
            live,
            root,
        }
    }

    /// Members that did not answer, for a message.
    pub fn silent(&self) -> String {
        let Members::Known(members) = &self.members else {
            return String::new();
        };
        let silent: Vec<_> = members.iter().filter(|w| !self.live.contains(w)).collect();
        let mut names: Vec<_> = silent
            .iter()
            .take(NAMED_WORKERS)
            .map(ToString::to_string)
            .collect();
        if silent.len() > NAMED_WORKERS {
            names.push(format!("{} more", silent.len() - NAMED_WORKERS));
        }
        names.join(", ")
    }
}

impl SurveyCache {
    /// A survey of this generation that is fresh enough, or a new one.
    pub async fn get(
        &self,
        uid: &str,
        generation: i64,
        config: &Config,
        api: &WorkerApi,
    ) -> Survey {
        if let Some(survey) = self.fresh(uid, generation) {
            return survey;
        }
        let survey = Survey::take(config, api).await;
        let cached = CachedSurvey {
            generation,
            taken: Instant::now(),
            survey: survey.clone(),
        };
        self.lock().insert(uid.to_owned(), cached);
        survey
    }

    /// Forgets a dataset that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn fresh(&self, uid: &str, generation: i64) -> Option<Survey> {
        let surveys = self.lock();
        let cached = surveys.get(uid)?;
        let fresh = cached.generation == generation && cached.taken.elapsed() < SURVEY_AGE;
        fresh.then(|| cached.survey.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CachedSurvey>> {
        self.surveys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The members by the dataset's spec, sorted; `None` when it wants none.
pub async fn members(
    cluster: &ClusterConfig,
    ring: RingMembership,
) -> Result<Option<Vec<WorkerEndpoint>>, MembershipError> {
    let mut workers = match &cluster.membership {
        Membership::None => return Ok(None),
        Membership::Static { workers } => workers
            .iter()
            .map(|w| WorkerEndpoint::new(&w.host, w.port))
            .collect(),
        Membership::Service(service) => behind_service(&service.name, service.port).await?,
        Membership::Etcd(etcd) => {
            let options = EtcdOptions::from(etcd);
            let prefix = match ring {
                RingMembership::Live => etcd::live_prefix(&cluster.name),
                RingMembership::Registered => etcd::registered_prefix(&cluster.name),
            };
            registered_in_etcd(options, &prefix).await?
        }
    };
    workers.sort();
    workers.dedup();
    workers.truncate(MAX_WORKERS);
    Ok(Some(workers))
}

/// The addresses of a headless service's pods. Who they are on the ring is the clients' matter.
async fn behind_service(name: &str, port: u16) -> Result<Vec<WorkerEndpoint>, MembershipError> {
    let failed = |cause: String| MembershipError::Dns {
        service: name.to_owned(),
        cause,
    };
    // `_http._tcp.workers.ns` is the name of SRV records; the addresses are those of `workers.ns`.
    let host = name.split('.').skip_while(|label| label.starts_with('_'));
    let host = host.collect::<Vec<_>>().join(".");
    let lookup = tokio::net::lookup_host((host.as_str(), port));
    let found = tokio::time::timeout(DNS_TIMEOUT, lookup)
        .await
        .map_err(|_| failed("no answer in time".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    Ok(found
        .map(|address| WorkerEndpoint::new(&address.ip().to_string(), port))
        .collect())
}

async fn registered_in_etcd(
    options: EtcdOptions,
    prefix: &str,
) -> Result<Vec<WorkerEndpoint>, MembershipError> {
    let read = async {
        EtcdClient::connect(&options)
            .await?
            .get_prefix(prefix)
            .await
    };
    let listing = tokio::time::timeout(ETCD_TIMEOUT, read)
        .await
        .map_err(|_| MembershipError::TimedOut(options.endpoints.join(", ")))??;
    let records = listing.pairs.iter().filter_map(|(key, value)| {
        let parsed = WorkerRecord::from_json(value);
        let key = String::from_utf8_lossy(key);
        parsed
            .inspect_err(|error| tracing::warn!(%key, %error, "worker record left out"))
            .ok()
    });
    Ok(records.filter_map(|record| endpoint_of(&record)).collect())
}

fn endpoint_of(record: &WorkerRecord) -> Option<WorkerEndpoint> {
    let host = record.address.hosts().next()?;
    Some(WorkerEndpoint::new(host, record.address.http_port))
}

async fn live(members: &[WorkerEndpoint], api: &WorkerApi) -> Vec<WorkerEndpoint> {
    let checks = futures::stream::iter(members.iter().cloned())
        .map(|worker| async move { api.is_healthy(&worker).await.then_some(worker) })
        .buffer_unordered(PARALLEL_CHECKS)
        .take_until(tokio::time::sleep(SURVEY_DEADLINE))
        .filter_map(std::future::ready);
    let mut live: Vec<_> = checks.collect().await;
    live.sort();
    live
}

async fn root(config: &Config, live: &[WorkerEndpoint], api: &WorkerApi) -> Root {
    let mut last = Root::Unknown("no worker answers".to_owned());
    for worker in live.iter().take(ROOT_ATTEMPTS) {
        last = root_by(worker, api.info(worker, &config.ufs.uri).await);
        if !matches!(last, Root::Unknown(_)) {
            break;
        }
    }
    last
}

/// What one worker's answer says about the root.
fn root_by(worker: &WorkerEndpoint, answer: Result<alluxio_wire::FileStatus, WorkerError>) -> Root {
    match answer {
        Ok(status) if status.kind == FileKind::Directory => Root::Directory {
            seen_by: worker.clone(),
        },
        Ok(_) => Root::File,
        Err(WorkerError::Refused {
            code: 404, message, ..
        }) => Root::Missing(message),
        Err(WorkerError::Refused {
            code: 401 | 403,
            message,
            ..
        }) => Root::Denied(message),
        Err(WorkerError::Refused { code, message, .. }) => {
            Root::Failed(format!("{message} (HTTP {code})"))
        }
        Err(error) => Root::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_etcd::EtcdTls;

    use super::*;
    use crate::worker_api::HEALTH_TIMEOUT;

    fn worker() -> WorkerEndpoint {
        WorkerEndpoint::new("w0", 28080)
    }

    fn refusal(code: u16) -> Root {
        let error = WorkerError::Refused {
            worker: worker(),
            code,
            message: "said".to_owned(),
        };
        root_by(&worker(), Err(error))
    }

    #[test]
    fn an_http_code_says_what_is_wrong_with_the_root() {
        assert_eq!(refusal(404), Root::Missing("said".to_owned()));
        assert_eq!(refusal(403), Root::Denied("said".to_owned()));
        assert!(matches!(refusal(503), Root::Failed(_)));
    }

    #[test]
    fn an_empty_close_says_nothing_about_the_root() {
        let closed = WorkerError::Closed { worker: worker() };
        assert!(matches!(root_by(&worker(), Err(closed)), Root::Unknown(_)));
    }

    #[test]
    fn a_round_of_dead_workers_ends_within_its_deadline() {
        let turns = u32::try_from(MAX_WORKERS.div_ceil(PARALLEL_CHECKS)).unwrap();
        assert!(HEALTH_TIMEOUT * turns < SURVEY_DEADLINE);
    }

    #[test]
    fn silent_workers_are_named_up_to_a_number() {
        let members: Vec<_> = (0..9).map(|i| WorkerEndpoint::new("w", 1000 + i)).collect();
        let survey = Survey {
            live: members[..2].to_vec(),
            members: Members::Known(members),
            root: Root::File,
        };
        assert_eq!(
            survey.silent(),
            "w:1002, w:1003, w:1004, w:1005, w:1006, 2 more"
        );
    }

    #[tokio::test]
    async fn an_unreachable_etcd_is_named_with_a_remedy() {
        // Port 1 on loopback refuses at once.
        let endpoints = vec!["http://127.0.0.1:1".to_owned()];
        let options = EtcdOptions {
            endpoints,
            user: None,
            tls: EtcdTls::default(),
        };
        let error = registered_in_etcd(options, "/x/").await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("http://127.0.0.1:1") && text.contains("check"),
            "{text}"
        );
    }
}
