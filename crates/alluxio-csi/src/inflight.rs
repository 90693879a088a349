//! Which volumes are being worked on.
//!
//! Staging and unstaging need a volume for themselves; publishing may go on for many pods at once,
//! each on its own target. A call that finds its place taken is told so at once (`Aborted`) and
//! comes again, as the interface suggests: waiting here would pile up calls behind a hung mount.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::NodeError;

/// How a volume is in use now.
#[derive(Debug)]
enum Use {
    /// By one call that stages or unstages it.
    Whole,
    /// By calls that publish or unpublish it at these paths.
    Targets(Vec<PathBuf>),
}

/// The calls that run now; a cheap clone.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Mutex<HashMap<String, Use>>>);

/// A call's hold on a volume, given back on drop.
#[derive(Debug)]
pub struct Hold {
    calls: InFlight,
    volume: String,
    target: Option<PathBuf>,
}

impl InFlight {
    /// Takes the whole volume, to stage or unstage it.
    pub fn whole(&self, volume: &str) -> Result<Hold, NodeError> {
        self.with(|calls| {
            if calls.contains_key(volume) {
                return Err(busy(volume));
            }
            calls.insert(volume.to_owned(), Use::Whole);
            Ok(self.hold(volume, None))
        })
    }

    /// Takes one target path of the volume, to publish or unpublish there.
    pub fn target(&self, volume: &str, target: &Path) -> Result<Hold, NodeError> {
        self.with(|calls| {
            let now = calls
                .entry(volume.to_owned())
                .or_insert_with(|| Use::Targets(Vec::new()));
            match now {
                Use::Targets(targets) if !targets.iter().any(|taken| taken == target) => {
                    targets.push(target.to_owned());
                    Ok(self.hold(volume, Some(target.to_owned())))
                }
                Use::Whole | Use::Targets(_) => Err(busy(volume)),
            }
        })
    }

    fn hold(&self, volume: &str, target: Option<PathBuf>) -> Hold {
        Hold {
            calls: self.clone(),
            volume: volume.to_owned(),
            target,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<String, Use>) -> T) -> T {
        // The map is whole between statements, so a panic elsewhere does not spoil it.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (volume, target) = (&self.volume, &self.target);
        self.calls.with(|calls| {
            let free = match calls.get_mut(volume) {
                Some(Use::Targets(targets)) => {
                    targets.retain(|taken| Some(taken) != target.as_ref());
                    targets.is_empty()
                }
                Some(Use::Whole) | None => true,
            };
            if free {
                calls.remove(volume);
            }
        });
    }
}

fn busy(volume: &str) -> NodeError {
    NodeError::Busy {
        volume: volume.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn staging_excludes_everything_else_of_the_volume() {
        let calls = InFlight::default();
        let staging = calls.whole("v").unwrap();
        assert!(matches!(calls.whole("v"), Err(NodeError::Busy { .. })));
        assert!(matches!(
            calls.target("v", Path::new("/a")),
            Err(NodeError::Busy { .. })
        ));
        calls.whole("other").unwrap();
        drop(staging);
        calls.whole("v").unwrap();
    }

    #[test]
    fn pods_publish_side_by_side_but_not_on_one_target() {
        let calls = InFlight::default();
        let a = calls.target("v", Path::new("/a")).unwrap();
        let b = calls.target("v", Path::new("/b")).unwrap();
        assert!(matches!(
            calls.target("v", Path::new("/a")),
            Err(NodeError::Busy { .. })
        ));
        assert!(matches!(calls.whole("v"), Err(NodeError::Busy { .. })));
        drop(a);
        calls.target("v", Path::new("/a")).unwrap();
        assert!(matches!(calls.whole("v"), Err(NodeError::Busy { .. })));
        drop(b);
        calls.whole("v").unwrap();
    }
}
