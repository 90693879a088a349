//! `client.disk_cache`: pages on this node's disk.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ConfigError;
use crate::raw::Size;
use crate::validated::{bytes, in_range};

/// Less than this does not hold one of the largest pages.
const LEAST_BYTES: u64 = 64 * 1024 * 1024;
/// A year, the longest that a file may lie unused and be kept for that.
const MAX_UNUSED_SECONDS: u64 = 366 * 24 * 3600;

/// Pages on this node's disk; off where no path is given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawDiskCache {
    /// The folder; each dataset has one of its own below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The most that one dataset takes.
    pub capacity: Size,
    /// Percent of the capacity at which files are evicted.
    pub high_watermark_percent: u8,
    /// Percent of the capacity that is left then.
    pub low_watermark_percent: u8,
    /// Space of the file system that is left to others.
    pub min_free: Size,
    /// After how long a file that nobody reads is evicted; 0 for never.
    pub max_unused_seconds: u64,
}

/// Pages on this node's disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskCacheConfig {
    /// The folder; each dataset has one of its own below it.
    pub path: PathBuf,
    /// The most that one dataset takes.
    pub capacity_bytes: u64,
    /// Percent of the capacity at which files are evicted.
    pub high_watermark_percent: u8,
    /// Percent of the capacity that is left then.
    pub low_watermark_percent: u8,
    /// Space of the file system that is left to others.
    pub min_free_bytes: u64,
    /// After how long a file that nobody reads is evicted.
    pub max_unused: Option<Duration>,
}

impl Default for RawDiskCache {
    fn default() -> Self {
        Self {
            path: None,
            // Fits beside images and logs on the smallest node disk that is sold with an accelerator.
            capacity: Size::text("10Gi"),
            // A page that is written between two looks at the mark fits above it, and a sweep
            // gives enough back that the next one is far off.
            high_watermark_percent: 95,
            low_watermark_percent: 85,
            // The kubelet begins to evict pods at 10 % free; on small disks that is about this.
            min_free: Size::text("1Gi"),
            max_unused_seconds: 0,
        }
    }
}

pub(crate) fn validate(raw: &RawDiskCache) -> Result<Option<DiskCacheConfig>, ConfigError> {
    let capacity_bytes = bytes("client.disk_cache.capacity", &raw.capacity)?;
    let min_free_bytes = bytes("client.disk_cache.min_free", &raw.min_free)?;
    let (high, low) = (raw.high_watermark_percent, raw.low_watermark_percent);
    in_range(
        "client.disk_cache.high_watermark_percent",
        high.into(),
        1,
        100,
    )?;
    in_range(
        "client.disk_cache.low_watermark_percent",
        low.into(),
        1,
        100,
    )?;
    if low > high {
        return Err(ConfigError::value(
            "client.disk_cache.low_watermark_percent",
            format!("{low} is above the high watermark of {high}: eviction would never end"),
        ));
    }
    in_range(
        "client.disk_cache.max_unused_seconds",
        raw.max_unused_seconds,
        0,
        MAX_UNUSED_SECONDS,
    )?;
    if capacity_bytes < LEAST_BYTES {
        return Err(ConfigError::value(
            "client.disk_cache.capacity",
            format!("{capacity_bytes} bytes is less than 64Mi: give more, or leave the path out"),
        ));
    }
    let Some(path) = &raw.path else {
        return Ok(None);
    };
    if !path.starts_with('/') {
        return Err(ConfigError::value(
            "client.disk_cache.path",
            format!("`{path}` is not an absolute path: name a folder from `/` on"),
        ));
    }
    Ok(Some(DiskCacheConfig {
        path: PathBuf::from(path),
        capacity_bytes,
        high_watermark_percent: high,
        low_watermark_percent: low,
        min_free_bytes,
        max_unused: Some(raw.max_unused_seconds)
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
    }))
}

pub(crate) fn to_raw(config: Option<&DiskCacheConfig>) -> RawDiskCache {
    config.map_or_else(RawDiskCache::default, |config| RawDiskCache {
        path: Some(config.path.display().to_string()),
        capacity: Size::Bytes(config.capacity_bytes),
        high_watermark_percent: config.high_watermark_percent,
        low_watermark_percent: config.low_watermark_percent,
        min_free: Size::Bytes(config.min_free_bytes),
        max_unused_seconds: config.max_unused.map_or(0, |unused| unused.as_secs()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        change: impl FnOnce(&mut RawDiskCache),
    ) -> Result<Option<DiskCacheConfig>, ConfigError> {
        let mut raw = RawDiskCache {
            path: Some("/cache".to_owned()),
            ..RawDiskCache::default()
        };
        change(&mut raw);
        validate(&raw)
    }

    #[test]
    fn it_is_off_without_a_path_and_on_with_defaults() {
        assert_eq!(validate(&RawDiskCache::default()).unwrap(), None);
        let config = with(|_| ()).unwrap().unwrap();
        assert_eq!(config.capacity_bytes, 10 << 30);
        assert_eq!(config.max_unused, None);
        assert_eq!(validate(&to_raw(Some(&config))).unwrap(), Some(config));
    }

    #[test]
    fn wrong_values_name_their_field() {
        let errors = [
            (with(|raw| raw.path = Some("cache".to_owned())), "path"),
            (with(|raw| raw.capacity = Size::text("1Mi")), "capacity"),
            (
                with(|raw| raw.low_watermark_percent = 96),
                "low_watermark_percent",
            ),
            (
                with(|raw| raw.high_watermark_percent = 101),
                "high_watermark_percent",
            ),
            (
                with(|raw| raw.max_unused_seconds = u64::MAX),
                "max_unused_seconds",
            ),
        ];
        for (result, field) in errors {
            let text = result.unwrap_err().to_string();
            assert!(
                text.contains(&format!("client.disk_cache.{field}")),
                "{text}"
            );
        }
    }
}
