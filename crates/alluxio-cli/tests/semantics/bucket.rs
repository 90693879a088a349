//! An S3 bucket of any keys, also of those that no folder could hold: HEAD, GET and ListObjectsV2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A running server with the one bucket `bucket`; it ends with the test's process.
pub(crate) struct Bucket {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    objects: BTreeMap<String, String>,
    refuses: AtomicBool,
}

impl Bucket {
    /// A bucket of these keys, each with a text.
    pub(crate) fn of(objects: &[(&str, &str)]) -> Self {
        let own = |&(key, text): &(&str, &str)| (key.to_owned(), text.to_owned());
        let state = Arc::new(State {
            objects: objects.iter().map(own).collect(),
            refuses: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                // A client that breaks off is none of the test's business.
                thread::spawn(move || state.serve(stream).ok());
            }
        });
        Self { address, state }
    }

    /// The `ufs` of a configuration that reads below `path`.
    pub(crate) fn ufs(&self, path: &str) -> String {
        format!(
            "ufs: {{uri: 's3://bucket/{path}', endpoint: 'http://{}', anon: true}}\n",
            self.address
        )
    }

    /// From now on everything is forbidden.
    pub(crate) fn refuse(&self) {
        self.state.refuses.store(true, Ordering::SeqCst);
    }
}

impl State {
    /// Answers one request and closes, so that there is no state of a connection.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap_or_default());
        let (status, body) = self.answer(target);
        let length = body.len();
        let body = if method == "HEAD" { "" } else { &body };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"e{length}\"\r\n\
             Last-Modified: Wed, 01 May 2024 00:00:00 GMT\r\nConnection: close\r\n\r\n{body}"
        )
    }

    fn answer(&self, target: &str) -> (&'static str, String) {
        if self.refuses.load(Ordering::SeqCst) {
            return ("403 Forbidden", error("AccessDenied"));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if query.contains("list-type=2") {
            return ("200 OK", self.listing(query));
        }
        let key = decoded(path.trim_start_matches("/bucket").trim_start_matches('/'));
        match self.objects.get(&key) {
            Some(text) => ("200 OK", text.clone()),
            None => ("404 Not Found", error("NoSuchKey")),
        }
    }

    fn listing(&self, query: &str) -> String {
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|pair| pair.0 == name)
                .map(|pair| decoded(pair.1))
        };
        let prefix = parameter("prefix").unwrap_or_default();
        let delimited = parameter("delimiter").is_some();
        let (mut xml, mut prefixes) = (String::new(), BTreeSet::new());
        for (key, text) in &self.objects {
            let Some(rest) = key.strip_prefix(&prefix) else {
                continue;
            };
            if let Some(slash) = rest.find('/').filter(|_| delimited) {
                prefixes.insert(&key[..=prefix.len() + slash]);
                continue;
            }
            let size = text.len();
            let written = write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>2024-05-01T00:00:00.000Z</LastModified>\
                 <ETag>\"e{size}\"</ETag><Size>{size}</Size></Contents>"
            );
            written.unwrap();
        }
        for prefix in prefixes {
            write!(
                xml,
                "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"
            )
            .unwrap();
        }
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{xml}</ListBucketResult>")
    }
}

fn error(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>of the test</Message></Error>")
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
