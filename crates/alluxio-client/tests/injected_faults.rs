//! Readers of files whose every byte is known, while a proxy before the workers, before a real S3
//! server, or before both does what networks and failing servers do.
//!
//! In every case: no wrong byte, no read that takes longer than the configured deadline allows, and
//! the outcome that docs/operations.md names.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

#[path = "../../alluxio-ufs/tests/support/s3.rs"]
mod s3;
mod support;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use alluxio_client::{Client, Error, ErrorKind, FallbackReason};
use alluxio_config::Config;
use alluxio_wire::UfsUri;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use proptest::prelude::*;
use s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, put};
use support::proxy::{Fault, Place, Proxy};
use support::{DEADLINE, PAGE, Reply, ScriptedWorker, content, page_path};

/// Of a worker's answer; far above what one takes, on a busy machine too.
const WORKER_TIMEOUT: Duration = Duration::from_millis(500);
/// Of a page whose sources are expected to fall silent.
const SHORT_DEADLINE: Duration = Duration::from_secs(1);
/// Of any other page: above the time of all attempts at the store.
const LONG_DEADLINE: Duration = Duration::from_secs(20);
/// What a busy machine may add to a deadline.
const GRACE: Duration = Duration::from_secs(10);
/// Scenes that are played side by side.
const AT_ONCE: usize = 6;
/// A burst: so many answers are bad, and then all are good.
const BURST: usize = 2;

/// Name and length: shorter than a page, whole pages, pages and a rest.
const FILES: [(&str, usize); 3] = [
    ("short", 1000),
    ("whole", 3 * PAGE),
    ("rest", 5 * PAGE + 77),
];

/// Two workers and a store, a proxy before each, and a client behind them.
struct Scene {
    client: Client,
    workers: Vec<Proxy>,
    store: Proxy,
    deadline: Duration,
    _servers: (S3Server, Vec<ScriptedWorker>),
}

/// Which answers are meddled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// Those of one worker of two.
    OneWorker,
    /// Those of both workers.
    Workers,
    /// Those of the store, of a dataset without workers.
    Store,
    /// Those of the store, while the workers are well.
    StoreBehindWorkers,
    /// All.
    Both,
}

