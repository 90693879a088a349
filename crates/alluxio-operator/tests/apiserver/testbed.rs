//! The operator under test, and how a scenario makes objects and waits for what becomes of them.

use std::fmt::Debug;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use alluxio_crds::conditions::find;
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use alluxio_operator::{Limits, OperatorOptions, RunError, run_until};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything takes on a busy machine; a scenario waits for states, never for time.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// An operator at work.
pub(crate) struct Testbed {
    pub(crate) client: Client,
    metrics: SocketAddr,
    stop: oneshot::Sender<()>,
    operator: JoinHandle<Result<(), RunError>>,
}

impl Testbed {
    /// Applies the definitions and starts the operator.
    pub(crate) async fn start(cluster: &crate::cluster::Cluster) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = cluster.client().await;
        apply_definitions(&client).await;
        let metrics = free_address();
        let options = OperatorOptions {
            namespace: None,
            metrics_addr: metrics,
            instance: Some("under-test".to_owned()),
            limits: quick(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let operator = tokio::spawn(run_until(client.clone(), options, async {
            let _ = stopped.await;
        }));
        let testbed = Self {
            client,
            metrics,
            stop,
            operator,
        };
        until("the operator is ready", || async {
            testbed
                .scrape("/readyz")
                .await
                .filter(|text| text.starts_with("ok"))
        })
        .await;
        testbed
    }

    /// Ends the operator as SIGTERM does; it must have worked without a failure of its own.
    pub(crate) async fn stop(self) {
        let metrics = self.scrape("/metrics").await.unwrap();
        assert!(
            metrics.contains("alluxio_operator_reconciles_total"),
            "{metrics}"
        );
        self.stop.send(()).unwrap();
        self.operator.await.unwrap().unwrap();
    }

    async fn scrape(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(format!("http://{}{path}", self.metrics))
            .await
            .ok()?;
        answer.text().await.ok()
    }

    /// A namespace for one scenario.
    pub(crate) async fn namespace(&self, name: &str) -> Scene<'_> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace: Namespace = from_json(json!({ "metadata": { "name": name } }));
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        Scene {
            testbed: self,
            namespace: name.to_owned(),
        }
    }
}

/// One scenario's namespace.
pub(crate) struct Scene<'a> {
    testbed: &'a Testbed,
    pub(crate) namespace: String,
}

impl Scene<'_> {
    /// Volumes have no namespace.
    pub(crate) fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.testbed.client.clone())
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.testbed.client.clone(), &self.namespace)
    }

    /// Stores an object written as JSON.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        self.api()
            .create(&PostParams::default(), &from_json(object))
            .await
            .unwrap()
    }

    /// Changes a dataset's spec.
    pub(crate) async fn edit(&self, dataset: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let api: Api<AlluxioDataset> = self.api();
        api.patch(dataset, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Waits until a condition of a dataset has this status and reason; gives its message.
    pub(crate) async fn told(
        &self,
        dataset: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let api: Api<AlluxioDataset> = self.api();
        let what = format!("{}/{dataset}: {type_}={status} ({reason})", self.namespace);
        until(&what, || async {
            let status_now = api.get_status(dataset).await.ok()?.status?;
            let condition = find(&status_now.conditions, type_)?;
            let found = condition.status == status && condition.reason == reason;
            found.then(|| condition.message.clone())
        })
        .await
    }

    /// Waits until a load looks as asked.
    pub(crate) async fn load(
        &self,
        what: &str,
        looks: impl Fn(&AlluxioDataLoad) -> bool,
    ) -> AlluxioDataLoad {
        let api: Api<AlluxioDataLoad> = self.api();
        until(what, || async {
            let list = api.list(&ListParams::default()).await.ok()?;
            list.items.into_iter().find(|load| looks(load))
        })
        .await
    }

    /// Waits until an object is gone.
    pub(crate) async fn gone<K>(&self, api: &Api<K>, name: &str)
    where
        K: Clone + Debug + serde::de::DeserializeOwned,
    {
        let what = format!("{}/{name} is gone", self.namespace);
        until(&what, || async {
            api.get_opt(name).await.ok()?.is_none().then_some(())
        })
        .await;
    }

    /// Waits for an event with this reason; gives its note.
    pub(crate) async fn event(&self, reason: &str) -> String {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.testbed.client.clone(), &self.namespace, &kind);
        let what = format!("event {reason} in {}", self.namespace);
        until(&what, || async {
            let list = api.list(&ListParams::default()).await.ok()?;
            let event = list
                .items
                .iter()
                .find(|event| event.data["reason"] == reason)?;
            Some(event.data["note"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// The cells that `kubectl get` shows, as `column=value`.
    pub(crate) async fn columns(&self, plural: &str, name: &str) -> Vec<String> {
        let path = format!(
            "/apis/data.alluxio.io/v1alpha1/namespaces/{}/{plural}/{name}",
            self.namespace
        );
        let request = http::Request::get(path)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .unwrap();
        let table: Value = self.testbed.client.request(request).await.unwrap();
        let columns = table["columnDefinitions"].as_array().unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        let show = |(column, cell): (&Value, &Value)| {
            format!("{}={cell}", column["name"].as_str().unwrap_or_default()).replace('"', "")
        };
        columns.iter().zip(cells).map(show).collect()
    }
}

/// Waits until `look` finds something.
pub(crate) async fn until<T, F>(what: &str, look: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long until: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// An object written as JSON.
pub(crate) fn from_json<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// `spec` of a dataset on these workers, without a load.
pub(crate) fn spec_on(workers: &[String]) -> Value {
    json!({
        "ufs": { "uri": "s3://ml/imagenet" },
        "cluster": { "membership": { "type": "Static", "static": { "workers": workers } } },
    })
}

/// A dataset object.
pub(crate) fn dataset(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "data.alluxio.io/v1alpha1",
        "kind": "AlluxioDataset",
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// Everything in a hurry, so that no scenario waits for an interval.
fn quick() -> Limits {
    Limits {
        steady: Duration::from_secs(2),
        unready: Duration::from_millis(500),
        load_poll: Duration::from_millis(200),
        load_backoff: Duration::from_millis(100),
        stop: Duration::from_secs(3),
        loads_gone: Duration::from_secs(20),
        volume_gone: Duration::from_secs(5),
        ..Limits::default()
    }
}

/// A port that is free now; the operator binds it a moment later.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn apply_definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in alluxio_crds::crds() {
        let name = definition.name_any();
        let params = PatchParams::apply("test").force().validation_strict();
        api.patch(&name, &params, &Patch::Apply(&definition))
            .await
            .unwrap();
        until(&format!("{name} is established"), || async {
            let conditions = api.get(&name).await.ok()?.status?.conditions?;
            conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(())
        })
        .await;
    }
}
