//! What file systems are tried with: fsx, which compares a file with a model of it, and pjdfstest, which
//! knows what POSIX wants of each call.
//!
//! Not all that POSIX wants can be had over an object store. `posix/pjdfstest.failures` lists each case
//! that fails, by reason, with what the tool must say of it: a case that fails and is not listed, one
//! that is listed and passes, and one that fails in another way than is listed, fail the check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::gateway;
use crate::writable::Writable;

/// What fsx does with each seed, on each store.
const OPERATIONS: &str = "3000";
const SEEDS: [&str; 2] = ["1", "2"];

/// A tool that takes longer hangs; on an idle machine each run takes ten to thirty seconds.
const LIMIT_SECONDS: &str = "300";

const FSX_CONFIG: &str = include_str!("posix/fsx.toml");
const PJDFSTEST_CONFIG: &str = include_str!("posix/pjdfstest.toml");
const FAILURES: &str = include_str!("posix/pjdfstest.failures");

pub(crate) fn fsx_finds_no_wrong_byte() {
    Writable::on_each_store(|it| {
        let Some(fsx) = tool("fsx") else {
            return it.end();
        };
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("fsx.toml");
        fs::write(&config, FSX_CONFIG).unwrap();
        for seed in SEEDS {
            let mut run = within_limit(&fsx);
            run.arg("-f").arg(&config).args(["-N", OPERATIONS]);
            // What it expected is written beside the log, and not into the mount.
            run.args(["-S", seed, "-P"]).arg(folder.path());
            let output = run.arg(it.at("fsx")).output().unwrap();
            assert!(output.status.success(), "seed {seed}: {}", told(&output));
            // Once more the whole of it, now by a reader of its own.
            let file = fs::read(it.at("fsx")).unwrap();
            assert!(it.stored("fsx").unwrap() == file, "seed {seed}: the store");
            fs::remove_file(it.at("fsx")).unwrap();
        }
        it.end();
    });
}

pub(crate) fn pjdfstest_fails_where_the_list_says() {
    let Some(pjdfstest) = tool("pjdfstest") else {
        return;
    };
    let it = Writable::on_files();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pjdfstest.toml");
    fs::write(&config, PJDFSTEST_CONFIG).unwrap();
    let mut run = within_limit(&pjdfstest);
    run.arg("-c").arg(&config).arg("-p").arg(it.at(""));
    // Another file system, for what must not be linked or renamed across.
    run.arg("-s").arg(folder.path());
    let output = run.env("RUST_BACKTRACE", "0").output().unwrap();
    let outcomes = outcomes(&String::from_utf8_lossy(&output.stdout));
    assert!(!outcomes.is_empty(), "no case was run: {}", told(&output));
    let passed = outcomes.values().filter(|said| said.is_none()).count();
    println!("  {passed} of {} cases pass", outcomes.len());
    let surprises = surprises(&listed(FAILURES), &outcomes);
    assert!(
        surprises.is_empty(),
        "pjdfstest differs from tests/mount/posix/pjdfstest.failures:\n{}",
        surprises.join("\n")
    );
    it.end();
}

/// The program of a tool, or a word that it is not there, which CI must not hear.
fn tool(name: &str) -> Option<PathBuf> {
    let found = gateway::tool(name);
    if found.is_none() {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "{name} is missing: scripts/tools ensure posix");
        println!("  left out: {name} is missing (scripts/tools ensure posix)");
    }
    found
}

/// The tool, which is ended where it hangs.
fn within_limit(tool: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(LIMIT_SECONDS).arg(tool);
    command
}

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{} {out}{err}", output.status)
}

/// Each case that was run, and what was said of one that did not pass.
fn outcomes(printed: &str) -> BTreeMap<String, Option<String>> {
    let mut outcomes = BTreeMap::new();
    let mut last: Option<&mut String> = None;
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(case), Some(verdict @ ("ok" | "FAILED" | "skipped")), None) => {
                let said = (verdict != "ok").then(|| verdict.to_owned());
                let outcome = outcomes.entry(case.to_owned()).insert_entry(said);
                last = outcome.into_mut().as_mut();
            }
            // The summary follows.
            (None, ..) => last = None,
            _ => {
                if let Some(said) = &mut last {
                    said.push(' ');
                    said.push_str(line.trim());
                }
            }
        }
    }
    outcomes
}

/// Each case that is listed, and what must be said of it.
///
/// A line `says TEXT` holds for the cases that follow it; `a::{b,c}` is `a::b` and `a::c`.
fn listed(text: &str) -> BTreeMap<String, String> {
    let mut listed = BTreeMap::new();
    let mut says = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(text) = line.strip_prefix("says ") {
            says = Some(text);
            continue;
        }
        let says = says.unwrap();
        let (before, variants, after) = match line.split_once('{') {
            None => (line, "", ""),
            Some((before, rest)) => {
                let (variants, after) = rest.split_once('}').unwrap();
                (before, variants, after)
            }
        };
        for variant in variants.split(',') {
            let case = format!("{before}{variant}{after}");
            let known = listed.insert(case, says.to_owned());
            assert!(known.is_none(), "{line} is listed twice");
        }
    }
    listed
}

/// How what was seen differs from what is listed.
fn surprises(
    listed: &BTreeMap<String, String>,
    outcomes: &BTreeMap<String, Option<String>>,
) -> Vec<String> {
    let of_outcomes = outcomes
        .iter()
        .filter_map(|(case, said)| match (listed.get(case), said) {
            (None, None) => None,
            (Some(_), None) => Some(format!("{case} is listed and passes")),
            (None, Some(said)) => Some(format!("{case} is not listed: {said}")),
            (Some(says), Some(said)) if said.contains(says) => None,
            (Some(says), Some(said)) => Some(format!("{case} should say `{says}`: {said}")),
        });
    let missing = listed.keys().filter(|case| !outcomes.contains_key(*case));
    let missing = missing.map(|case| format!("{case} is listed and was not run"));
    of_outcomes.chain(missing).collect()
}
