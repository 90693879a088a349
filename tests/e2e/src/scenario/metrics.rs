//! A real Prometheus scrapes every pod that asks for it; every panel of the dashboard has data.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use crate::dashboard::{self, PanelQuery};
use crate::objects::RELEASE_NAMESPACE;
use crate::report::Report;
use crate::services::{Prometheus, ScrapeTarget};
use crate::testbed::Testbed;
use crate::wait::{USUAL, until, when};

/// Where the chart keeps the dashboard.
const DASHBOARD: &str = "charts/alluxio-dataset/dashboards/alluxio-dataset.json";

/// Scrapes, then asks what the dashboard asks.
pub(super) async fn run(testbed: &mut Testbed, report: &mut Report) -> Result<()> {
    let found = report.step("every pod asks to be scraped", targets(testbed));
    let targets = found.await?;
    let folder = testbed.scratch("prometheus");
    let started = Prometheus::start(&folder, &testbed.logs, &targets);
    let prometheus = report.step("a Prometheus answers", started).await?;
    let scraped = report.step("it scrapes them all", all_up(&prometheus, targets.len()));
    scraped.await?;
    let queries = dashboard::queries(&testbed.root.join(DASHBOARD))?;
    let name = format!("all {} queries of the dashboard have data", queries.len());
    report
        .step(&name, all_have_data(testbed, &prometheus, &queries))
        .await?;
    testbed.prometheus = Some(prometheus);
    Ok(())
}

/// What the pods' prometheus.io annotations ask for.
async fn targets(testbed: &Testbed) -> Result<Vec<ScrapeTarget>> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), RELEASE_NAMESPACE);
    let list = pods.list(&ListParams::default()).await?;
    list.into_iter().map(target).collect()
}

fn target(pod: Pod) -> Result<ScrapeTarget> {
    let name = pod.metadata.name.unwrap_or_default();
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let annotation = |key: &str| {
        let value = annotations.get(&format!("prometheus.io/{key}")).cloned();
        value.with_context(|| format!("{name} has no annotation prometheus.io/{key}"))
    };
    if annotation("scrape")? != "true" {
        bail!("{name} does not want to be scraped");
    }
    let ip = pod.status.and_then(|status| status.pod_ip);
    let ip = ip.with_context(|| format!("{name} has no address"))?;
    let labels = pod.metadata.labels.unwrap_or_default();
    Ok(ScrapeTarget {
        address: format!("{ip}:{}", annotation("port")?),
        path: annotation("path")?,
        namespace: RELEASE_NAMESPACE.to_owned(),
        component: labels
            .get("app.kubernetes.io/component")
            .cloned()
            .unwrap_or_default(),
        pod: name,
    })
}

async fn all_up(prometheus: &Prometheus, expected: usize) -> Result<()> {
    until("all targets up", USUAL, || async {
        let up = prometheus.query("up == 1").await?.len();
        Ok(when(up == expected, || {
            format!("{up} of {expected} are up")
        }))
    })
    .await
}

async fn all_have_data(
    testbed: &Testbed,
    prometheus: &Prometheus,
    queries: &[PanelQuery],
) -> Result<()> {
    until("data in every panel", USUAL, || async {
        // Rates need traffic between two scrapes.
        crate::reader::Pass::start(&testbed.cluster)?
            .finish()
            .await?;
        let mut empty = Vec::new();
        for query in queries {
            let values = prometheus.query(&query.expression).await?;
            if !values.iter().any(|value| value.is_finite()) {
                empty.push(format!("{} ({})", query.panel, query.expression));
            }
        }
        Ok(when(empty.is_empty(), || {
            format!("no data: {}", empty.join("; "))
        }))
    })
    .await
}
