//! Joining metric texts of several processes into one that Prometheus accepts.
//!
//! Prometheus wants each family once: one HELP, one TYPE, then all its samples together. So the
//! texts are cut into families, in the order in which names are first seen, and each sample gets
//! the labels of the text that it came from.

use std::collections::HashMap;
use std::fmt::Write;

/// A metric text and the labels that tell its samples from those of other texts.
#[derive(Clone, Copy, Debug)]
pub struct LabelledText<'a> {
    /// Name and value pairs added to each sample.
    pub labels: &'a [(&'a str, &'a str)],
    /// Prometheus' text format.
    pub text: &'a str,
}

/// One family while it is put together.
#[derive(Default)]
struct Family<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    samples: String,
}

/// All families in the order of their first appearance.
#[derive(Default)]
struct Families<'a> {
    order: Vec<&'a str>,
    by_name: HashMap<&'a str, Family<'a>>,
}

impl<'a> Families<'a> {
    fn named(&mut self, name: &'a str) -> &mut Family<'a> {
        self.by_name.entry(name).or_insert_with(|| {
            self.order.push(name);
            Family::default()
        })
    }

    /// The family of a sample: its own name, or that of a histogram or summary that it is part of.
    fn of_sample(&mut self, sample: &'a str) -> &mut Family<'a> {
        let whole = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| sample.strip_suffix(suffix))
            .find(|stem| {
                self.by_name
                    .get(stem)
                    .is_some_and(|f| matches!(f.kind, Some("histogram" | "summary")))
            });
        self.named(whole.unwrap_or(sample))
    }

    fn into_text(self) -> String {
        let mut text = String::new();
        for name in &self.order {
            let family = &self.by_name[name];
            if let Some(help) = family.help {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            if let Some(kind) = family.kind {
                let _ = writeln!(text, "# TYPE {name} {kind}");
            }
            text.push_str(&family.samples);
        }
        text
    }
}

/// Joins `parts` into one text: one HELP and TYPE a family, each sample with its part's labels.
/// A label that a sample has already is kept as it is. Lines that are no samples are dropped.
pub fn merge(parts: &[LabelledText<'_>]) -> String {
    let mut families = Families::default();
    for part in parts {
        for line in part.text.lines() {
            take_line(&mut families, line.trim(), part.labels);
        }
    }
    families.into_text()
}

fn take_line<'a>(families: &mut Families<'a>, line: &'a str, labels: &[(&str, &str)]) {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
        families.named(name).help.get_or_insert(help);
    } else if let Some(rest) = line.strip_prefix("# TYPE ") {
        if let Some((name, kind)) = rest.split_once(' ') {
            families.named(name).kind.get_or_insert(kind);
        }
    } else if !line.starts_with('#')
        && let Some(end) = line.find(['{', ' '])
    {
        let (name, rest) = line.split_at(end);
        let sample = with_labels(name, rest, labels);
        let family = families.of_sample(name);
        family.samples.push_str(&sample);
        family.samples.push('\n');
    }
}

/// The sample line with `labels` put first; `rest` begins with `{` or with the blank before the
/// value.
fn with_labels(name: &str, rest: &str, labels: &[(&str, &str)]) -> String {
    let (own, value) = match rest.strip_prefix('{') {
        None => ("", rest),
        Some(inner) => {
            let end = end_of_labels(inner);
            (&inner[..end], inner.get(end + 1..).unwrap_or(""))
        }
    };
    let mut all: Vec<String> = labels
        .iter()
        .filter(|(label, _)| !has_label(own, label))
        .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
        .collect();
    if !own.is_empty() {
        all.push(own.trim_end_matches(',').to_owned());
    }
    if all.is_empty() {
        format!("{name}{value}")
    } else {
        format!("{name}{{{}}}{value}", all.join(","))
    }
}

/// Where the closing brace stands; braces inside quoted values do not count.
fn end_of_labels(inner: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return at,
            _ => {}
        }
    }
    inner.len()
}

/// Whether the label stands in the list, and not merely inside some label's value.
fn has_label(own: &str, label: &str) -> bool {
    let mut rest = own;
    while let Some((name, after)) = rest.split_once("=\"") {
        if name.trim_start_matches(',').trim() == label {
            return true;
        }
        rest = after.get(end_of_value(after)..).unwrap_or("");
    }
    false
}

/// The offset behind the closing quote of a value.
fn end_of_value(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "# HELP reads Reads.\n# TYPE reads counter\nreads 3\nreads{source=\"ufs\"} 4\n";
    const TWO: &str = "# HELP reads Reads.\n# TYPE reads counter\nreads 5\n# TYPE up gauge\nup 1\n";

    fn volumes(parts: &[(&str, &str)]) -> String {
        let labels: Vec<[(&str, &str); 1]> = parts.iter().map(|(v, _)| [("volume", *v)]).collect();
        let parts: Vec<LabelledText<'_>> = parts
            .iter()
            .zip(&labels)
            .map(|((_, text), labels)| LabelledText { labels, text })
            .collect();
        merge(&parts)
    }

    #[test]
    fn each_family_stands_once_with_all_samples() {
        assert_eq!(
            volumes(&[("a", ONE), ("b", TWO)]),
            "# HELP reads Reads.\n# TYPE reads counter\nreads{volume=\"a\"} 3\n\
             reads{volume=\"a\",source=\"ufs\"} 4\nreads{volume=\"b\"} 5\n\
             # TYPE up gauge\nup{volume=\"b\"} 1\n"
        );
    }

    #[test]
    fn parts_of_a_histogram_stay_with_it() {
        let text = "# TYPE t histogram\nt_bucket{le=\"+Inf\"} 1\nt_sum 2\nt_count 1\n";
        assert_eq!(
            volumes(&[("a", text), ("b", text)]),
            "# TYPE t histogram\nt_bucket{volume=\"a\",le=\"+Inf\"} 1\nt_sum{volume=\"a\"} 2\n\
             t_count{volume=\"a\"} 1\nt_bucket{volume=\"b\",le=\"+Inf\"} 1\n\
             t_sum{volume=\"b\"} 2\nt_count{volume=\"b\"} 1\n"
        );
    }

    #[test]
    fn a_counter_that_ends_in_count_is_its_own_family() {
        let text = "# TYPE page counter\npage 1\n# TYPE page_count counter\npage_count 2\n";
        assert_eq!(merge(&[LabelledText { labels: &[], text }]), text);
    }

    #[test]
    fn a_label_that_is_there_already_is_kept() {
        assert_eq!(
            volumes(&[("a", "x{volume=\"own\"} 1\n")]),
            "x{volume=\"own\"} 1\n"
        );
    }

    #[test]
    fn values_with_quotes_and_braces_are_left_whole() {
        assert_eq!(
            volumes(&[("a\"b", "x{path=\"}volume=\\\"\"} 1 1700000000\n")]),
            "x{volume=\"a\\\"b\",path=\"}volume=\\\"\"} 1 1700000000\n"
        );
    }

    #[test]
    fn text_without_labels_is_unchanged() {
        assert_eq!(
            merge(&[LabelledText {
                labels: &[],
                text: ONE
            }]),
            ONE
        );
    }
}