/// What readers meet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// All bytes, and none of them because a worker failed for another reason than these.
    Served(&'static [FallbackReason]),
    /// All bytes, some from the store for one of these reasons.
    FallsBack(&'static [FallbackReason]),
    /// Errors of this kind.
    Fails(ErrorKind),
    /// Either all bytes or errors of this kind.
    ServedOr(ErrorKind),
}

fn is_page(request: &str) -> bool {
    request.contains("/page/")
}

/// A GET of an object, which a status or a listing is not.
fn is_object(request: &str) -> bool {
    request.starts_with("GET") && !request.contains("list-type=")
}

fn uri(name: &str) -> UfsUri {
    UfsUri::parse(&format!("s3://{BUCKET}/data/{name}")).unwrap()
}

/// A worker that holds all files.
async fn worker() -> ScriptedWorker {
    let mut pages = HashMap::new();
    for (name, length) in FILES {
        let id = uri(name).file_id();
        for (index, page) in content(name, length).chunks(PAGE).enumerate() {
            pages.insert(format!("/v1/file/{id}/page/{index}"), page.to_vec());
        }
    }
    ScriptedWorker::start(move |target| match pages.get(page_path(target)) {
        Some(page) => Reply::Answer(200, page.clone()),
        None => Reply::EmptyClose,
    })
    .await
}

impl Scene {
    async fn new(has_workers: bool, deadline: Duration) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let server = S3Server::start(true).await;
        for (name, length) in FILES {
            put(
                &server.bucket_folder(),
                &format!("data/{name}"),
                content(name, length),
            );
        }
        let store = Proxy::start(server.address, is_object).await;
        let (mut scripted, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..if has_workers { 2 } else { 0 } {
            let worker = worker().await;
            workers.push(Proxy::start(worker.address, is_page).await);
            scripted.push(worker);
        }
        Self {
            client: connect(&store, &workers, deadline).await,
            workers,
            store,
            deadline,
            _servers: (server, scripted),
        }
    }

    fn inject(&self, leg: Leg, schedule: impl Fn(usize) -> Fault + Clone + Send + Sync + 'static) {
        for worker in self.workers_of(leg) {
            worker.inject(schedule.clone());
        }
        if matches!(leg, Leg::Store | Leg::StoreBehindWorkers | Leg::Both) {
            self.store.inject(schedule);
        }
    }

    /// Several readers, each in its own way through all files, and the errors that they met. A wrong
    /// byte or a read beyond its time ends the test.
    async fn read_all(&self) -> Vec<Error> {
        let steps = [(16_000, 1), (PAGE, 1), (700, 13_001), (2 * PAGE, 40_001)];
        let readers = steps.map(|(length, stride)| self.read_files(length, stride));
        join_all(readers).await.into_iter().flatten().collect()
    }

    /// Reads of `length`, one after the other or `stride` apart, up to the first error.
    async fn read_files(&self, length: usize, stride: usize) -> Vec<Error> {
        let mut errors = Vec::new();
        for (name, file_bytes) in FILES {
            let expected = content(name, file_bytes);
            let reader = match self.in_time(name, 1, self.client.open(name)).await {
                Ok(reader) => reader,
                Err(error) => {
                    errors.push(error);
                    return errors;
                }
            };
            let mut offset = 0;
            while offset < file_bytes {
                let pages = u32::try_from(length / PAGE + 2).unwrap();
                let reading = reader.read_at(offset as u64, length);
                match self.in_time(name, pages, reading).await {
                    Ok(read) => {
                        let right = &expected[offset..file_bytes.min(offset + length)];
                        assert!(
                            read.into_bytes() == right,
                            "wrong bytes of {name} at {offset}"
                        );
                    }
                    Err(error) => {
                        errors.push(error);
                        return errors;
                    }
                }
                offset += if stride == 1 { length } else { stride };
            }
        }
        errors
    }

    /// A page takes its deadline at most, and so do the pages of a read that come one after the
    /// other.
    async fn in_time<T>(&self, what: &str, pages: u32, of: impl Future<Output = T>) -> T {
        let most = self.deadline * pages + GRACE;
        let ended = tokio::time::timeout(most, of).await;
        ended.unwrap_or_else(|_| panic!("{what} was waited for longer than {most:?}"))
    }

    /// The workers whose answers are meddled with; a single one is the owner of the longest file.
    fn workers_of(&self, leg: Leg) -> Vec<&Proxy> {
        let owner = self.client.worker_of("rest");
        let is_one = |worker: &&Proxy| {
            let owner = owner.as_ref().map(|owner| owner.http_port);
            leg != Leg::OneWorker || owner == Some(worker.address.port())
        };
        match leg {
            Leg::OneWorker | Leg::Workers | Leg::Both => {
                self.workers.iter().filter(is_one).collect()
            }
            Leg::Store | Leg::StoreBehindWorkers => Vec::new(),
        }
    }

    fn reasons(&self) -> BTreeSet<&'static str> {
        let fallen_back = |reason: &FallbackReason| self.client.metrics().fallbacks(*reason) > 0;
        let reasons = FallbackReason::ALL.into_iter().filter(fallen_back);
        reasons.map(FallbackReason::label).collect()
    }
}

