//! The chart's Grafana dashboard: every panel's query, asked of a real Prometheus.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What Grafana would put for its own variables.
const RATE_INTERVAL: &str = "30s";

/// One query of one panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PanelQuery {
    pub(crate) panel: String,
    pub(crate) expression: String,
}

#[derive(Deserialize)]
struct Dashboard {
    panels: Vec<Panel>,
    #[serde(default)]
    templating: Templating,
}

#[derive(Deserialize)]
struct Panel {
    title: String,
    #[serde(default)]
    targets: Vec<Target>,
    /// A row has panels of its own.
    #[serde(default)]
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
struct Target {
    expr: String,
}

#[derive(Default, Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
}

/// The queries of the dashboard, as Grafana sends them with every variable at "All".
pub(crate) fn queries(path: &Path) -> Result<Vec<PanelQuery>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let dashboard: Dashboard = serde_json::from_str(&text)?;
    let queries = collect(&dashboard);
    if queries.is_empty() {
        bail!("{} has no query", path.display());
    }
    Ok(queries)
}

fn collect(dashboard: &Dashboard) -> Vec<PanelQuery> {
    let variables: Vec<&str> = dashboard
        .templating
        .list
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    let mut queries = Vec::new();
    let mut panels: Vec<&Panel> = dashboard.panels.iter().rev().collect();
    while let Some(panel) = panels.pop() {
        panels.extend(panel.panels.iter().rev());
        queries.extend(panel.targets.iter().map(|target| PanelQuery {
            panel: panel.title.clone(),
            expression: substituted(&target.expr, &variables),
        }));
    }
    queries
}

fn substituted(expression: &str, variables: &[&str]) -> String {
    let expression = expression.replace("$__rate_interval", RATE_INTERVAL);
    variables.iter().fold(expression, |text, name| {
        text.replace(&format!("${name}"), ".*")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn queries_of_rows_and_panels_are_found_and_filled_in() {
        let text = r#"{
            "templating": {"list": [{"name": "namespace"}]},
            "panels": [
                {"title": "row", "panels": [{"title": "a", "targets": [{"expr": "x{namespace=~\"$namespace\"}"}]}]},
                {"title": "b", "targets": [{"expr": "rate(y[$__rate_interval])"}]}
            ]}"#;
        let queries = collect(&serde_json::from_str(text).unwrap());
        let found: Vec<(&str, &str)> = queries
            .iter()
            .map(|query| (query.panel.as_str(), query.expression.as_str()))
            .collect();
        let expected = [("a", "x{namespace=~\".*\"}"), ("b", "rate(y[30s])")];
        assert_eq!(found, expected);
    }
}
