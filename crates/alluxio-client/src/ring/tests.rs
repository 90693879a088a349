//! The ring against the golden answers of other clients, and its laws.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const JAVA_CLIENT: &str = include_str!("../../tests/vectors/java-client-313.jsonl");
const PYTHON_POINTS: &str = include_str!("../../tests/vectors/python-sdk-activeNodesMap.json");
const PYTHON_PICKS: &str = include_str!("../../tests/vectors/python-sdk-fileUrlWorkers.json");
const PYTHON_HOSTS: &str = include_str!("../../tests/vectors/python-sdk-workerHostnames.json");
const PYTHON_WORKERS: &str = include_str!("../../tests/vectors/python-sdk-workerList.json");

/// One line of the Java client's answers.
#[derive(Deserialize)]
struct JavaAnswers {
    policy: String,
    vnodes: u32,
    workers: Vec<String>,
    lookups: Vec<(String, Vec<String>)>,
}

#[derive(Deserialize)]
struct PythonId {
    version: i32,
    identifier: String,
}

impl PythonId {
    fn id(&self) -> WorkerId {
        WorkerId {
            version: self.version,
            ..worker(&self.identifier)
        }
    }
}

fn worker(identifier: &str) -> WorkerId {
    let mut bytes = [0; 16];
    hex::decode_to_slice(identifier, &mut bytes).unwrap();
    WorkerId {
        version: 1,
        identifier: bytes,
    }
}

/// The policy by the name of the Java client's class for it, without its suffix.
fn policy(name: &str) -> RingPolicy {
    let known = RingPolicy::ALL.into_iter();
    known
        .into_iter()
        .find(|policy| policy.alluxio_class() == format!("{name}HashPolicy"))
        .unwrap_or_else(|| panic!("no policy {name}"))
}

#[test]
fn every_answer_of_the_java_client_is_given() {
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for line in JAVA_CLIENT.lines() {
        let answers: JavaAnswers = serde_json::from_str(line).unwrap();
        let shape = RingShape {
            policy: policy(&answers.policy),
            virtual_nodes: answers.vnodes,
        };
        let workers: Vec<_> = answers.workers.iter().map(|w| worker(w)).collect();
        let ring = HashRing::of_shape(&workers, shape);
        for (key, picked) in &answers.lookups {
            let expected: Vec<_> = picked.iter().map(|w| worker(w)).collect();
            let policy = &answers.policy;
            assert_eq!(ring.pick(key, expected.len()), expected, "{policy} {key}");
            *compared.entry(policy.clone()).or_default() += 1;
        }
    }
    let expected = [
        ("Consistent", 300),
        ("Jump", 240),
        ("Ketama", 240),
        ("Maglev", 240),
        ("MultiProbe", 240),
    ];
    assert_eq!(compared, expected.map(|(p, n)| (p.to_owned(), n)).into());
}

#[test]
fn the_python_sdks_points_are_ours() {
    let expected: BTreeMap<String, PythonId> = serde_json::from_str(PYTHON_POINTS).unwrap();
    let expected: BTreeMap<i32, WorkerId> = expected
        .iter()
        .map(|(point, id)| (point.parse().unwrap(), id.id()))
        .collect();
    let ids: Vec<_> = expected.values().copied().collect();
    let ring = HashRing::new(&ids, 5);
    assert_eq!(ring.points().collect::<BTreeMap<_, _>>(), expected);
}

/// The Python SDK takes the point strictly above where Alluxio takes the point at or above. None
/// of its recorded picks hits a point exactly, so ours must be the same.
#[test]
fn the_python_sdks_picks_are_ours() {
    let points: BTreeMap<String, PythonId> = serde_json::from_str(PYTHON_POINTS).unwrap();
    let ids: Vec<_> = points.values().map(PythonId::id).collect();
    let ring = HashRing::new(&ids, 5);
    let picks: BTreeMap<String, Vec<PythonId>> = serde_json::from_str(PYTHON_PICKS).unwrap();
    assert_eq!(picks.len(), 11);
    for (key, picked) in picks {
        let expected: Vec<_> = picked.iter().map(PythonId::id).collect();
        assert_eq!(ring.pick(&key, expected.len()), expected, "{key}");
    }
}

