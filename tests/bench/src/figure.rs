//! What a run finds out: one figure a row, beside what it is measured against.

use serde::{Deserialize, Serialize};

/// All figures of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// The machine, in words.
    pub(crate) machine: String,
    /// The rows.
    pub(crate) rows: Vec<Figure>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// A short name without blanks.
    pub(crate) name: String,
    /// What is measured, in words.
    pub(crate) what: String,
    /// Our side, median.
    pub(crate) ours: f64,
    /// What both sides are counted in.
    pub(crate) unit: String,
    /// What the figure is held against.
    pub(crate) against: Against,
    /// What must be reached.
    pub(crate) target: f64,
    /// Whether `target` is the least or the most.
    pub(crate) bound: Bound,
}

/// What a figure is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Against {
    /// A peer measured in the same run: the ratio of ours to it counts.
    Peer {
        /// Which.
        name: String,
        /// Its median, in the same unit.
        value: f64,
    },
    /// A limit: the figure itself counts.
    Limit,
}

/// Which side of the target is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Figure {
    /// What is compared with the target.
    pub(crate) fn result(&self) -> f64 {
        match &self.against {
            Against::Peer { value, .. } => self.ours / value,
            Against::Limit => self.ours,
        }
    }

    /// 1 where the target is just reached, more where it is passed.
    pub(crate) fn fulfilment(&self) -> f64 {
        match self.bound {
            Bound::AtLeast => self.result() / self.target,
            Bound::AtMost => self.target / self.result(),
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.fulfilment() >= 1.0
    }
}

/// The middle of the values; the mean of the two middle ones of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fulfilment_is_one_at_the_target_on_either_side() {
        let mut figure = Figure {
            name: "f".to_owned(),
            what: String::new(),
            ours: 50.0,
            unit: "MB/s".to_owned(),
            against: Against::Peer {
                name: "p".to_owned(),
                value: 100.0,
            },
            target: 0.5,
            bound: Bound::AtLeast,
        };
        assert!(figure.holds() && (figure.fulfilment() - 1.0).abs() < 1e-9);
        figure.bound = Bound::AtMost;
        figure.target = 0.4;
        assert!(!figure.holds());
        figure.against = Against::Limit;
        figure.target = 50.0;
        assert!(figure.holds());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
