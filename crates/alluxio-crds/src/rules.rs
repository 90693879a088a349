//! The CEL rules of the schemas, as the API server runs them.
//!
//! Each message names the field, what is wrong and what to write instead, because it is all that
//! the user of `kubectl apply` sees. Bounds that could be `minimum` or `pattern` are rules as well
//! where the API server's own message would give no remedy.

use serde_json::{Value, json};

/// One rule and the sentence it refuses with.
fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A rule on a field that may hold a password by mistake: with this reason the API server's
/// message does not repeat the value.
fn unquoted(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message, "reason": "FieldValueForbidden" })
}

/// `spec.ufs.uri`.
pub(crate) fn ufs_uri() -> Value {
    json!([
        unquoted(
            "self.startsWith('s3://') || self.startsWith('s3a://') || self.startsWith('file://')",
            "ufs.uri has an unsupported scheme: write s3://bucket/path, s3a://bucket/path or \
             file:///path",
        ),
        unquoted(
            "!self.matches('^[A-Za-z0-9+.-]+://[^/]*@')",
            "ufs.uri must not hold credentials (user:password@): put them into a Secret and name \
             it in ufs.credentials.secretRef",
        ),
        unquoted(
            "self.startsWith('file:') ? self.startsWith('file:///') : \
             self.matches('^[A-Za-z0-9+.-]+://[^/]')",
            "ufs.uri names no bucket: write s3://bucket/path, or file:///path for local files",
        ),
        unquoted(
            "!self.matches('[\\\\x00-\\\\x1f]')",
            "ufs.uri must not hold control characters"
        ),
        unquoted(
            "self == oldSelf",
            "ufs.uri is immutable, because cached pages are named by it: make a new dataset for \
             another URI",
        ),
    ])
}

/// `spec.ufs`.
pub(crate) fn ufs() -> Value {
    json!([
        rule(
            "!has(self.s3) || self.uri.startsWith('s3')",
            "ufs.s3 is only for s3:// and s3a:// URIs: remove it, or correct ufs.uri",
        ),
        rule(
            "self.credentials.type == 'Anonymous' || self.uri.startsWith('s3')",
            "file:// URIs take no credentials: set ufs.credentials.type to Anonymous",
        ),
    ])
}

/// `spec.ufs.s3.endpoint`.
pub(crate) fn s3_endpoint() -> Value {
    json!([unquoted(
        "self.matches('^https?://[^/?#@]+/?$')",
        "ufs.s3.endpoint must be http://host[:port] or https://host[:port] without user, path \
             or query",
    )])
}

/// `spec.ufs.credentials`.
pub(crate) fn credentials() -> Value {
    json!([rule(
        "self.type == 'SecretRef' ? has(self.secretRef) : !has(self.secretRef)",
        "ufs.credentials: type SecretRef needs secretRef, and type Anonymous must not have it",
    )])
}

/// `spec.cluster.membership`.
pub(crate) fn membership() -> Value {
    json!([
        rule(
            "self.type == 'Static' ? has(self.static) : !has(self.static)",
            "cluster.membership: type Static needs static.workers, other types must not have it",
        ),
        rule(
            "self.type == 'Etcd' ? has(self.etcd) : !has(self.etcd)",
            "cluster.membership: type Etcd needs etcd.endpoints, other types must not have it",
        ),
    ])
}

/// `spec.cluster.membership.static.workers`.
pub(crate) fn static_workers() -> Value {
    json!([rule(
        "self.all(w, w.matches('^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,4})?$') || \
             w.matches('^[[][0-9A-Fa-f:.]+[]]:[1-9][0-9]{0,4}$'))",
        "cluster.membership.static.workers: each is host or host:port, such as \
             worker-0.workers.alluxio.svc:28080",
    )])
}