#[test]
fn the_python_sdks_listed_workers_are_those_of_its_points() {
    let points: BTreeMap<String, PythonId> = serde_json::from_str(PYTHON_POINTS).unwrap();
    let listed: Vec<PythonId> = serde_json::from_str(PYTHON_WORKERS).unwrap();
    let listed: Vec<_> = listed.iter().map(PythonId::id).collect();
    let of_points: Vec<_> = points.values().map(PythonId::id).collect();
    assert_eq!(HashRing::new(&listed, 5), HashRing::new(&of_points, 5));
}

#[test]
fn workers_that_are_known_by_host_alone_form_a_ring() {
    let hosts: Vec<String> = serde_json::from_str(PYTHON_HOSTS).unwrap();
    let ids: Vec<_> = hosts.iter().map(|host| WorkerId::from_host(host)).collect();
    assert_eq!(HashRing::new(&ids, 5).workers().len(), hosts.len());
}

#[test]
fn an_exact_hit_takes_the_point_itself() {
    let workers: Vec<_> = (0..3).map(numbered).collect();
    let ring = HashRing::new(&workers, 10);
    for (point, worker) in ring.points() {
        let Table::Consistent(points) = &ring.table else {
            panic!("another table");
        };
        let found = points.at_or_above(point).unwrap();
        assert_eq!(ring.workers()[found as usize], worker);
    }
}

#[test]
fn an_empty_ring_owns_nothing() {
    let ring = HashRing::new(&[], 2000);
    assert!(ring.pick("file:///a", 3).is_empty());
    assert!(ring.shares().is_empty());
}

#[test]
fn the_fingerprint_tells_rings_apart() {
    let [a, b] = [numbered(1), numbered(2)];
    let fingerprint = HashRing::new(&[a, b], 5).fingerprint();
    assert_eq!(fingerprint.len(), 8);
    assert_eq!(HashRing::new(&[b, a, b], 5).fingerprint(), fingerprint);
    assert_ne!(HashRing::new(&[a, b], 6).fingerprint(), fingerprint);
    assert_ne!(HashRing::new(&[a], 5).fingerprint(), fingerprint);
}

#[test]
fn rings_of_different_policies_have_different_fingerprints() {
    let fingerprints: BTreeSet<_> = RingPolicy::ALL
        .map(|policy| a_ring(policy, &[numbered(1), numbered(2)]).fingerprint())
        .into();
    assert_eq!(fingerprints.len(), RingPolicy::ALL.len());
}

#[test]
fn a_worker_that_joins_takes_its_share_and_no_more() {
    for policy in RingPolicy::ALL {
        let workers: Vec<_> = (0..4).map(numbered).collect();
        let before = a_ring(policy, &workers);
        let after = a_ring(policy, &[&workers[..], &[numbered(9)]].concat());
        let joined = after
            .shares()
            .iter()
            .find(|s| s.0 == numbered(9))
            .unwrap()
            .1;
        let moved = before.moved_share(&after);
        assert!(moved >= joined - 0.01, "{policy:?}: {moved} of {joined}");
        // Jump and Maglev shuffle some of the other files as well.
        if matches!(policy, RingPolicy::Consistent | RingPolicy::Ketama) {
            assert!(moved <= joined + 0.01, "{policy:?}: {moved} of {joined}");
        }
        assert!(before.moved_share(&before) < f64::EPSILON);
    }
}

#[test]
fn every_policy_bears_an_empty_ring_and_a_single_worker() {
    for policy in RingPolicy::ALL {
        assert!(a_ring(policy, &[]).pick("file:///a", 3).is_empty());
        let ring = a_ring(policy, &[numbered(1)]);
        assert_eq!(ring.pick("file:///a", 3), [numbered(1)]);
        assert_eq!(ring.shares(), [(numbered(1), 1.0)]);
    }
}

fn a_ring(policy: RingPolicy, workers: &[WorkerId]) -> HashRing {
    let virtual_nodes = 100;
    HashRing::of_shape(
        workers,
        RingShape {
            policy,
            virtual_nodes,
        },
    )
}

