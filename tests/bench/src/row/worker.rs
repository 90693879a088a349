//! Rows over one warm worker.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Run, Side, child, median_of, megabytes};
use crate::child::Taken;
use crate::figure::{Against, Bound, Figure, median};
use crate::scene::{BIG, HOT, PAGE_BYTES, QUARTER};

/// Small random reads a round.
const RANGES: u64 = 3000;
/// How long wrk presses, and with how many connections.
const WRK: [&str; 3] = ["-t2", "-c8", "-d4s"];

/// Whole pages: the client beside a bare HTTP loop, and what the client's processor time is.
pub(super) fn pages(run: &Run) -> Result<Vec<Figure>> {
    // No local cache: memory for what is read ahead, and nothing to keep pages in.
    let config = run
        .scene
        .worker_config("client-worker", "memory_limit: 64Mi")?;
    let url = run.scene.page_url(BIG.0)?;
    let pages = (BIG.1 / PAGE_BYTES).to_string();
    let mut sides = [
        child(&["client-file", &config, BIG.0]),
        child(&["http-pages", &url, &pages]),
    ];
    let taken = run.in_turn(&mut sides)?;
    Ok(vec![
        Figure {
            name: "worker-pages".to_owned(),
            what: "1 GiB by 1 MiB pages from one warm worker, no local cache".to_owned(),
            ours: median_of(&taken[0], megabytes),
            unit: "MB/s".to_owned(),
            against: Against::Peer {
                name: "bare HTTP, 8 kept connections".to_owned(),
                value: median_of(&taken[1], megabytes),
            },
            target: 0.85,
            bound: Bound::AtLeast,
        },
        Figure {
            name: "worker-cpu".to_owned(),
            what: "client's CPU seconds per GiB from a worker".to_owned(),
            ours: median_of(&taken[0], Taken::cpu_seconds_per_gib),
            unit: "s/GiB".to_owned(),
            against: Against::Limit,
            target: 0.7,
            bound: Bound::AtMost,
        },
    ])
}

/// Small random reads.
pub(super) fn ranges(run: &Run) -> Result<Vec<Figure>> {
    // Less memory than the file, so that nearly every read goes to the worker.
    let client = "memory_limit: 16Mi";
    let config = run.scene.worker_config("client-ranges", client)?;
    let url = run.scene.page_url(BIG.0)?;
    let (pages, count) = ((BIG.1 / PAGE_BYTES).to_string(), RANGES.to_string());
    let mut sides = [
        child(&["client-ranges", &config, BIG.0, &count]),
        child(&["http-ranges", &url, &pages, &count]),
    ];
    let taken = run.in_turn(&mut sides)?;
    let p50 = |taken: Taken| taken.p50_seconds * 1e3;
    Ok(vec![Figure {
        name: "worker-ranges".to_owned(),
        what: "4 KiB range from a warm worker, p50".to_owned(),
        ours: median_of(&taken[0], p50),
        unit: "ms".to_owned(),
        against: Against::Peer {
            name: "bare HTTP".to_owned(),
            value: median_of(&taken[1], p50),
        },
        target: 1.5,
        bound: Bound::AtMost,
    }])
}

/// The embedded worker beside nginx.
pub(super) fn server(run: &Run) -> Result<Vec<Figure>> {
    let worker = run.scene.page_url(HOT.0)?.replace("{n}", "0");
    let nginx = format!("{}/page", run.scene.nginx()?.url());
    let mut sides: [Side<'_>; 2] = [Box::new(|| wrk(&worker)), Box::new(|| wrk(&nginx))];
    let taken = run.in_turn(&mut sides)?;
    Ok(vec![Figure {
        name: "worker-server".to_owned(),
        what: "embedded worker's warm 1 MiB page GETs under wrk".to_owned(),
        ours: median_of(&taken[0], Taken::operations_per_second),
        unit: "requests/s".to_owned(),
        against: Against::Peer {
            name: "nginx, the same bytes as a file".to_owned(),
            value: median_of(&taken[1], Taken::operations_per_second),
        },
        target: 0.7,
        bound: Bound::AtLeast,
    }])
}

fn wrk(url: &str) -> Result<Taken> {
    let output = Command::new("wrk")
        .args(WRK)
        .arg(url)
        .output()
        .context("starting wrk; run `scripts/tools ensure bench`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") {
        bail!("wrk {url}: {text}");
    }
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok())
        .with_context(|| format!("wrk {url} told no rate: {text}"))?;
    Ok(Taken {
        seconds: 1.0,
        operations: rate,
        ..Taken::default()
    })
}

/// Reads a file by the SDK and prints the seconds.
const PYTHON: &str = "
import sys, time
from alluxio import AlluxioFileSystem
port, uri, length = sys.argv[1:4]
fs = AlluxioFileSystem(worker_hosts='127.0.0.1', worker_http_port=int(port), options={
    'alluxio.worker.page.store.page.size': '1MB'})
started = time.perf_counter()
data = fs.read_range(uri, 0, int(length))
took = time.perf_counter() - started
assert len(data) == int(length), len(data)
print(took)
";

/// The client beside the published Python SDK.
pub(super) fn python(run: &Run) -> Result<Vec<Figure>> {
    let config = run
        .scene
        .worker_config("client-python", "memory_limit: 64Mi")?;
    let port = run.scene.worker()?.port.to_string();
    let uri = run.scene.uri(QUARTER.0)?.to_string();
    let length = QUARTER.1.to_string();
    let mut ours = child(&["client-file", &config, QUARTER.0]);
    let (mut client, mut sdk) = (Vec::new(), Vec::new());
    for round in 0..=run.rounds {
        let taken = ours()?;
        let output = Command::new(&run.scene.python)
            .args(["-c", PYTHON, &port, &uri, &length])
            .output()
            .with_context(|| format!("starting {}", run.scene.python.display()))?;
        if !output.status.success() {
            bail!(
                "the Python SDK failed; run `scripts/tools ensure bench`: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
        if round > 0 {
            client.push(megabytes(taken));
            sdk.push(taken.bytes / seconds / 1e6);
        }
    }
    Ok(vec![Figure {
        name: "python-sdk".to_owned(),
        what: "256 MiB from the same warm worker".to_owned(),
        ours: median(client),
        unit: "MB/s".to_owned(),
        against: Against::Peer {
            name: "Python SDK `alluxio` 1.0.0".to_owned(),
            value: median(sdk),
        },
        target: 5.0,
        bound: Bound::AtLeast,
    }])
}
