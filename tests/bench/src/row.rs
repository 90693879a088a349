//! The rows: each takes its two sides in turn, round after round, and keeps the medians.

mod disk;
mod load;
mod local;
mod mount;
mod store;
mod worker;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::child::{Taken, spawn};
use crate::figure::{Figure, Figures, median};
use crate::scene::Scene;
use crate::{RunArguments, report, say};

/// A run in progress.
struct Run {
    scene: Scene,
    rounds: usize,
}

/// A row: its name and what measures it.
type Row = (&'static str, fn(&Run) -> Result<Vec<Figure>>);

const ROWS: &[Row] = &[
    ("worker-pages", worker::pages),
    ("worker-ranges", worker::ranges),
    ("worker-server", worker::server),
    ("python-sdk", worker::python),
    ("store-read", store::read),
    ("store-requests", store::requests),
    ("memory-limit", store::memory_limit),
    ("disk-read", disk::read),
    ("disk-open", disk::open),
    ("memory-cache", local::memory),
    ("ring", local::ring),
    ("load-million", load::million),
    ("mount-cached", mount::cached::large),
    ("mount-cached-small", mount::cached::small),
    ("mount-again", mount::cached::again),
    ("mount-worker", mount::remote::worker),
    ("mount-worker-small", mount::remote::worker_small),
    ("mount-s3", mount::remote::store),
    ("mount-first-byte", mount::remote::first_byte),
    ("mount-write", mount::write::large),
    ("mount-find", mount::tree::find),
    ("mount-million", mount::tree::million),
    ("mount-idle", mount::tree::idle),
];

/// Measures the rows that were asked for.
pub(crate) fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let wanted = |name: &str| {
        arguments.only.is_empty()
            || arguments
                .only
                .iter()
                .any(|word| name.contains(word.as_str()))
    };
    say("write the data")?;
    let run = Run {
        scene: Scene::prepare(arguments)?,
        rounds: arguments.rounds.max(1),
    };
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, measure) in ROWS.iter().filter(|(name, _)| wanted(name)) {
        say(&format!("measure {name}"))?;
        match measure(&run) {
            Ok(figures) => rows.extend(figures),
            // The other rows are worth having all the same.
            Err(error) => {
                say(&format!("{name} FAILED: {error:#}"))?;
                failed.push(*name);
            }
        }
    }
    let figures = Figures {
        machine: report::machine(),
        rows,
    };
    if let Some(folder) = arguments.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(
        &arguments.json,
        serde_json::to_string_pretty(&figures)? + "\n",
    )
    .with_context(|| format!("cannot write {}", arguments.json.display()))?;
    say(&format!("\n{}", report::table(&figures)))?;
    let missed = figures.rows.iter().filter(|row| !row.holds()).count();
    say(&format!(
        "{missed} of {} rows miss their target",
        figures.rows.len()
    ))?;
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(if arguments.strict && missed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Run {
    /// Takes the sides in turn; a first turn that is not counted warms everything up.
    fn in_turn(&self, sides: &mut [Side<'_>]) -> Result<Vec<Vec<Taken>>> {
        let mut taken = vec![Vec::new(); sides.len()];
        for round in 0..=self.rounds {
            for (index, side) in sides.iter_mut().enumerate() {
                let result = side()?;
                if round > 0 {
                    taken[index].push(result);
                }
            }
        }
        Ok(taken)
    }
}

/// One side: does its work once.
type Side<'a> = Box<dyn FnMut() -> Result<Taken> + 'a>;

/// A side that is a child of this program.
fn child<'a>(arguments: &[&str]) -> Side<'a> {
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    Box::new(move || spawn(&arguments))
}

fn median_of(taken: &[Taken], value: impl Fn(Taken) -> f64) -> f64 {
    median(taken.iter().map(|one| value(*one)).collect())
}

/// Bytes a second in the unit of the figures.
fn megabytes(taken: Taken) -> f64 {
    taken.bytes_per_second() / 1e6
}
