//! `quickstart`: the whole path on one machine, with real parts.
//!
//! 1. An S3 server over a folder ([`s3`]), generated or the user's ([`data`]).
//! 2. An `AlluxioDataset` written as YAML and read back, as Kubernetes would get it.
//! 3. A pass over everything through a mount, straight from S3: the figure to beat.
//! 4. Three embedded workers as processes ([`workers`]) and a load of the dataset into them.
//! 5. Two passes through a new mount: from the workers, then from the mount's own cache.
//! 6. One worker is killed, and everything is read once more through a new mount.
//!
//! Every pass compares each file with the sha256 of its source ([`read`]). What is measured goes
//! into a table ([`report`]).

pub(crate) mod data;
pub(crate) mod read;
pub(crate) mod report;
pub(crate) mod s3;
pub(crate) mod sources;
pub(crate) mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use alluxio_client::Client;
use alluxio_config::{Config, FallbackPolicy, HostPort, LogFormat};
use alluxio_crds::AlluxioDataset;
use alluxio_wire::{LoadOptions, LoadState, parse_size};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::json;
use tempfile::TempDir;

use crate::args::{QuickstartArguments, UNPRIVILEGED_ID};
use crate::mounting::{self, Mounted};
use crate::{commands, output, signals};
use data::Expected;
use read::Pass;
use report::Row;
use s3::{Keys, S3Server};
use sources::Sources;
use workers::Workers;

/// The name of the bucket, and of the dataset.
const NAME: &str = "quickstart";
/// Length of the generated keys: 190 bits.
const KEY_LENGTH: usize = 32;

/// What all steps share.
struct Stage {
    /// Everything that the quickstart writes; removed at the end.
    state: TempDir,
    /// What the mounts must show.
    expected: Arc<Vec<Expected>>,
    /// Serves the dataset.
    s3: S3Server,
    /// What `AlluxioDataset` and Secret together mean.
    config: Config,
}

/// Runs it.
pub(crate) async fn run(arguments: QuickstartArguments) -> Result<()> {
    crate::logs::start(&arguments.log, None, LogFormat::Text)?;
    mounting::check_possible()?;
    let ended = signals::end()?;
    let steps = steps(&arguments);
    let keep = tokio::select! {
        kept = steps => Some(kept?),
        () = ended => None,
    };
    match keep {
        Some(Some(kept)) => kept.wait().await,
        Some(None) => Ok(()),
        None => bail!("interrupted; everything that was started has been ended"),
    }
}

async fn steps(arguments: &QuickstartArguments) -> Result<Option<Kept>> {
    let mut stage = prepare(arguments).await?;
    let mut rows = Vec::new();

    let cold = stage.mount(FallbackPolicy::Always).await?;
    stage
        .measure("cold, straight from S3", &cold, &mut rows)
        .await?;
    cold.unmount().await?;

    let mut workers = start_workers(&stage).await?;
    load(&stage).await?;

    let warm = stage.mount(FallbackPolicy::OnWorkerFailure).await?;
    stage
        .measure("warm, from the workers", &warm, &mut rows)
        .await?;
    stage
        .measure("warm, from the mount's cache", &warm, &mut rows)
        .await?;
    warm.unmount().await?;

    let killed = workers.kill_one().await?;
    output::line(format!(
        "killed the worker at {}:{} (SIGKILL)",
        killed.host, killed.port
    ))?;
    let failover = stage.mount(FallbackPolicy::OnWorkerFailure).await?;
    stage
        .measure("one worker gone", &failover, &mut rows)
        .await?;

    report::table(&rows)?;
    output::line(verdict(&stage.expected))?;
    if let Some(file) = &arguments.json {
        report::json(&rows, file)?;
    }
    if arguments.keep {
        stage.config.client.fallback.policy = FallbackPolicy::OnWorkerFailure;
        return Ok(Some(Kept {
            stage,
            workers,
            mounted: failover,
        }));
    }
    failover.unmount().await?;
    workers.stop().await;
    Ok(None)
}