/// `spec.cluster.membership.etcd.endpoints`.
pub(crate) fn etcd_endpoints() -> Value {
    json!([rule(
        "self.all(e, e.matches('^http://[^/?#@]+:[0-9]{1,5}$'))",
        "cluster.membership.etcd.endpoints: each is http://host:port without user or path; https \
             is not supported yet",
    )])
}

/// `spec.client`: what the client checks again when it starts.
pub(crate) fn client() -> Value {
    json!([rule(
        "!isQuantity(string(self.memoryLimit)) || !isQuantity(string(self.pageSize)) || \
             !quantity(string(self.memoryLimit)).isInteger() || \
             !quantity(string(self.pageSize)).isInteger() || \
             quantity(string(self.memoryLimit)).asInteger() >= \
             4 * quantity(string(self.pageSize)).asInteger()",
        "client.memoryLimit must hold at least four pages: raise it or lower client.pageSize",
    )])
}

/// `spec.client.pageSize`.
pub(crate) fn page_size() -> Value {
    json!([rule(
        "string(self).matches('^[0-9]+(Ki|Mi|Gi|Ti)?$') && isQuantity(string(self)) && \
             quantity(string(self)).isInteger() && \
             quantity(string(self)).asInteger() % 65536 == 0 && \
             quantity(string(self)).asInteger() >= 65536 && \
             quantity(string(self)).asInteger() <= 67108864",
        "client.pageSize must be a multiple of 64Ki, at most 64Mi (64Ki, 1Mi, 20Mi, ...), and equal \
             to the workers' page size",
    )])
}

/// Other numbers of bytes, which must be positive.
pub(crate) fn positive_bytes() -> Value {
    json!([rule(
        "string(self).matches('^[0-9]*[1-9][0-9]*(Ki|Mi|Gi|Ti)?$')",
        "must be a positive number of bytes: an integer, or one with the unit Ki, Mi, Gi or \
             Ti, such as 512Mi (not 512MB)",
    )])
}

/// Numbers of bytes that may be 0.
pub(crate) fn bytes() -> Value {
    json!([rule(
        "string(self).matches('^[0-9]+(Ki|Mi|Gi|Ti)?$')",
        "must be a number of bytes: an integer, or one with the unit Ki, Mi, Gi or Ti, such as \
         64Mi (not 64MB)",
    )])
}

/// `spec.client.virtualNodesPerWorker`.
pub(crate) fn virtual_nodes() -> Value {
    json!([rule(
        "self >= 1 && self <= 100000",
        "client.virtualNodesPerWorker must be 1 to 100000, and the same for all clients of \
             the workers; Alluxio's default is 2000",
    )])
}

/// Paths below the dataset's root.
pub(crate) fn paths() -> Value {
    json!([rule(
        "self.all(p, p.startsWith('/') && !p.matches('(^|/)[.][.]?(/|$)') && !p.contains('//'))",
        "each path starts with / at the dataset's root, such as / or /train, and has no \
             `.`, `..` or empty part",
    )])
}

/// The whole `spec` of a dataset.
pub(crate) fn dataset() -> Value {
    json!([
        rule(
            "self.load.mode == 'None' || self.cluster.membership.type != 'None'",
            "load.mode Once needs workers: set cluster.membership to Static or Etcd, or load.mode \
             to None",
        ),
        rule(
            "self.cluster.membership.type != 'None' || self.client.fallback.policy != 'Never'",
            "without workers (cluster.membership.type None) and with client.fallback.policy Never \
             nothing could be read: change one of them",
        ),
        rule(
            "!('ReadWriteMany' in self.mount.accessModes) || self.client.fallback.policy != 'Never'",
            "mount.accessModes ReadWriteMany needs the under-store, which client.fallback.policy Never \
             forbids to ask: choose OnWorkerFailure or Always, or ReadOnlyMany",
        ),
    ])
}

/// The whole `spec` of a load.
pub(crate) fn load() -> Value {
    json!([rule(
        "self == oldSelf",
        "an AlluxioDataLoad is one run and cannot be edited: delete it (which stops the run) \
             and make another",
    )])
}
