//! How reads stay bounded when workers or the store are slow or fail: deadline, retries, circuit
//! breaker, hedging. As written, as meant, and from one to the other.

use std::time::Duration;

use alluxio_wire::PageSize;
use serde::{Deserialize, Serialize};

use crate::ConfigError;
use crate::raw::{RawClient, Size};
use crate::validated::{bytes, in_range};

/// When a worker that fails is left alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBreaker {
    /// Failures in a row after which a worker is left alone.
    pub failures: u32,
    /// How long it is left alone the first time.
    pub rest_milliseconds: u64,
    /// The longest that it is left alone.
    pub max_rest_milliseconds: u64,
}

/// A second request for a page whose worker is slow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHedge {
    /// Whether the next worker is asked too.
    pub enabled: bool,
    /// The most of all requests that are second ones.
    pub max_percent: u32,
    /// The least that the first worker is waited for.
    pub min_delay_milliseconds: u64,
}

/// What bounds a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RobustOptions {
    /// For one page, whatever it waits for.
    pub deadline: Duration,
    /// A slower answer is given up.
    pub min_bytes_per_second: u64,
    /// Requests that repeat a failed one, at most, in percent of all.
    pub retry_percent: u32,
    /// Bytes on their way at one time; none where memory alone bounds them.
    pub max_inflight_bytes: Option<u64>,
    /// When a worker that fails is left alone.
    pub breaker: BreakerOptions,
    /// A second request for a page whose worker is slow; none where it is turned off.
    pub hedge: Option<HedgeOptions>,
}

/// When a worker that fails is left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerOptions {
    /// After so many failures in a row.
    pub failures: u32,
    /// For so long the first time.
    pub rest: Duration,
    /// And at most so long.
    pub max_rest: Duration,
}

/// A second request for a page whose worker is slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HedgeOptions {
    /// The most of all requests that are second ones.
    pub max_percent: u32,
    /// The least that the first worker is waited for.
    pub min_delay: Duration,
}

impl Default for RawBreaker {
    fn default() -> Self {
        Self {
            // One broken answer among good ones is an accident, three in a row are a state.
            failures: 3,
            // About the time that a restarted process takes to listen again.
            rest_milliseconds: 3000,
            // A node's reboot; a worker that came back is used again within a minute.
            max_rest_milliseconds: 60_000,
        }
    }
}

impl Default for RawHedge {
    fn default() -> Self {
        Self {
            enabled: true,
            // The share of requests that is slower than the 95th percentile.
            max_percent: 5,
            // A page from a worker's memory takes about one, and below ten a second request costs
            // more than the wait.
            min_delay_milliseconds: 10,
        }
    }
}

impl Default for BreakerOptions {
    fn default() -> Self {
        breaker(&RawBreaker::default())
    }
}

/// The client's bounds, checked. No deadline may be shorter than one worker's time.
pub(crate) fn read(raw: &RawClient, page_size: PageSize) -> Result<RobustOptions, ConfigError> {
    let deadline = raw.deadline_milliseconds;
    in_range("client.deadline_milliseconds", deadline, 1, 3_600_000)?;
    if deadline < raw.fallback.worker_timeout_milliseconds {
        let reason = format!(
            "{deadline} ms is less than client.fallback.worker_timeout_milliseconds: a silent \
             worker would leave no time for another source; give more"
        );
        return Err(ConfigError::value("client.deadline_milliseconds", reason));
    }
    let rate = bytes("client.min_bytes_per_second", &raw.min_bytes_per_second)?;
    in_range("client.min_bytes_per_second", rate, 1, 1 << 30)?;
    in_range("client.retry_percent", u64::from(raw.retry_percent), 0, 100)?;
    let inflight = bytes("client.max_inflight_bytes", &raw.max_inflight_bytes)?;
    if (1..page_size.bytes()).contains(&inflight) {
        let reason = format!(
            "{inflight} bytes is less than a page of {page_size}: give at least a page, or 0 for \
             what the memory limit allows"
        );
        return Err(ConfigError::value("client.max_inflight_bytes", reason));
    }
    let rests = &raw.breaker;
    in_range(
        "client.breaker.failures",
        u64::from(rests.failures),
        1,
        1000,
    )?;
    let rest = rests.rest_milliseconds;
    in_range("client.breaker.rest_milliseconds", rest, 1, 600_000)?;
    let max_rest = rests.max_rest_milliseconds;
    in_range(
        "client.breaker.max_rest_milliseconds",
        max_rest,
        rest,
        3_600_000,
    )?;
    let hedge = &raw.hedge;
    in_range(
        "client.hedge.max_percent",
        u64::from(hedge.max_percent),
        1,
        50,
    )?;
    in_range(
        "client.hedge.min_delay_milliseconds",
        hedge.min_delay_milliseconds,
        1,
        60_000,
    )?;
    Ok(RobustOptions {
        deadline: Duration::from_millis(deadline),
        min_bytes_per_second: rate,
        retry_percent: raw.retry_percent,
        max_inflight_bytes: Some(inflight).filter(|bytes| *bytes > 0),
        breaker: breaker(&raw.breaker),
        hedge: hedge.enabled.then(|| HedgeOptions {
            max_percent: hedge.max_percent,
            min_delay: Duration::from_millis(hedge.min_delay_milliseconds),
        }),
    })
}

