//! The two controllers: what wakes them, how many run at once, and how they end.
//!
//! A dataset is woken by a change of its spec, by its claim, its volume and its loads; a load by
//! its own. Status patches wake nobody: they are the operator's own. An object that this version
//! cannot read is logged and left alone, so that it cannot stop the others.

use std::fmt::Debug;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use alluxio_telemetry::health::Health;
use alluxio_telemetry::metrics::{self as endpoint, MetricsError};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::utils::PredicateConfig;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::watch;

use crate::context::{Context, Limits};
use crate::metrics::Metrics;
use crate::worker_api::WorkerError;
use crate::{dataset, load, names};

/// Reconciles at one time of each kind; each waits mostly for the network.
const CONCURRENCY: u16 = 16;
/// The pause after a failed reconcile: long enough to spare a struggling API server.
const RETRY: Duration = Duration::from_secs(5);
/// How long ending may take: a pod is killed after 30 s.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// Only this namespace's datasets; all when left out.
    pub namespace: Option<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics_addr: SocketAddr,
    /// This process's name in events, usually its pod's.
    pub instance: Option<String>,
    /// Deadlines and intervals.
    pub limits: Limits,
}

/// Why the operator could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to a cluster.
    #[error("no Kubernetes cluster: {0}; run in a pod with a service account, or set KUBECONFIG")]
    Client(String),
    /// The definitions are not there or not readable.
    #[error(
        "{kind} cannot be listed: {source}; apply manifests/crds and the operator's RBAC first"
    )]
    Definitions {
        /// Which kind.
        kind: &'static str,
        /// What the API server said.
        source: kube::Error,
    },
    /// HTTP to workers.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The metrics endpoint.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The counters.
    #[error("metrics cannot be made: {0}")]
    Counters(#[from] prometheus::Error),
    /// Signals.
    #[error("signals cannot be handled: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs the operator against the cluster of the environment, until SIGTERM or SIGINT.
pub async fn run(options: OperatorOptions) -> Result<(), RunError> {
    let client = Client::try_default()
        .await
        .map_err(|e| RunError::Client(e.to_string()))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    run_until(client, options, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .await
}

/// Runs the operator against a given cluster until `shutdown` completes; reconciles under way are
/// let finish.
pub async fn run_until(
    client: Client,
    options: OperatorOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let metrics = Metrics::new()?;
    let health = Health::starting();
    let server = endpoint::serve(
        options.metrics_addr,
        vec![metrics.registry().clone()],
        health.clone(),
    )
    .await?;
    let namespace = options.namespace.as_deref();
    check_readable::<AlluxioDataset>("AlluxioDatasets", &client, namespace).await?;
    check_readable::<AlluxioDataLoad>("AlluxioDataLoads", &client, namespace).await?;

    let context = Context::new(client, metrics, options.limits, options.instance.clone())?;
    let context = Arc::new(context);
    let (stop, stopped) = watch::channel(false);
    let (datasets, datasets_known) = datasets(&context, namespace, stopped.clone());
    let (loads, loads_known) = loads(&context, namespace, stopped);
    let ready = health.clone();
    let readiness = async move {
        // Ready once both caches have been filled for the first time.
        if datasets_known.wait_until_ready().await.is_ok()
            && loads_known.wait_until_ready().await.is_ok()
        {
            ready.set_ready();
            tracing::info!("operator is ready");
        }
    };
    let controllers = futures::future::join3(datasets, loads, readiness);
    tokio::pin!(controllers);
    tokio::select! {
        _ = &mut controllers => {}
        () = shutdown => {
            health.set_not_ready("shutting down");
            stop.send_replace(true);
            if tokio::time::timeout(SHUTDOWN, controllers).await.is_err() {
                tracing::warn!("reconciles did not end in time; the next operator repeats them");
            }
        }
    }
    server.shutdown().await;
    Ok(())
}

async fn check_readable<K>(
    kind: &'static str,
    client: &Client,
    namespace: Option<&str>,
) -> Result<(), RunError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<DeserializeGuard<K>> = scoped(client, namespace);
    let one = ListParams::default().limit(1);
    api.list(&one)
        .await
        .map(|_| ())
        .map_err(|source| RunError::Definitions { kind, source })
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

type Guarded<K> = DeserializeGuard<K>;

fn datasets(
    context: &Arc<Context>,
    namespace: Option<&str>,
    stopped: watch::Receiver<bool>,
) -> (
    impl Future<Output = ()> + use<>,
    Store<Guarded<AlluxioDataset>>,
) {
    let client = &context.client;
    let (controller, store) = controller::<AlluxioDataset>(client, namespace);
    let claims: Api<PersistentVolumeClaim> = scoped(client, namespace);
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let loads: Api<Guarded<AlluxioDataLoad>> = scoped(client, namespace);
    let ours = watcher::Config::default().labels(names::LABEL_DATASET_UID);
    let results = controller
        .watches(claims, ours.clone(), |claim| {
            Some(ObjectRef::new(&claim.name_any()).within(&claim.namespace()?))
        })
        .watches(volumes, ours, |volume| dataset_of_volume(&volume))
        .watches(loads, watcher::Config::default(), dataset_of_load)
        .graceful_shutdown_on(until(stopped))
        .run(
            |guarded, context| guard("AlluxioDataset", guarded, context, dataset::reconcile),
            |_, _: &Failure, _| Action::requeue(RETRY),
            context.clone(),
        );
    (log("AlluxioDataset", results), store)
}

fn loads(
    context: &Arc<Context>,
    namespace: Option<&str>,
    stopped: watch::Receiver<bool>,
) -> (
    impl Future<Output = ()> + use<>,
    Store<Guarded<AlluxioDataLoad>>,
) {
    let (controller, store) = controller::<AlluxioDataLoad>(&context.client, namespace);
    let results = controller.graceful_shutdown_on(until(stopped)).run(
        |guarded, context| guard("AlluxioDataLoad", guarded, context, load::reconcile),
        |_, _: &Failure, _| Action::requeue(RETRY),
        context.clone(),
    );
    (log("AlluxioDataLoad", results), store)
}

/// A controller that is woken by what a user changes, not by what the operator writes.
fn controller<K>(
    client: &Client,
    namespace: Option<&str>,
) -> (Controller<Guarded<K>>, Store<Guarded<K>>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Send
        + Sync
        + serde::de::DeserializeOwned
        + 'static,
{
    let (reader, writer) = store();
    let api: Api<Guarded<K>> = scoped(client, namespace);
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            |object: &Guarded<K>| Some(intent(object)),
            PredicateConfig::default(),
        );
    let controller = Controller::for_stream(changes, reader.clone())
        .with_config(Config::default().concurrency(CONCURRENCY));
    (controller, reader)
}

/// What a user can change about an object: its spec, its finalizers, its end.
fn intent<K: Resource>(object: &K) -> u64 {
    let metadata = object.meta();
    let mut hasher = DefaultHasher::new();
    metadata.generation.hash(&mut hasher);
    metadata.finalizers.hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    hasher.finish()
}

fn dataset_of_volume(volume: &PersistentVolume) -> Option<ObjectRef<Guarded<AlluxioDataset>>> {
    let qualified = volume.annotations().get(names::ANNOTATION_DATASET)?;
    let (namespace, name) = qualified.split_once('/')?;
    Some(ObjectRef::new(name).within(namespace))
}

fn dataset_of_load(load: Guarded<AlluxioDataLoad>) -> Option<ObjectRef<Guarded<AlluxioDataset>>> {
    let load = load.0.ok()?;
    Some(ObjectRef::new(&load.spec.dataset_ref.name).within(&load.namespace()?))
}

/// Why a reconcile failed, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

/// Counts, bounds and logs one reconcile; an unreadable object waits for a change.
async fn guard<K, F, E>(
    kind: &'static str,
    guarded: Arc<Guarded<K>>,
    context: Arc<Context>,
    reconcile: impl FnOnce(Arc<K>, Arc<Context>) -> F,
) -> Result<Action, Failure>
where
    K: Clone,
    F: Future<Output = Result<Action, E>>,
    E: std::error::Error,
{
    let object = match &guarded.0 {
        Ok(object) => Arc::new(object.clone()),
        Err(invalid) => {
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            tracing::error!(kind, name, error = %invalid, "object left alone: it cannot be read");
            return Ok(Action::await_change());
        }
    };
    let began = Instant::now();
    let limit = context.limits.reconcile;
    let ended = tokio::time::timeout(limit, reconcile(object, context.clone())).await;
    let result = match ended {
        Ok(Ok(action)) => Ok(action),
        Ok(Err(error)) => Err(Failure(error.to_string())),
        Err(_) => Err(Failure(format!(
            "not done in {} s: is the API server slow?",
            limit.as_secs()
        ))),
    };
    context
        .metrics
        .reconciled(kind, began.elapsed(), result.is_err());
    result
}

async fn log<K, E>(
    kind: &'static str,
    results: impl Stream<Item = Result<(ObjectRef<K>, Action), E>>,
) where
    K: Resource,
    K::DynamicType: Debug,
    E: std::fmt::Display,
{
    results
        .for_each(|result| {
            match result {
                Ok((object, _)) => tracing::debug!(kind, name = object.name, "reconciled"),
                Err(error) => tracing::warn!(kind, %error, "reconcile failed; it is tried again"),
            }
            std::future::ready(())
        })
        .await;
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A closed channel means that the operator is gone: stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
