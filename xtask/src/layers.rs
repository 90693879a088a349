//! The one-way graph of the workspace's crates, as data, and the check that it holds.
//!
//! The control plane never links the data plane: operator and CSI plugin meet the client only in
//! `alluxio-config`. Cargo refuses cycles; what it does not refuse is the shortcut that ends a
//! layering, and that is what this finds. Each crate has a row, and a row without a crate is an
//! error too, so that the table stays true.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};

use crate::{say, workspace_root};

/// A crate and the workspace crates that it may depend on.
type Row = (&'static str, &'static [&'static str]);

/// Which crate may see which. `*` is all of them: that crate only joins the others.
const GRAPH: &[Row] = &[
    ("alluxio-wire", &[]),
    ("alluxio-telemetry", &[]),
    ("alluxio-crds", &[]),
    ("alluxio-config", &["alluxio-wire"]),
    ("alluxio-etcd", &["alluxio-config"]),
    ("alluxio-ufs", &["alluxio-wire", "alluxio-config"]),
    (
        "alluxio-client",
        &[
            "alluxio-wire",
            "alluxio-etcd",
            "alluxio-config",
            "alluxio-ufs",
        ],
    ),
    (
        "alluxio-worker",
        &[
            "alluxio-wire",
            "alluxio-etcd",
            "alluxio-config",
            "alluxio-ufs",
            "alluxio-client",
            "alluxio-telemetry",
        ],
    ),
    (
        "alluxio-fuse",
        &["alluxio-client", "alluxio-config", "alluxio-wire"],
    ),
    (
        "alluxio-operator",
        &[
            "alluxio-crds",
            "alluxio-etcd",
            "alluxio-config",
            "alluxio-wire",
            "alluxio-telemetry",
        ],
    ),
    (
        "alluxio-csi",
        &["alluxio-crds", "alluxio-config", "alluxio-telemetry"],
    ),
    (
        "alluxio-python",
        &["alluxio-client", "alluxio-config", "alluxio-wire"],
    ),
    ("alluxio-cli", &["*"]),
    ("bench", &["*"]),
    ("e2e", &["*"]),
    ("xtask", &["alluxio-crds"]),
];

/// Heavy outside crates and the only homes of each: the core knows neither Kubernetes nor gRPC.
const HOMES: &[Row] = &[
    (
        "kube",
        &["alluxio-crds", "alluxio-operator", "alluxio-cli", "e2e"],
    ),
    ("tonic", &["alluxio-csi", "alluxio-etcd"]),
    ("opendal", &["alluxio-ufs", "bench", "e2e"]),
];

/// A dependency between two crates, as the check sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    is_for_tests: bool,
}

/// Checks the graph of this workspace.
pub(crate) fn run() -> Result<()> {
    let manifest = workspace_root()?.join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .context("asking cargo for the workspace's crates")?;
    let crates: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let wrong = violations(&crates, &edges(&metadata));
    if wrong.is_empty() {
        return say(&format!("{} crates keep to the graph", crates.len()));
    }
    bail!(
        "the crate graph is broken (see ARCHITECTURE.md):\n  {}",
        wrong.join("\n  ")
    );
}

fn edges(metadata: &Metadata) -> Vec<Edge> {
    let packages = metadata.workspace_packages();
    packages
        .iter()
        .flat_map(|package| package.dependencies.iter().map(|d| edge(package, d)))
        .collect()
}

fn edge(package: &Package, dependency: &Dependency) -> Edge {
    Edge {
        from: package.name.to_string(),
        to: dependency.name.clone(),
        is_for_tests: dependency.kind == DependencyKind::Development,
    }
}

/// Everything that is wrong with the graph, one line each.
fn violations(crates: &BTreeSet<String>, edges: &[Edge]) -> Vec<String> {
    let rows: BTreeMap<&str, &[&str]> = GRAPH.iter().copied().collect();
    let homes: BTreeMap<&str, &[&str]> = HOMES.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in crates
        .iter()
        .filter(|name| !rows.contains_key(name.as_str()))
    {
        wrong.push(format!(
            "{name}: has no row; add one to xtask/src/layers.rs"
        ));
    }
    for name in rows.keys().filter(|name| !crates.contains(**name)) {
        wrong.push(format!("{name}: has a row and is no crate; remove the row"));
    }
    for edge in edges {
        let Edge {
            from,
            to,
            is_for_tests,
        } = edge;
        if crates.contains(to) {
            let row = rows.get(from.as_str()).copied().unwrap_or_default();
            if !row.contains(&"*") && !row.contains(&to.as_str()) {
                wrong.push(format!(
                    "{from} -> {to}: not in its row; go through a crate that is"
                ));
            }
        } else if let Some(at_home) = homes.get(to.as_str())
            && !is_for_tests
            && !at_home.contains(&from.as_str())
        {
            wrong.push(format!(
                "{from} -> {to}: belongs in {} only",
                at_home.join(", ")
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<String> {
        GRAPH.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn edge(from: &str, to: &str, is_for_tests: bool) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            is_for_tests,
        }
    }

    #[test]
    fn a_control_plane_crate_may_not_link_the_data_plane() {
        let wrong = violations(&all(), &[edge("alluxio-csi", "alluxio-fuse", false)]);
        assert_eq!(wrong.len(), 1);
        assert!(
            wrong[0].starts_with("alluxio-csi -> alluxio-fuse"),
            "{wrong:?}"
        );
    }

    #[test]
    fn edges_of_the_table_pass() {
        let edges = [
            edge("alluxio-csi", "alluxio-config", false),
            edge("alluxio-cli", "alluxio-fuse", false),
            edge("alluxio-wire", "serde", false),
        ];
        assert_eq!(violations(&all(), &edges), Vec::<String>::new());
    }

    #[test]
    fn crates_and_rows_must_match() {
        let mut crates = all();
        crates.remove("alluxio-wire");
        crates.insert("alluxio-new".to_owned());
        assert_eq!(violations(&crates, &[]).len(), 2);
    }

    #[test]
    fn heavy_crates_stay_at_home() {
        assert_eq!(
            violations(&all(), &[edge("alluxio-client", "kube", false)]).len(),
            1
        );
        assert_eq!(
            violations(&all(), &[edge("alluxio-operator", "kube", false)]).len(),
            0
        );
    }

    #[test]
    fn the_table_is_acyclic() {
        let rows: BTreeMap<&str, &[&str]> = GRAPH.iter().copied().collect();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for _ in GRAPH {
            let ready = rows
                .iter()
                .filter(|(_, to)| to.iter().all(|c| done.contains(c) || *c == "*"));
            let ready: Vec<&str> = ready.map(|(name, _)| *name).collect();
            done.extend(ready);
        }
        assert_eq!(done.len(), rows.len());
    }
}