async fn connect(store: &Proxy, workers: &[Proxy], deadline: Duration) -> Client {
    let places: Vec<_> = workers
        .iter()
        .map(|worker| worker.address.to_string())
        .collect();
    let membership = if places.is_empty() {
        "{type: none}".to_owned()
    } else {
        format!("{{type: static, workers: {places:?}}}")
    };
    let (deadline, timeout) = (deadline.as_millis(), WORKER_TIMEOUT.as_millis());
    let yaml = format!(
        "ufs: {{uri: 's3://{BUCKET}/data', endpoint: 'http://{}', key: {ACCESS_KEY}, secret: \
         {SECRET_KEY}}}\n\
         cluster: {{membership: {membership}}}\n\
         client: {{page_size: 64Ki, virtual_nodes_per_worker: 50, verify_worker_version: false, \
         memory_limit: 512Ki, deadline_milliseconds: {deadline}, \
         breaker: {{rest_milliseconds: 100, max_rest_milliseconds: 200}}, \
         fallback: {{worker_timeout_milliseconds: {timeout}}}}}\n",
        store.address
    );
    Client::connect(&Config::from_yaml(&yaml).unwrap())
        .await
        .unwrap()
}

/// Plays a case and says what was not as documented.
async fn play(leg: Leg, fault: Fault, outcome: Outcome) -> Result<(), String> {
    let is_silent = matches!(fault, Fault::Silent(_) | Fault::Drips(_));
    let fails = matches!(outcome, Outcome::Fails(_));
    let deadline = if is_silent && fails {
        SHORT_DEADLINE
    } else {
        LONG_DEADLINE
    };
    let scene = Scene::new(leg != Leg::Store, deadline).await;
    scene.inject(leg, move |_| fault);
    let errors = scene.read_all().await;
    let case = format!("{leg:?} {fault:?}");
    let reasons = scene.reasons();
    let kinds: Vec<_> = errors.iter().map(Error::kind).collect();
    let told = format!("{case}: {outcome:?}, but {kinds:?} and {reasons:?}");
    // What a slow machine may do to any worker's answer.
    let mut allowed = BTreeSet::from(["configured", "resting", "timed_out"]);
    match &outcome {
        Outcome::Served(may) | Outcome::FallsBack(may) => {
            allowed.extend(may.iter().map(|reason| reason.label()));
            let needed = matches!(outcome, Outcome::FallsBack(_));
            let met = may.iter().any(|reason| reasons.contains(reason.label()));
            if !errors.is_empty() || needed && !met || !reasons.is_subset(&allowed) {
                return Err(format!(
                    "{told}: {:?}",
                    errors.first().map(ToString::to_string)
                ));
            }
        }
        Outcome::ServedOr(_) if errors.is_empty() => {}
        Outcome::Fails(kind) | Outcome::ServedOr(kind) => {
            let other = errors.iter().find(|error| error.kind() != *kind);
            if errors.is_empty() || other.is_some() {
                return Err(format!("{told}: {:?}", other.map(ToString::to_string)));
            }
            let named = errors
                .iter()
                .all(|error| error.to_string().contains("s3://bucket/data/"));
            if !named {
                return Err(format!("{case}: no file in {}", errors[0]));
            }
        }
    }
    if !matches!(fault, Fault::None) && !scene.was_met(leg) {
        return Err(format!("{case}: nobody met the fault"));
    }
    Ok(())
}

impl Scene {
    /// Whether an answer was asked for at a place that is meddled with.
    fn was_met(&self, leg: Leg) -> bool {
        match leg {
            Leg::OneWorker | Leg::Workers | Leg::Both => self
                .workers_of(leg)
                .iter()
                .any(|worker| worker.answers() > 0),
            Leg::Store => self.store.answers() > 0,
            // The workers have all pages, so that the store is not asked for any.
            Leg::StoreBehindWorkers => true,
        }
    }
}

