//! What every reconcile shares: the API client, HTTP to workers, events, counters and limits.

use std::time::Duration;

use alluxio_crds::conditions;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use crate::load::Attempts;
use crate::metrics::Metrics;
use crate::names;
use crate::worker_api::{WorkerApi, WorkerError};
use crate::workers::SurveyCache;

/// Shared by all reconciles.
#[derive(Clone)]
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// HTTP to workers.
    pub workers: WorkerApi,
    /// What was learnt about workers in the last seconds.
    pub surveys: std::sync::Arc<SurveyCache>,
    /// What is remembered of running loads.
    pub attempts: std::sync::Arc<Attempts>,
    /// Counters.
    pub metrics: Metrics,
    /// Deadlines and intervals.
    pub limits: Limits,
    recorder: Recorder,
}

/// Deadlines and intervals; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most that one reconcile takes, so that a silent API server cannot hold one forever.
    pub reconcile: Duration,
    /// Between looks at a dataset that is ready: workers come and go without telling us.
    pub steady: Duration,
    /// Between looks at a dataset that is not.
    pub unready: Duration,
    /// Between looks at a running load.
    pub load_poll: Duration,
    /// The first pause after a failed load; each further one doubles.
    pub load_backoff: Duration,
    /// How long stopping the jobs of one load may take before it is given up.
    pub stop: Duration,
    /// How long a deleted dataset waits for its loads.
    pub loads_gone: Duration,
    /// How long a deleted dataset waits for its claim and volume.
    pub volume_gone: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Three times what the slowest survey and the API calls around it take.
            reconcile: Duration::from_mins(1),
            steady: Duration::from_secs(30),
            unready: Duration::from_secs(5),
            load_poll: Duration::from_secs(1),
            // 5 + 10 + 20 s with the default backoffLimit: a worker's pod is back by then.
            load_backoff: Duration::from_secs(5),
            // Two workers that do not accept a connection, and a little.
            stop: Duration::from_secs(5),
            // Each load gives up by itself after `stop`; this is for many of them.
            loads_gone: Duration::from_secs(30),
            // A pod's grace period is 30 s; who needs longer is told so by an event.
            volume_gone: Duration::from_mins(2),
        }
    }
}

/// What `kubectl describe` shows of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether someone should look.
    pub warning: bool,
    /// `CamelCase`, for programs.
    pub reason: String,
    /// For people.
    pub note: String,
}

impl Notice {
    /// Something went as it should.
    pub fn normal(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason: reason.into(),
            note: note.into(),
        }
    }

    /// Someone should look.
    pub fn warning(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason: reason.into(),
            note: note.into(),
        }
    }
}

impl Context {
    /// The context for one operator; `instance` is its pod's name.
    pub fn new(
        client: Client,
        metrics: Metrics,
        limits: Limits,
        instance: Option<String>,
    ) -> Result<Self, WorkerError> {
        let reporter = Reporter {
            controller: names::MANAGER.to_owned(),
            instance,
        };
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            workers: WorkerApi::new()?,
            surveys: std::sync::Arc::default(),
            attempts: std::sync::Arc::default(),
            client,
            metrics,
            limits,
        })
    }

    /// Publishes events on an object. An event that cannot be written is logged and forgotten:
    /// it must not fail the work that it tells about.
    pub async fn tell<K>(&self, object: &K, notices: &[Notice])
    where
        K: Resource<DynamicType = ()>,
    {
        let reference = object.object_ref(&());
        for notice in notices {
            let event = Event {
                type_: if notice.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: notice.reason.clone(),
                note: Some(conditions::shortened(&notice.note)),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::warn!(reason = notice.reason, %error, "event not written");
            }
        }
    }
}