fn breaker(raw: &RawBreaker) -> BreakerOptions {
    BreakerOptions {
        failures: raw.failures,
        rest: Duration::from_millis(raw.rest_milliseconds),
        max_rest: Duration::from_millis(raw.max_rest_milliseconds),
    }
}

/// Writes the bounds into the text's form.
pub(crate) fn write(options: &RobustOptions, raw: &mut RawClient) {
    raw.deadline_milliseconds = millis(options.deadline);
    raw.min_bytes_per_second = Size::Bytes(options.min_bytes_per_second);
    raw.retry_percent = options.retry_percent;
    raw.max_inflight_bytes = Size::Bytes(options.max_inflight_bytes.unwrap_or(0));
    raw.breaker = RawBreaker {
        failures: options.breaker.failures,
        rest_milliseconds: millis(options.breaker.rest),
        max_rest_milliseconds: millis(options.breaker.max_rest),
    };
    raw.hedge = match &options.hedge {
        Some(hedge) => RawHedge {
            enabled: true,
            max_percent: hedge.max_percent,
            min_delay_milliseconds: millis(hedge.min_delay),
        },
        None => RawHedge {
            enabled: false,
            ..RawHedge::default()
        },
    };
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use crate::Config;

    fn read(client: &str) -> Result<Config, String> {
        let yaml = format!("{{ufs: {{uri: 's3://b/p'}}, client: {{{client}}}}}");
        Config::from_yaml(&yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn bounds_are_named_by_their_path() {
        for (client, path) in [
            ("deadline_milliseconds: 0", "client.deadline_milliseconds"),
            (
                "deadline_milliseconds: 1999",
                "client.deadline_milliseconds",
            ),
            ("min_bytes_per_second: 0", "client.min_bytes_per_second"),
            ("retry_percent: 101", "client.retry_percent"),
            ("max_inflight_bytes: 1000", "client.max_inflight_bytes"),
            ("breaker: {failures: 0}", "client.breaker.failures"),
            (
                "breaker: {rest_milliseconds: 0}",
                "client.breaker.rest_milliseconds",
            ),
            (
                "breaker: {max_rest_milliseconds: 2999}",
                "client.breaker.max_rest_milliseconds",
            ),
            ("hedge: {max_percent: 51}", "client.hedge.max_percent"),
            (
                "hedge: {min_delay_milliseconds: 0}",
                "client.hedge.min_delay_milliseconds",
            ),
        ] {
            let error = read(client).unwrap_err();
            assert!(error.contains(path), "{client}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let config = read(
            "deadline_milliseconds: 5000, max_inflight_bytes: 8Mi, retry_percent: 0, \
             hedge: {enabled: false}, breaker: {failures: 9}",
        )
        .unwrap();
        assert_eq!(config.client.robust.hedge, None);
        let again = Config::from_yaml(&config.to_yaml()).unwrap();
        assert_eq!(again.client, config.client);
    }
}