async fn prepare(arguments: &QuickstartArguments) -> Result<Stage> {
    let state = tempfile::Builder::new()
        .prefix("alluxio-dataset-")
        .tempdir()?;
    mounting::let_others_enter(state.path())?;
    let buckets = state.path().join("s3");
    std::fs::create_dir(&buckets)?;
    let bucket = buckets.join(NAME);
    fill(&bucket, arguments).await?;
    let surveyed = step("take the sha256 of every file");
    let expected = tokio::task::spawn_blocking(move || data::survey(&bucket)).await??;
    if expected.is_empty() {
        bail!("the folder holds no file: give another with --data, or none to have one generated");
    }
    let bytes = expected.iter().map(|file| file.length).sum();
    surveyed.done(&format!(
        "{} files, {}",
        expected.len(),
        output::size(bytes)
    ));
    let keys = Keys {
        key: random_key(),
        secret: random_key(),
    };
    let s3 = S3Server::start(&buckets, &keys).await?;
    output::line(format!("S3 server with one bucket at {}", s3.endpoint()))?;
    let yaml = state.path().join("dataset.yaml");
    let config = apply(
        &yaml,
        &s3.endpoint(),
        &workers::addresses().await?,
        &keys,
        arguments,
    )?;
    output::line(format!(
        "AlluxioDataset `{NAME}` applied from {}",
        yaml.display()
    ))?;
    Ok(Stage {
        state,
        expected: Arc::new(expected),
        s3,
        config,
    })
}

/// Puts the user's folder in the bucket's place, or generated files.
async fn fill(bucket: &Path, arguments: &QuickstartArguments) -> Result<()> {
    if let Some(folder) = &arguments.data {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot use {}", folder.display()))?;
        return Ok(std::os::unix::fs::symlink(folder, bucket)?);
    }
    let shape = data::Shape {
        images: arguments.images,
        large_file_bytes: parse_size(&arguments.large_file)?,
    };
    let bucket = bucket.to_owned();
    let generated = step("generate the dataset");
    tokio::task::spawn_blocking(move || data::generate(&bucket, &shape)).await??;
    generated.done("");
    Ok(())
}

/// Writes the dataset as a user would, reads it back strictly and makes the client's configuration
/// of it by the operator's own function; the keys join as the kubelet would hand them over.
fn apply(
    file: &Path,
    endpoint: &str,
    workers: &[HostPort],
    keys: &Keys,
    arguments: &QuickstartArguments,
) -> Result<Config> {
    let workers: Vec<String> = workers
        .iter()
        .map(|w| format!("{}:{}", w.host, w.port))
        .collect();
    let dataset = json!({
        "apiVersion": "data.alluxio.io/v1alpha1",
        "kind": "AlluxioDataset",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "ufs": {
                "uri": format!("s3://{NAME}"),
                "s3": {"endpoint": endpoint, "region": "us-east-1"},
                "credentials": {"type": "SecretRef", "secretRef": {"name": NAME}},
            },
            "cluster": {"membership": {"type": "Static", "static": {"workers": workers}}},
            "load": {"mode": "Once"},
        },
    });
    std::fs::write(file, serde_yaml::to_string(&dataset)?)?;
    let dataset: AlluxioDataset = serde_yaml::from_str(&std::fs::read_to_string(file)?)?;
    let mut config = alluxio_operator::dataset::client_config(&dataset)?;
    config.logging.level.clone_from(&arguments.log);
    let secret = [("key", &keys.key), ("secret", &keys.secret)];
    let secret = secret.map(|(name, value)| (name.to_owned(), value.clone()));
    Ok(config.with_credentials(&secret.into())?)
}

async fn start_workers(stage: &Stage) -> Result<Workers> {
    let started = step("start three embedded workers");
    let workers = Workers::start(&stage.config, stage.state.path()).await?;
    started.done("");
    Ok(workers)
}

async fn load(stage: &Stage) -> Result<()> {
    let client = Client::connect(&stage.config).await?;
    let root = client.root().clone();
    let started = Instant::now();
    let answer = client
        .loads()
        .submit(&root, &LoadOptions::default())
        .await?;
    if !answer.success {
        bail!("the load was refused: {}", answer.message);
    }
    let answer = commands::load::follow(&client, &root, &commands::load::bar()).await?;
    if answer.state != LoadState::Succeeded {
        bail!("the load ended as {}: {}", answer.state, answer.message);
    }
    let counts = answer.progress.unwrap_or_default();
    output::line(format!(
        "load {}: {} of {} files, {} in {:.1} s",
        answer.state,
        counts.files_done,
        counts.files_total,
        output::size(counts.bytes_done),
        started.elapsed().as_secs_f64()
    ))?;
    Ok(())
}

