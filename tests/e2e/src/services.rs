//! The servers beside the cluster: S3 (versitygw), etcd as Alluxio uses it, and Prometheus.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use crate::process::{Server, free_port};
use crate::wait::{Seen, until};

/// How long a server may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often Prometheus scrapes: a rate needs two scrapes, and the test waits for them.
const SCRAPE_SECONDS: u32 = 1;

/// The bucket that holds the dataset.
pub(crate) const BUCKET: &str = "ml-datasets";

/// An S3 server over a folder.
#[derive(Debug)]
pub(crate) struct ObjectStore {
    pub(crate) server: Server,
    pub(crate) endpoint: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// An etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    pub(crate) server: Server,
    pub(crate) endpoint: String,
}

/// A Prometheus.
#[derive(Debug)]
pub(crate) struct Prometheus {
    pub(crate) server: Server,
    pub(crate) url: String,
}

/// What a Prometheus is to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScrapeTarget {
    pub(crate) address: String,
    pub(crate) path: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) component: String,
}

impl ObjectStore {
    /// Starts it with credentials that nobody else knows, and the bucket made.
    pub(crate) async fn start(ip: IpAddr, folder: &Path, logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join(BUCKET))?;
        let port = free_port(ip)?;
        let (access_key, secret_key) = (random_text(10), random_text(20));
        let mut command = Command::new("versitygw");
        command
            // By environment: arguments are seen by every user of the machine.
            .env("ROOT_ACCESS_KEY", &access_key)
            .env("ROOT_SECRET_KEY", &secret_key)
            .args(["--port", &format!("{ip}:{port}"), "--quiet", "posix"])
            .arg(folder);
        let mut server = Server::start("versitygw", &mut command, &logs.join("versitygw.log"))?;
        wait_for_port(&mut server, ip, port).await?;
        Ok(Self {
            server,
            endpoint: format!("http://{ip}:{port}"),
            access_key,
            secret_key,
        })
    }
}

impl Etcd {
    /// Starts one member with its state in `folder`.
    pub(crate) async fn start(ip: IpAddr, folder: &Path, logs: &Path) -> Result<Self> {
        let (client_port, peer_port) = (free_port(ip)?, free_port(ip)?);
        let client_url = format!("http://{ip}:{client_port}");
        let peer_url = format!("http://{ip}:{peer_port}");
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(folder)
            .args(["--name", "e2e", "--log-level", "warn"])
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("e2e={peer_url}")]);
        let mut server = Server::start("etcd", &mut command, &logs.join("etcd.log"))?;
        wait_for_port(&mut server, ip, client_port).await?;
        Ok(Self {
            server,
            endpoint: client_url,
        })
    }

    /// How many keys begin with this.
    pub(crate) async fn count(&self, prefix: &str) -> Result<u64> {
        #[derive(Deserialize)]
        struct Answer {
            /// etcd's JSON writes 64-bit numbers as text, and leaves a zero out.
            #[serde(default)]
            count: Option<String>,
        }
        let body = json!({
            // etcd's JSON has bytes in base64, as Kubernetes' has.
            "key": ByteString(prefix.as_bytes().to_vec()),
            "range_end": ByteString(prefix_end(prefix.as_bytes())),
            "count_only": true,
        });
        let url = format!("{}/v3/kv/range", self.endpoint);
        let response = http_client()?.post(&url).json(&body).send().await?;
        let answer: Answer = response.error_for_status()?.json().await?;
        Ok(answer.count.map_or(Ok(0), |count| count.parse())?)
    }
}

impl Prometheus {
    /// Starts it over these targets.
    pub(crate) async fn start(
        folder: &Path,
        logs: &Path,
        targets: &[ScrapeTarget],
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, scrape_config(targets))?;
        let ip = IpAddr::from([127, 0, 0, 1]);
        let port = free_port(ip)?;
        let mut command = Command::new("prometheus");
        command
            .arg(flag("config.file", &config))
            .arg(flag("storage.tsdb.path", &folder.join("data")))
            .arg(format!("--web.listen-address={ip}:{port}"));
        let mut server = Server::start("prometheus", &mut command, &logs.join("prometheus.log"))?;
        wait_for_port(&mut server, ip, port).await?;
        Ok(Self {
            server,
            url: format!("http://{ip}:{port}"),
        })
    }

    /// The values that an expression gives now.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let url = format!("{}/api/v1/query", self.url);
        let form = [("query", expression)];
        let response = http_client()?.get(&url).query(&form).send().await?;
        let answer: QueryAnswer = response.json().await?;
        let data = answer
            .data
            .with_context(|| format!("{expression}: {}", answer.error.unwrap_or_default()))?;
        let values = data.result.iter().map(|sample| sample.value.1.parse());
        Ok(values.collect::<Result<_, _>>()?)
    }
}

#[derive(Deserialize)]
struct QueryAnswer {
    data: Option<QueryData>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct QueryData {
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

/// Debian's Prometheus has no Kubernetes discovery, so targets are written down. The labels are
/// those that manifests/examples/prometheus-scrape.yaml gives in a cluster.
fn scrape_config(targets: &[ScrapeTarget]) -> String {
    let mut text = format!("global: {{scrape_interval: {SCRAPE_SECONDS}s}}\nscrape_configs:\n");
    for target in targets {
        let job = json!({
            "job_name": target.pod,
            "metrics_path": target.path,
            "static_configs": [{
                "targets": [target.address],
                "labels": {
                    "namespace": target.namespace,
                    "pod": target.pod,
                    "component": target.component,
                },
            }],
        });
        // JSON is YAML; writing to a String cannot fail.
        let _ = writeln!(text, "- {job}");
    }
    text
}

async fn wait_for_port(server: &mut Server, ip: IpAddr, port: u16) -> Result<()> {
    // Checked outside of the loop's borrow: a dead server never opens its port.
    let what = format!("a server at {ip}:{port}");
    let result = until(&what, START_LIMIT, || async move {
        match tokio::net::TcpStream::connect((ip, port)).await {
            Ok(_) => Ok(Seen::There(())),
            Err(error) => Ok(Seen::NotYet(error.to_string())),
        }
    })
    .await;
    server.check_alive()?;
    result
}

/// Never by a proxy: all servers are on this machine.
pub(crate) fn http_client() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    Ok(client)
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Hexadecimal digits for `bytes` random bytes.
fn random_text(bytes: usize) -> String {
    let random: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    hex::encode(random)
}

/// The first key after all keys that begin with `prefix`: its last byte plus one.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_its_successor() {
        assert_eq!(prefix_end(b"/a/"), b"/a0");
        assert_eq!(prefix_end(&[1, 255]), [2]);
    }

    #[test]
    fn the_scrape_configuration_names_each_pod() {
        let target = ScrapeTarget {
            address: "10.0.0.1:28080".to_owned(),
            path: "/metrics".to_owned(),
            namespace: "n".to_owned(),
            pod: "worker-0".to_owned(),
            component: "worker".to_owned(),
        };
        let text = scrape_config(&[target]);
        assert!(text.contains(r#""job_name":"worker-0""#), "{text}");
        assert!(text.contains(r#""targets":["10.0.0.1:28080"]"#), "{text}");
    }
}