#[test]
fn one_worker_has_the_whole_ring() {
    for virtual_nodes in [1, 5] {
        let ring = HashRing::new(&[numbered(1)], virtual_nodes);
        assert_eq!(ring.shares(), [(numbered(1), 1.0)]);
    }
}

fn numbered(number: u8) -> WorkerId {
    WorkerId {
        version: 1,
        identifier: [number; 16],
    }
}

/// The policies under which nothing moves but what has to.
const MOVES_LEAST: [RingPolicy; 3] = [
    RingPolicy::Consistent,
    RingPolicy::Ketama,
    RingPolicy::MultiProbe,
];

fn some_workers() -> impl Strategy<Value = Vec<WorkerId>> {
    proptest::collection::btree_set(any::<[u8; 16]>(), 2..12).prop_map(|identifiers| {
        identifiers
            .into_iter()
            .map(|identifier| WorkerId {
                version: 1,
                identifier,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Jump and Maglev shuffle other files as well: that is Alluxio's, and what the dry run tells.
    #[test]
    fn removing_a_worker_moves_only_its_files(
        workers in some_workers(), removed in any::<prop::sample::Index>(), seed in any::<u32>(),
        policy in proptest::sample::select(&MOVES_LEAST[..]),
    ) {
        let removed = workers[removed.index(workers.len())];
        let rest: Vec<_> = workers.iter().copied().filter(|w| *w != removed).collect();
        // Read in the other direction, the same comparison is the law for a worker that joins.
        let (before, after) = (a_ring(policy, &workers), a_ring(policy, &rest));
        for file in 0..50 {
            let key = format!("s3://bucket/{seed}/{file}");
            let owner = before.pick(&key, 1);
            if owner != [removed] {
                prop_assert_eq!(after.pick(&key, 1), owner);
            }
        }
    }

    /// Jump and Maglev count workers of one bucket of Java's hash set in the order given, so these
    /// are given sorted, as etcd lists them.
    #[test]
    fn any_order_and_repetition_of_the_workers_makes_the_same_ring(
        order in some_workers().prop_shuffle(), again in any::<prop::sample::Index>(),
        policy in proptest::sample::select(&RingPolicy::ALL[..]), seed in any::<u32>(),
    ) {
        let mut given = order.clone();
        given.push(order[again.index(order.len())]);
        if matches!(policy, RingPolicy::Jump | RingPolicy::Maglev) {
            given.sort_unstable_by_key(|worker| worker.identifier);
        }
        let mut sorted = order.clone();
        sorted.sort_unstable_by_key(|worker| worker.identifier);
        let (one, other) = (a_ring(policy, &given), a_ring(policy, &sorted));
        prop_assert_eq!(one.fingerprint(), other.fingerprint());
        prop_assert!(one.moved_share(&other) < f64::EPSILON);
        for file in 0..20 {
            let key = format!("s3://bucket/{seed}/{file}");
            prop_assert_eq!(one.pick(&key, 3), other.pick(&key, 3));
        }
    }

    #[test]
    fn picks_are_distinct_stable_and_extend_each_other(
        workers in some_workers(), key in ".{0,40}", count in 1usize..14,
        policy in proptest::sample::select(&RingPolicy::ALL[..]),
    ) {
        let ring = a_ring(policy, &workers);
        let picked = ring.pick(&key, count);
        let distinct: BTreeSet<_> = picked.iter().collect();
        prop_assert_eq!(distinct.len(), picked.len());
        prop_assert!(picked.len() <= count.min(workers.len()));
        if !matches!(policy, RingPolicy::Jump | RingPolicy::Maglev) {
            let mut shuffled = workers.clone();
            shuffled.reverse();
            prop_assert_eq!(&a_ring(policy, &shuffled).pick(&key, count), &picked);
        }
        prop_assert_eq!(&ring.pick(&key, 1)[..], &picked[..1]);
    }

    #[test]
    fn shares_add_up_to_the_whole(
        workers in some_workers(), policy in proptest::sample::select(&RingPolicy::ALL[..]),
    ) {
        let total: f64 = a_ring(policy, &workers).shares().iter().map(|s| s.1).sum();
        prop_assert!((total - 1.0).abs() < 1e-9);
    }
}
