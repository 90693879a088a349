//! A DNS server for tests: one zone of pods, over UDP on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const A: u16 = 1;
const SRV: u16 = 33;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
/// Length of a message's head.
const HEAD: usize = 12;

/// A pod's port and address, by its service and name.
type Pods = BTreeMap<(String, String), (u16, Option<[u8; 4]>)>;

/// Answers for SRV records of services and A records of their pods until dropped.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    pods: Arc<Mutex<Pods>>,
    fails: Arc<AtomicBool>,
    asked: watch::Receiver<u64>,
    server: JoinHandle<()>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let pods = Arc::new(Mutex::new(Pods::new()));
        let fails = Arc::new(AtomicBool::new(false));
        let (count, asked) = watch::channel(0);
        let (kept, failing) = (Arc::clone(&pods), Arc::clone(&fails));
        let server = tokio::spawn(async move {
            let mut question = [0; 1024];
            loop {
                let (length, from) = socket.recv_from(&mut question).await.unwrap();
                let answer = if failing.load(Ordering::SeqCst) {
                    message(&question[..length], SERVER_FAILURE, &[])
                } else {
                    answer(&question[..length], &kept.lock())
                };
                let _ = socket.send_to(&answer, from).await;
                count.send_modify(|count| *count += 1);
            }
        });
        Self {
            address,
            pods,
            fails,
            asked,
            server,
        }
    }

    pub(crate) fn set_pod(&self, service: &str, pod: &str, port: u16, address: [u8; 4]) {
        let place = (service.to_owned(), pod.to_owned());
        self.pods.lock().insert(place, (port, Some(address)));
    }

    pub(crate) fn set_pod_without_address(&self, service: &str, pod: &str, port: u16) {
        let place = (service.to_owned(), pod.to_owned());
        self.pods.lock().insert(place, (port, None));
    }

    pub(crate) fn remove_pod(&self, service: &str, pod: &str) {
        self.pods
            .lock()
            .remove(&(service.to_owned(), pod.to_owned()));
    }

    /// Whether every question is answered with a failure of the server.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// Waits for so many more questions.
    pub(crate) async fn questions(&self, more: u64) {
        let mut asked = self.asked.clone();
        let wanted = *asked.borrow() + more;
        asked.wait_for(|count| *count >= wanted).await.unwrap();
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn answer(question: &[u8], pods: &Pods) -> Vec<u8> {
    let (name, kind, _) = read_question(question);
    let known = pods
        .keys()
        .any(|(service, pod)| *service == name || *pod == name);
    let records: Vec<Vec<u8>> = pods
        .iter()
        .filter_map(|((service, pod), (port, address))| match kind {
            SRV if *service == name => {
                let head = [0, 1, 0, 1].into_iter().chain(port.to_be_bytes());
                Some(head.chain(wire_name(pod)).collect())
            }
            A if *pod == name => address.map(|address| address.to_vec()),
            _ => None,
        })
        .collect();
    message(question, if known { 0 } else { NO_SUCH_NAME }, &records)
}

/// Name, type and length of the question, with its head.
fn read_question(question: &[u8]) -> (String, u16, usize) {
    let mut labels = Vec::new();
    let mut at = HEAD;
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    (labels.join("."), kind, at + 5)
}

/// An answer with these records' data, all of the type that was asked for.
fn message(question: &[u8], code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let (_, kind, length) = read_question(question);
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut answer = vec![question[0], question[1], 0x85, 0x80 | code, 0, 1];
    answer.extend(count);
    answer.extend([0; 4]);
    answer.extend(&question[HEAD..length]);
    for record in records {
        // The question's name, this type, the class of the Internet, one second.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 1]);
        answer.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        answer.extend(record);
    }
    answer
}

fn wire_name(name: &str) -> Vec<u8> {
    let label = |label: &str| {
        let length = u8::try_from(label.len()).unwrap();
        [vec![length], label.as_bytes().to_vec()].concat()
    };
    let mut bytes: Vec<u8> = name.split('.').flat_map(label).collect();
    bytes.push(0);
    bytes
}
