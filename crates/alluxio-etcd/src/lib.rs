//! The part of etcd's v3 API that worker membership needs: read a prefix, watch it, and keep a key
//! alive under a lease.
//!
//! A crate of its own because the worker writes what client and operator read, and the control
//! plane does not link the data plane. Every call is bounded in time and names its endpoints when
//! it fails; nothing is retried here but a login that expired, since only the caller knows what a
//! lost connection means to it.

mod error;
mod messages;
mod tls;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use alluxio_config::EtcdConfig;
use futures::{StreamExt, stream};
use http::uri::{PathAndQuery, Scheme, Uri};
use parking_lot::RwLock;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use messages as pb;

pub use error::EtcdError;
pub use tls::EtcdTls;

use tls::LoadedTls;
pub use watch::{Watch, WatchEvent};

/// How long one call may take. An election of a healthy etcd takes a second or two.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TCP connection may take to be made; leaves time for another endpoint within a call.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// With [`PING_TIMEOUT`], how soon a watch notices that its connection is gone.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long etcd may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read: 10,000 worker records, well above gRPC's 4 MiB.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Which etcd, and as whom.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `host:port`, `http://host:port` or `https://host:port` of each member.
    pub endpoints: Vec<String>,
    /// User name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// Whom `https` endpoints are checked against.
    pub tls: EtcdTls,
}

/// A connection to an etcd cluster. A clone is cheap and shares the connection.
#[derive(Clone)]
pub struct EtcdClient {
    channel: Channel,
    user: Option<(String, String)>,
    token: Arc<RwLock<Option<AsciiMetadataValue>>>,
    endpoints: Arc<str>,
}

/// What a prefix holds at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The revision of etcd at the reading; a watch goes on from the next one.
    pub revision: i64,
    /// Keys and values, sorted by key.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A lease: the keys that are put under it vanish when it is not kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseId(i64);

impl EtcdClient {
    /// Connects, and logs in where there is a user. Fails when no endpoint answers.
    pub async fn connect(options: &EtcdOptions) -> Result<Self, EtcdError> {
        let mut endpoints = endpoints(options)?;
        let tls = if endpoints.iter().any(is_tls) {
            Some(options.tls.load().await?)
        } else {
            None
        };
        if let Some(tls) = &tls {
            for endpoint in endpoints.iter_mut().filter(|endpoint| is_tls(endpoint)) {
                *endpoint = tls.apply(endpoint.clone())?;
            }
        }
        let client = Self {
            channel: Channel::balance_list(endpoints.iter().cloned()),
            user: options.user.clone(),
            token: Arc::default(),
            endpoints: options.endpoints.join(", ").into(),
        };
        match client.begin().await {
            Ok(()) => Ok(client),
            Err(error) => Err(client.explain(error, &endpoints, tls.as_ref()).await),
        }
    }

    /// The TLS error behind a failed call, where there is one.
    async fn explain(
        &self,
        error: EtcdError,
        endpoints: &[Endpoint],
        tls: Option<&LoadedTls>,
    ) -> EtcdError {
        let (EtcdError::Failed { .. }, Some(tls)) = (&error, tls) else {
            return error;
        };
        // The first is enough: the members of one etcd have certificates of one authority.
        let first = endpoints.iter().find(|endpoint| is_tls(endpoint));
        let Some((host, port)) = first.and_then(|first| address(first.uri())) else {
            return error;
        };
        match tls.diagnose(host, port).await {
            Some(cause) => EtcdError::tls(self.endpoints.to_string(), &cause),
            None => error,
        }
    }

    /// The first call, which shows that somebody is there.
    async fn begin(&self) -> Result<(), EtcdError> {
        match self.user {
            Some(_) => self.log_in().await,
            // Any key will do.
            None => self.range(b"/", Vec::new()).await.map(drop),
        }
    }

    /// All keys that begin with `prefix`.
    pub async fn get_prefix(&self, prefix: &str) -> Result<Listing, EtcdError> {
        let answer = self
            .range(prefix.as_bytes(), end_of_prefix(prefix.as_bytes()))
            .await?;
        Ok(Listing {
            revision: answer.header.map_or(0, |header| header.revision),
            pairs: answer
                .kvs
                .into_iter()
                .map(|pair| (pair.key, pair.value))
                .collect(),
        })
    }