async fn play_all(cases: Vec<(Leg, Fault, Outcome)>) {
    let played = stream::iter(cases).map(|(leg, fault, outcome)| play(leg, fault, outcome));
    let wrong: Vec<_> = played
        .buffer_unordered(AT_ONCE)
        .filter_map(|result| async { result.err() })
        .collect()
        .await;
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

const IN_BODY: [Place; 3] = [Place::Body, Place::Middle, Place::End];
const ANYWHERE: [Place; 4] = [Place::Answer, Place::Body, Place::Middle, Place::End];
const LATE: Fault = Fault::Late(Duration::from_millis(20));

/// The faults of a worker, and the reasons for which its pages come from elsewhere.
fn worker_faults() -> Vec<(Fault, &'static [FallbackReason])> {
    use FallbackReason as Reason;
    // A reset may overtake the bytes before it, and is then an answer without a byte.
    let mut faults: Vec<(Fault, &'static [FallbackReason])> = vec![
        (Fault::Cut(Place::Answer), &[Reason::Miss]),
        (Fault::Reset(Place::Answer), &[Reason::Miss]),
        (Fault::Shorter, &[Reason::PageSize]),
        (Fault::Longer, &[Reason::PageSize]),
        (Fault::Status(500), &[Reason::Broken]),
        (Fault::Status(502), &[Reason::Broken]),
        (Fault::Status(503), &[Reason::Overloaded]),
        (Fault::Status(504), &[Reason::TimedOut]),
    ];
    for place in IN_BODY {
        faults.push((Fault::Cut(place), &[Reason::Broken]));
        faults.push((Fault::Reset(place), &[Reason::Broken, Reason::Miss]));
    }
    for place in ANYWHERE {
        faults.push((Fault::Silent(place), &[Reason::TimedOut]));
    }
    // Before the last byte there is nothing left to drip.
    for place in [Place::Answer, Place::Body, Place::Middle] {
        faults.push((Fault::Drips(place), &[Reason::TimedOut]));
    }
    faults
}

/// The faults of a store, and the kind of error where nobody else has the file.
fn store_faults() -> Vec<(Fault, ErrorKind)> {
    let mut faults = vec![
        (Fault::Status(500), ErrorKind::Unavailable),
        (Fault::Status(502), ErrorKind::Unavailable),
        (Fault::Status(503), ErrorKind::Unavailable),
        (Fault::Shorter, ErrorKind::Unavailable),
    ];
    for place in ANYWHERE {
        faults.push((Fault::Reset(place), ErrorKind::Unavailable));
        faults.push((Fault::Cut(place), ErrorKind::Unavailable));
        faults.push((Fault::Silent(place), ErrorKind::TimedOut));
    }
    for place in [Place::Answer, Place::Body, Place::Middle] {
        faults.push((Fault::Drips(place), ErrorKind::TimedOut));
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_fail_cost_time_and_no_byte() {
    let mut cases = vec![
        (Leg::Workers, Fault::None, Outcome::Served(&[])),
        (Leg::Workers, LATE, Outcome::Served(&[])),
    ];
    for (fault, reasons) in worker_faults() {
        cases.push((Leg::Workers, fault, Outcome::FallsBack(reasons)));
    }
    play_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_that_fails_is_stood_in_for_by_the_next() {
    let cases = worker_faults().into_iter().map(|(fault, reasons)| {
        // What is no failure of the worker is not asked of the next one.
        (Leg::OneWorker, fault, Outcome::Served(reasons))
    });
    play_all(cases.collect()).await;
}

/// Of a long request the bytes that were asked for are taken, of a short one none.
const TOO_LONG: Outcome = Outcome::ServedOr(ErrorKind::Unavailable);

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_for_long_is_an_error_in_time() {
    let mut cases = vec![
        (Leg::Store, LATE, Outcome::Served(&[])),
        (Leg::Store, Fault::Longer, TOO_LONG),
    ];
    for (fault, kind) in store_faults() {
        cases.push((Leg::Store, fault, Outcome::Fails(kind)));
    }
    play_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_behind_workers_is_not_noticed() {
    let cases = [
        Fault::Status(500),
        Fault::Reset(Place::Middle),
        Fault::Silent(Place::Answer),
    ];
    let cases = cases.map(|fault| (Leg::StoreBehindWorkers, fault, Outcome::Served(&[])));
    play_all(cases.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_store_that_fail_alike_are_an_error_in_time() {
    let mut cases = vec![(Leg::Both, Fault::Longer, TOO_LONG)];
    for (fault, kind) in store_faults() {
        cases.push((Leg::Both, fault, Outcome::Fails(kind)));
    }
    play_all(cases).await;
}

/// After a few bad answers all is well, and no reader has noticed.
#[tokio::test(flavor = "multi_thread")]
async fn bursts_are_ridden_over() {
    let faults = store_faults().into_iter().map(|(fault, _)| fault);
    // Silence at the store is waited for as long as the deadline lets it.
    let loud = faults
        .chain([Fault::Longer])
        .filter(|fault| !matches!(fault, Fault::Silent(_) | Fault::Drips(_)));
    let cases: Vec<_> = loud
        .flat_map(|fault| [Leg::Store, Leg::Workers, Leg::Both].map(|leg| (leg, fault)))
        .collect();
    let played = stream::iter(cases).map(|(leg, fault)| async move {
        let scene = Scene::new(leg != Leg::Store, LONG_DEADLINE).await;
        scene.inject(
            leg,
            move |nth| if nth < BURST { fault } else { Fault::None },
        );
        let errors = scene.read_all().await;
        assert!(errors.is_empty(), "{leg:?} {fault:?}: {}", errors[0]);
        assert!(scene.was_met(leg), "{leg:?} {fault:?}");
    });
    played.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Opening a file asks the store for its status; that is bounded too.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_silent_about_a_status_is_an_error_in_time() {
    let server = S3Server::start(true).await;
    let store = Proxy::start(server.address, |_| true).await;
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client = connect(&store, &[], SHORT_DEADLINE).await;
    store.inject(|_| Fault::Silent(Place::Answer));
    let opening = tokio::time::timeout(SHORT_DEADLINE + GRACE, client.open("short"));
    let error = opening.await.expect("opening took too long").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let text = error.to_string();
    assert!(text.contains("s3://bucket/data/short"), "{text}");
    assert!(text.contains("client.deadline_milliseconds"), "{text}");
}

fn places() -> impl Strategy<Value = Place> {
    prop::sample::select(&ANYWHERE[..])
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => (1..30u64).prop_map(|ms| Fault::Late(Duration::from_millis(ms))),
        1 => places().prop_map(Fault::Reset),
        1 => places().prop_map(Fault::Cut),
        1 => Just(Fault::Shorter),
        1 => Just(Fault::Longer),
        1 => prop::sample::select(vec![500, 502, 503, 504]).prop_map(Fault::Status),
        1 => places().prop_map(Fault::Silent),
        1 => places().prop_map(Fault::Drips),
    ]
}

fn schedules() -> impl Strategy<Value = Vec<Fault>> {
    prop::collection::vec(faults(), 1..24)
}

/// Whatever happens on both legs, each read is right or a clear error, in time; and when it is over
/// all is read again.
async fn play_schedules(by_worker: [Vec<Fault>; 2], of_store: Vec<Fault>) {
    let scene = Scene::new(true, SHORT_DEADLINE).await;
    let follow =
        |faults: Vec<Fault>| move |nth: usize| faults.get(nth).copied().unwrap_or(Fault::None);
    for (worker, faults) in scene.workers.iter().zip(by_worker) {
        worker.inject(follow(faults));
    }
    scene.store.inject(follow(of_store));
    for error in scene.read_all().await {
        let kinds = [ErrorKind::Unavailable, ErrorKind::TimedOut];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    scene.inject(Leg::Both, |_| Fault::None);
    let healed = async { while !scene.read_all().await.is_empty() {} };
    let healed = tokio::time::timeout(DEADLINE, healed).await;
    assert!(healed.is_ok(), "the client did not recover");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        // A schedule takes seconds: the first that fails tells enough.
        max_shrink_iters: 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_of_faults_gives_a_wrong_byte_or_an_endless_wait(
        first in schedules(), second in schedules(), of_store in schedules(),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(play_schedules([first, second], of_store));
    }
}