impl Stage {
    /// A new mount, with nothing cached, that reads by this policy.
    async fn mount(&self, policy: FallbackPolicy) -> Result<Mounted> {
        let mut config = self.config.clone();
        config.client.fallback.policy = policy;
        let mountpoint = self.state.path().join("mnt");
        std::fs::create_dir_all(&mountpoint)?;
        let owner = mounting::Owner {
            uid: UNPRIVILEGED_ID,
            gid: UNPRIVILEGED_ID,
        };
        let options = mounting::options(NAME);
        let surroundings = mounting::Surroundings {
            owner,
            sockets: self.state.path(),
            // A demonstration ends with its process.
            run_folder: None,
        };
        Mounted::start(&config, &mountpoint, options, surroundings).await
    }

    /// Reads everything through the mount once.
    async fn measure(
        &self,
        label: &'static str,
        mounted: &Mounted,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let before = Sources::parse(&mounted.metrics().await?);
        let pass = self.read(label, mounted.mountpoint()).await?;
        let after = Sources::parse(&mounted.metrics().await?);
        rows.push(Row::new(label, pass, after - before, rows.first()));
        Ok(())
    }

    async fn read(&self, label: &'static str, mountpoint: &Path) -> Result<Pass> {
        let bar = ProgressBar::new(self.expected.iter().map(|file| file.length).sum());
        let template = "{msg:30} {bar:30} {binary_bytes}/{binary_total_bytes}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(label);
        let (root, expected, shown) = (
            mountpoint.to_owned(),
            Arc::clone(&self.expected),
            bar.clone(),
        );
        let pass =
            tokio::task::spawn_blocking(move || read::pass(&root, &expected, &shown)).await?;
        bar.finish_and_clear();
        let pass = pass.with_context(|| format!("reading {label}"))?;
        output::line(format!(
            "read {label}: {} files, every sha256 equal, {:.0} MB/s",
            pass.files,
            pass.megabytes_per_second()
        ))?;
        Ok(pass)
    }
}

/// What `--keep` leaves running.
struct Kept {
    stage: Stage,
    workers: Workers,
    mounted: Mounted,
}

impl Kept {
    async fn wait(self) -> Result<()> {
        let ended = signals::end()?;
        let config = self.stage.state.path().join("config.yaml");
        workers::write_private(&config, &self.stage.config.to_yaml_with_secrets())?;
        output::line(self.instructions(&config))?;
        ended.await;
        self.mounted.unmount().await?;
        self.workers.stop().await;
        Ok(())
    }

    fn instructions(&self, config: &Path) -> String {
        format!(
            "\nStill running, until Ctrl-C:\n  \
             mount     {}\n  \
             S3        {}\n  \
             dataset   {}\n\
             Try:\n  \
             ls {}\n  \
             alluxio-dataset ls --config {config}\n  \
             alluxio-dataset stat --config {config} {}",
            self.mounted.mountpoint().display(),
            self.stage.s3.endpoint(),
            self.stage.state.path().join("dataset.yaml").display(),
            self.mounted.mountpoint().display(),
            self.stage
                .expected
                .first()
                .map_or(PathBuf::new(), |file| file.path.clone())
                .display(),
            config = config.display(),
        )
    }
}

/// A step that takes a while; its line is written when it is done.
struct Step {
    name: &'static str,
    started: Instant,
}

fn step(name: &'static str) -> Step {
    Step {
        name,
        started: Instant::now(),
    }
}

impl Step {
    fn done(self, result: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let space = if result.is_empty() { "" } else { ": " };
        output::note(format!("{}{space}{result} ({seconds:.1} s)", self.name));
    }
}

fn random_key() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), KEY_LENGTH)
}

fn verdict(expected: &[Expected]) -> String {
    format!(
        "\nAll {} files were equal to their source in every pass, also with a worker gone.\n\
         MB/s is 10^6 bytes a second, by the slowest of {} readers, without the time to hash.",
        expected.len(),
        read::READERS
    )
}