    /// Writes a key, under a lease where one is given.
    pub async fn put(
        &self,
        key: &str,
        value: impl Into<Vec<u8>>,
        lease: Option<LeaseId>,
    ) -> Result<(), EtcdError> {
        let request = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            lease: lease.map_or(0, |lease| lease.0),
        };
        let _: pb::HeaderResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    /// Deletes a key; tells whether there was one.
    pub async fn delete(&self, key: &str) -> Result<bool, EtcdError> {
        let request = pb::DeleteRangeRequest { key: key.into() };
        let answer: pb::DeleteRangeResponse =
            self.call("/etcdserverpb.KV/DeleteRange", request).await?;
        Ok(answer.deleted > 0)
    }

    /// Forgets the history before `revision`.
    pub async fn compact(&self, revision: i64) -> Result<(), EtcdError> {
        let request = pb::CompactionRequest { revision };
        let _: pb::HeaderResponse = self.call("/etcdserverpb.KV/Compact", request).await?;
        Ok(())
    }

    /// A lease that ends `ttl` after it was last kept alive; etcd counts whole seconds.
    pub async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, EtcdError> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let request = pb::LeaseGrantRequest { ttl };
        let answer: pb::LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(LeaseId(answer.id))
    }

    /// Keeps a lease alive once; returns how long it now has. To be called about three times in
    /// that time.
    pub async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration, EtcdError> {
        const PATH: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
        let once = async {
            let requests = stream::iter([pb::LeaseRequest { id: lease.0 }]);
            let mut answers = self.stream(PATH, requests).await?;
            answers.message().await
        };
        let answer: Option<pb::LeaseKeepAliveResponse> = self
            .bounded(PATH, async { timeout(REQUEST_TIMEOUT, once).await })
            .await?;
        match answer {
            Some(answer) if answer.ttl > 0 => Ok(Duration::from_secs(answer.ttl.unsigned_abs())),
            _ => Err(EtcdError::LeaseExpired),
        }
    }

    /// Ends a lease and with it the keys that were put under it.
    pub async fn lease_revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        let request = pb::LeaseRequest { id: lease.0 };
        let _: pb::IgnoredResponse = self
            .call("/etcdserverpb.Lease/LeaseRevoke", request)
            .await?;
        Ok(())
    }

    /// Follows the keys that begin with `prefix`, from `revision` on.
    pub async fn watch_prefix(&self, prefix: &str, revision: i64) -> Result<Watch, EtcdError> {
        const PATH: &str = "/etcdserverpb.Watch/Watch";
        let create = pb::WatchCreateRequest {
            key: prefix.into(),
            range_end: end_of_prefix(prefix.as_bytes()),
            start_revision: revision,
        };
        let request = pb::WatchRequest {
            create_request: Some(create),
        };
        // The stream of requests stays open: its end would end the watch.
        let requests = stream::iter([request]).chain(stream::pending());
        let opening = async { timeout(REQUEST_TIMEOUT, self.stream(PATH, requests)).await };
        let answers = self.bounded(PATH, opening).await?;
        Ok(Watch::new(answers, Arc::clone(&self.endpoints)))
    }

    async fn range(&self, key: &[u8], range_end: Vec<u8>) -> Result<pb::RangeResponse, EtcdError> {
        let request = pb::RangeRequest {
            key: key.to_vec(),
            range_end,
        };
        self.call("/etcdserverpb.KV/Range", request).await
    }

    async fn log_in(&self) -> Result<(), EtcdError> {
        let Some((name, password)) = self.user.clone() else {
            return Ok(());
        };
        let request = pb::AuthenticateRequest { name, password };
        let answer: Result<pb::AuthenticateResponse, _> = self
            .call_once("/etcdserverpb.Auth/Authenticate", request)
            .await;
        // The token in use stays until there is another: calls under way beside this one have it.
        *self.token.write() = match answer {
            Ok(answer) => answer.token.parse().ok(),
            // Nobody needs to log in; so clients can have their users before etcd asks for them.
            Err(error) if error.code() == Some(Code::FailedPrecondition) => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// One request, one answer; a login that expired is renewed once.
    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        match self.call_once(path, request.clone()).await {
            Err(error) if self.user.is_some() && error.code() == Some(Code::Unauthenticated) => {
                self.log_in().await?;
                self.call_once(path, request).await
            }
            answered => answered,
        }
    }

    async fn call_once<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(self.with_token(Request::new(request)), path, codec)
                .await
        };
        let answer = self
            .bounded(path, async { timeout(REQUEST_TIMEOUT, call).await })
            .await?;
        Ok(answer.into_inner())
    }

    async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<tonic::Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc
            .streaming(self.with_token(Request::new(requests)), path, codec)
            .await?;
        Ok(answer.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    fn with_token<T>(&self, mut request: Request<T>) -> Request<T> {
        if let Some(token) = self.token.read().clone() {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    async fn bounded<T>(
        &self,
        path: &'static str,
        call: impl Future<Output = Result<Result<T, Status>, tokio::time::error::Elapsed>>,
    ) -> Result<T, EtcdError> {
        let endpoints = || self.endpoints.to_string();
        match call.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(EtcdError::from_status(endpoints(), path, &status)),
            Err(_) => Err(EtcdError::TimedOut {
                endpoints: endpoints(),
                path,
            }),
        }
    }
}

impl From<&EtcdConfig> for EtcdOptions {
    fn from(config: &EtcdConfig) -> Self {
        let password = config.password.as_ref();
        Self {
            endpoints: config.endpoints.clone(),
            user: config
                .username
                .clone()
                .zip(password.map(|secret| secret.expose().to_owned())),
            tls: EtcdTls {
                ca_file: config.tls.ca_file.clone(),
                client_files: config.tls.client_files.clone(),
                server_name: config.tls.server_name.clone(),
            },
        }
    }
}

impl std::fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdClient")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        let mut shown = f.debug_struct("EtcdOptions");
        shown
            .field("endpoints", &self.endpoints)
            .field("user", &user)
            .finish_non_exhaustive()
    }
}

