//! Figures for people: the table, and the plot of how far each target is passed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::figure::{Against, Bound, Figure, Figures};

/// The table in the document stands between these lines.
const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->\n";

const BAR_HEIGHT: u32 = 18;
const ROW_HEIGHT: u32 = 30;
const LABEL_WIDTH: u32 = 190;
const PLOT_WIDTH: u32 = 520;
const TOP: u32 = 46;
/// The plot's ends: a target missed by half, and one passed eightfold.
const LEAST: f64 = 0.5;
const MOST: f64 = 8.0;

/// Writes `performance.json`, `performance.svg` and the table in `performance.md`.
pub(crate) fn write(figures: &Path, docs: &Path) -> Result<()> {
    let text = fs::read_to_string(figures)
        .with_context(|| format!("cannot read {}", figures.display()))?;
    let parsed: Figures = serde_json::from_str(&text)?;
    fs::write(docs.join("performance.json"), &text)?;
    fs::write(docs.join("performance.svg"), plot(&parsed))?;
    let document = docs.join("performance.md");
    let old = fs::read_to_string(&document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    fs::write(&document, with_table(&old, &parsed)?)?;
    Ok(())
}

fn with_table(document: &str, figures: &Figures) -> Result<String> {
    let (before, rest) = document
        .split_once(BEGIN)
        .context("no begin of the table")?;
    let (_, after) = rest.split_once(END).context("no end of the table")?;
    let table = table(figures);
    let machine = &figures.machine;
    Ok(format!("{before}{BEGIN}{machine}\n\n{table}{END}{after}"))
}

/// A Markdown table.
pub(crate) fn table(figures: &Figures) -> String {
    let mut text =
        "| row | what | ours | against | result | target | |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in &figures.rows {
        let against = match &row.against {
            Against::Peer { name, value } => format!("{name}: {} {}", short(*value), row.unit),
            Against::Limit => "–".to_owned(),
        };
        let bound = match row.bound {
            Bound::AtLeast => "≥",
            Bound::AtMost => "≤",
        };
        let verdict = if row.holds() { "holds" } else { "**missed**" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} {} | {against} | {} | {bound} {} | {verdict} |",
            row.name,
            row.what,
            short(row.ours),
            row.unit,
            short(row.result()),
            short(row.target),
        );
    }
    text
}

/// A plot of each row's fulfilment on a logarithmic scale, with a line at 1.
fn plot(figures: &Figures) -> String {
    let rows = u32::try_from(figures.rows.len()).unwrap_or(u32::MAX / ROW_HEIGHT);
    let height = TOP + rows * ROW_HEIGHT + 24;
    let width = LABEL_WIDTH + PLOT_WIDTH + 80;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">How far each target is passed (1 = just reached, \
         logarithmic)</text>\n"
    );
    for tick in [0.5, 1.0, 2.0, 4.0, 8.0] {
        let x = place(tick);
        let color = if (tick - 1.0).abs() < f64::EPSILON {
            "#c00"
        } else {
            "#ddd"
        };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.0}\" y1=\"{TOP}\" x2=\"{x:.0}\" y2=\"{}\" stroke=\"{color}\"/>\
             <text x=\"{x:.0}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{tick}</text>",
            height - 24,
            height - 8
        );
    }
    for (index, row) in (0u32..).zip(&figures.rows) {
        let _ = writeln!(svg, "{}", bar(row, TOP + index * ROW_HEIGHT + 6));
    }
    svg + "</svg>\n"
}

fn bar(row: &Figure, y: u32) -> String {
    let color = if row.holds() { "#4a7" } else { "#e90" };
    let (start, end) = (place(LEAST), place(row.fulfilment()));
    let text_y = y + BAR_HEIGHT - 5;
    format!(
        "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{}</text>\
         <rect x=\"{start:.0}\" y=\"{y}\" width=\"{:.0}\" height=\"{BAR_HEIGHT}\" fill=\"{color}\"/>\
         <text x=\"{:.0}\" y=\"{text_y}\">{}</text>",
        LABEL_WIDTH - 8,
        row.name,
        (end - start).max(1.0),
        end + 5.0,
        short(row.fulfilment()),
    )
}

fn place(fulfilment: f64) -> f64 {
    let share = (fulfilment.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    f64::from(LABEL_WIDTH) + share * f64::from(PLOT_WIDTH)
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The machine in words.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let gib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / f64::from(1 << 20));
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores, {gib:.0} GiB, Linux {}, everything on loopback.",
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_table_and_the_plot_in_the_docs_are_drawn_from_their_json() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let read = |name: &str| fs::read_to_string(docs.join(name)).unwrap();
        let figures: Figures = serde_json::from_str(&read("performance.json")).unwrap();
        assert_eq!(plot(&figures), read("performance.svg"));
        let document = read("performance.md");
        assert_eq!(with_table(&document, &figures).unwrap(), document);
    }

    #[test]
    fn three_digits_are_kept() {
        let texts = [1234.5, 12.345, 1.2345, 0.12345].map(short);
        assert_eq!(texts, ["1234", "12.3", "1.23", "0.123"]);
    }
}
