//! Health: is the process alive, and may it get work.
//!
//! One value, shared by clone between the parts that know (a server that has bound its port, a
//! watch that has synced) and the endpoint that tells. Alive and ready are two questions: a
//! process that is not ready is left alone, one that is not alive is restarted.

use std::sync::{Arc, RwLock};

/// Shared health of a process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<RwLock<State>>,
}

/// What the process says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Alive, and may not get work yet or for now, with the reason.
    NotReady(String),
    /// Alive and working.
    Ready,
    /// Beyond repair: a restart is the only cure, with the reason.
    Failed(String),
}

impl Default for Health {
    fn default() -> Self {
        Self::starting()
    }
}

impl Health {
    /// A process that has just begun: alive, not ready.
    pub fn starting() -> Self {
        Self {
            state: Arc::new(RwLock::new(State::NotReady("starting".to_owned()))),
        }
    }

    /// A process that is ready from the start.
    pub fn ready() -> Self {
        let health = Self::starting();
        health.set_ready();
        health
    }

    /// From now on the process may get work.
    pub fn set_ready(&self) {
        self.set(State::Ready);
    }

    /// From now on the process should get no work; `reason` is shown by `/readyz`.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(State::NotReady(reason.into()));
    }

    /// The process cannot recover; `reason` is shown by `/healthz`, and a restart is asked for.
    pub fn set_failed(&self, reason: impl Into<String>) {
        self.set(State::Failed(reason.into()));
    }

    /// `Err` with the reason when the process should get no work.
    pub fn readiness(&self) -> Result<(), String> {
        match self.get() {
            State::Ready => Ok(()),
            State::NotReady(reason) | State::Failed(reason) => Err(reason),
        }
    }

    /// `Err` with the reason when the process should be restarted.
    pub fn liveness(&self) -> Result<(), String> {
        match self.get() {
            State::Ready | State::NotReady(_) => Ok(()),
            State::Failed(reason) => Err(reason),
        }
    }

    /// A failure is final: nothing that runs on may paint it over.
    fn set(&self, next: State) {
        let mut state = self
            .state
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !matches!(*state, State::Failed(_)) {
            *state = next;
        }
    }

    fn get(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_alive_and_not_ready() {
        let health = Health::starting();
        assert_eq!(health.liveness(), Ok(()));
        assert_eq!(health.readiness(), Err("starting".to_owned()));
    }

    #[test]
    fn readiness_comes_and_goes() {
        let health = Health::ready();
        assert_eq!(health.readiness(), Ok(()));
        health.set_not_ready("etcd is away");
        assert_eq!(health.readiness(), Err("etcd is away".to_owned()));
        health.set_ready();
        assert_eq!(health.readiness(), Ok(()));
    }

    #[test]
    fn a_failure_is_final() {
        let health = Health::ready();
        health.set_failed("disk gone");
        health.set_ready();
        assert_eq!(health.liveness(), Err("disk gone".to_owned()));
        assert_eq!(health.readiness(), Err("disk gone".to_owned()));
    }
}