fn address(uri: &Uri) -> Option<(&str, u16)> {
    Some((uri.host()?, uri.port_u16().unwrap_or(443)))
}

fn is_tls(endpoint: &Endpoint) -> bool {
    endpoint.uri().scheme() == Some(&Scheme::HTTPS)
}

fn endpoints(options: &EtcdOptions) -> Result<Vec<Endpoint>, EtcdError> {
    let endpoints: Vec<_> = options
        .endpoints
        .iter()
        .map(|text| endpoint(text))
        .collect::<Result<_, _>>()?;
    if endpoints.is_empty() {
        return Err(EtcdError::NoEndpoint);
    }
    Ok(endpoints)
}

fn endpoint(text: &str) -> Result<Endpoint, EtcdError> {
    let bad = || EtcdError::BadEndpoint(text.to_owned());
    let lower = text.to_ascii_lowercase();
    let address = if lower.starts_with("http://") || lower.starts_with("https://") {
        text.to_owned()
    } else if text.contains("://") {
        return Err(bad());
    } else {
        format!("http://{text}")
    };
    let endpoint = Channel::from_shared(address).map_err(|_| bad())?;
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(bad());
    }
    Ok(endpoint
        .connect_timeout(DIAL_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT))
}

/// The first key after all keys with this prefix; a single zero byte means "to the last key".
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
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
    fn a_prefix_ends_before_the_next_sibling() {
        assert_eq!(end_of_prefix(b"/DHT/a/"), b"/DHT/a0");
        assert_eq!(end_of_prefix(b"a\xff"), b"b");
        assert_eq!(end_of_prefix(b"\xff"), [0]);
        assert_eq!(end_of_prefix(b""), [0]);
    }

    #[test]
    fn endpoints_are_read_with_and_without_scheme() {
        assert_eq!(endpoint("etcd:2379").unwrap().uri().host(), Some("etcd"));
        assert_eq!(
            endpoint("http://[::1]:2379").unwrap().uri().port_u16(),
            Some(2379)
        );
        assert_eq!(
            endpoint("https://etcd:2379").unwrap().uri().scheme_str(),
            Some("https")
        );
        for bad in ["", "ftp://etcd:2379", "http://", "a b"] {
            assert!(
                matches!(endpoint(bad), Err(EtcdError::BadEndpoint(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_password_is_not_in_debug_output() {
        let user = Some(("reader".to_owned(), "s3cret".to_owned()));
        let shown = format!(
            "{:?}",
            EtcdOptions {
                endpoints: vec!["etcd:1".to_owned()],
                user,
                tls: EtcdTls::default(),
            }
        );
        assert!(
            shown.contains("reader") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
