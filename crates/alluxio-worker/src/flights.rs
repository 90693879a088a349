//! One piece of work for all who want its result at the same time.
//!
//! The work runs in a task of its own, so it goes on when the client that began it goes away: the
//! page is kept all the same, and others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Work in flight, by key.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    in_flight: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
}

/// Takes the key out at the end of the work, also when it panics.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K, V> Flights<K, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: Mutex::new(HashMap::new()),
        })
    }

    /// The result of the work for `key`: of the one in flight, else of `work`. `None` when the
    /// work ended without one, by a panic.
    pub(crate) async fn join<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut result = self.boarded(key, work);
        let landed = result.wait_for(Option::is_some).await;
        landed.ok().and_then(|value| value.clone())
    }

    fn boarded<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut in_flight = self.in_flight.lock();
        if let Some(result) = in_flight.get(&key) {
            return result.clone();
        }
        let (sender, receiver) = watch::channel(None);
        in_flight.insert(key, receiver.clone());
        drop(in_flight);
        let landing = Landing {
            flights: Arc::clone(self),
            key,
        };
        let work = work();
        tokio::spawn(async move {
            let value = work.await;
            drop(landing);
            sender.send_replace(Some(value));
        });
        receiver
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.in_flight.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_share_one_piece_of_work() {
        let flights: Arc<Flights<u32, u32>> = Flights::new();
        let (runs, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let waiters = (0..10).map(|_| {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            flights.join(7, move || async move {
                go.notified().await;
                runs.fetch_add(1, Ordering::Relaxed) + 40
            })
        });
        let all = join_all(waiters);
        let (results, ()) = tokio::join!(all, async {
            tokio::task::yield_now().await;
            go.notify_one();
        });
        assert_eq!(results, [Some(40); 10]);
        assert_eq!(flights.join(7, || async { 1 }).await, Some(1));
    }

    #[tokio::test]
    async fn the_work_goes_on_when_its_beginner_goes_away() {
        let flights: Arc<Flights<u32, u32>> = Flights::new();
        let go = Arc::new(Notify::new());
        let begun = {
            let go = Arc::clone(&go);
            flights.boarded(7, move || async move {
                go.notified().await;
                5
            })
        };
        drop(begun);
        let waiting = flights.boarded(7, || async { 6 });
        go.notify_one();
        let mut waiting = waiting;
        assert_eq!(*waiting.wait_for(Option::is_some).await.unwrap(), Some(5));
    }

    #[tokio::test]
    async fn a_panic_frees_the_key() {
        let flights: Arc<Flights<u32, u32>> = Flights::new();
        assert_eq!(
            flights.join(7, || async { panic!("of the test") }).await,
            None
        );
        assert_eq!(flights.join(7, || async { 1 }).await, Some(1));
    }
}
