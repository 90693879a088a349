//! A client's summary for people: where bytes came from, and what fell back and why.

use std::fmt::Write as _;

use alluxio_client::{FallbackSummary, SourceSummary, Summary};

use crate::output::size;

/// Some lines of text; sources and reasons that did not occur are left out.
pub(crate) fn text(summary: &Summary) -> String {
    let mut text = format!(
        "{} in {:.1} s (configuration {})\n",
        summary.dataset, summary.seconds, summary.config_version
    );
    for source in &summary.sources {
        if source.delivered_bytes + source.fetched_bytes + source.requests > 0 {
            text.push_str(&of_source(source));
        }
    }
    let cache = &summary.cache;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  pages in memory when asked for: {}, waited for: {}",
        cache.hits, cache.waits
    );
    of_fallback(&mut text, &summary.fallback);
    text.truncate(text.trim_end().len());
    text
}

fn of_source(source: &SourceSummary) -> String {
    let mut text = format!(
        "  from {:<12}{:>11}",
        source.source.label().replace('_', " "),
        size(source.delivered_bytes)
    );
    if source.requests > 0 {
        let _ = write!(
            text,
            "   {} fetched by {} pages in {:.3} s, {} misses, {} failures",
            size(source.fetched_bytes),
            source.requests,
            source.seconds,
            source.misses,
            source.failures
        );
    }
    text + "\n"
}

fn of_fallback(text: &mut String, fallback: &FallbackSummary) {
    for reason in &fallback.reasons {
        let _ = writeln!(
            text,
            "  under-store because {:<13}{:>11}   {} pages in {:.3} s",
            reason.reason.label(),
            size(reason.bytes),
            reason.pages,
            reason.seconds
        );
    }
    if let Some(budget) = &fallback.budget {
        let _ = writeln!(
            text,
            "  fallback budget: {} of {} an hour spent, {} pages refused",
            size(budget.spent_bytes),
            size(budget.limit_bytes_per_hour),
            budget.refused_pages
        );
    }
}
