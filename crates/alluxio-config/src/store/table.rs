//! The table of stores, schemes and options. Pure data.

use std::fmt;

use StoreKind::{Azure, Cos, File, Gcs, Hdfs, Http, Memory, Obs, Oss, S3, WebHdfs};

/// A kind of under-store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoreKind {
    /// A folder of this machine.
    File,
    /// Memory of this process.
    Memory,
    /// Amazon S3 and what speaks it.
    S3,
    /// Alibaba Cloud OSS.
    Oss,
    /// Tencent Cloud COS.
    Cos,
    /// Huawei Cloud OBS.
    Obs,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage, with or without a hierarchical namespace.
    Azure,
    /// HDFS by its own protocol.
    Hdfs,
    /// HDFS by its REST interface.
    WebHdfs,
    /// A web server.
    Http,
}

/// Every scheme that is served.
const SCHEMES: &[(&str, StoreKind)] = &[
    ("s3", S3),
    ("s3a", S3),
    ("file", File),
    ("gs", Gcs),
    ("gcs", Gcs),
    ("az", Azure),
    ("abfs", Azure),
    ("abfss", Azure),
    ("oss", Oss),
    ("cos", Cos),
    ("cosn", Cos),
    ("obs", Obs),
    ("hdfs", Hdfs),
    ("webhdfs", WebHdfs),
    ("swebhdfs", WebHdfs),
    ("http", Http),
    ("https", Http),
    ("memory", Memory),
];

/// What an option may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    Text,
    /// A text that is never shown or written without being asked to.
    Secret,
    Flag,
    /// A map of texts.
    Map,
    /// An option that users of the peers know and that cannot be had here, with the reason.
    Refused(&'static str),
}

/// One option of some stores.
#[derive(Debug)]
pub(super) struct Row {
    stores: &'static [StoreKind],
    /// The name that the rest of the program knows.
    pub(super) name: &'static str,
    /// Other names of it: fsspec's, OpenDAL's, those of a Secret.
    also: &'static [&'static str],
    pub(super) takes: Takes,
    /// Not secret, and yet found beside the secrets in a Kubernetes Secret.
    pub(super) in_secret: bool,
}

const fn row(
    stores: &'static [StoreKind],
    name: &'static str,
    also: &'static [&'static str],
    takes: Takes,
) -> Row {
    Row {
        stores,
        name,
        also,
        takes,
        in_secret: false,
    }
}

/// A row whose value is no secret, but is found in Secrets with one.
const fn name_row(
    stores: &'static [StoreKind],
    name: &'static str,
    also: &'static [&'static str],
) -> Row {
    Row {
        stores,
        name,
        also,
        takes: Takes::Text,
        in_secret: true,
    }
}

/// Stores whose credentials are a key with a secret.
const KEYED: &[StoreKind] = &[S3, Oss, Cos, Obs];
const ANY: &[StoreKind] = &[
    File, Memory, S3, Oss, Cos, Obs, Gcs, Azure, Hdfs, WebHdfs, Http,
];
const NO_KERBEROS: &str = "Kerberos is not supported: use a cluster with simple authentication, \
                           or webhdfs:// with a delegation token";

const ROWS: &[Row] = &[
    row(
        ANY,
        "anon",
        &["skip_signature", "allow_anonymous"],
        Takes::Flag,
    ),
    row(
        &[S3, Oss, Cos, Obs, Gcs, Azure],
        "endpoint",
        &["endpoint_url", "client_kwargs.endpoint_url", "account_host"],
        Takes::Text,
    ),
    row(
        &[S3],
        "region",
        &["region_name", "client_kwargs.region_name"],
        Takes::Text,
    ),
    row(
        &[S3, Oss],
        "addressing_style",
        &["config_kwargs.s3.addressing_style"],
        Takes::Text,
    ),
    row(&[S3], "enable_virtual_host_style", &[], Takes::Flag),
    // Keys. The names differ from cloud to cloud; fsspec says key, secret and token for all.
    name_row(
        &[S3, Oss, Obs],
        "key",
        &[
            "access_key_id",
            "username",
            "client_kwargs.aws_access_key_id",
        ],
    ),
    row(
        &[S3, Obs],
        "secret",
        &[
            "secret_access_key",
            "password",
            "client_kwargs.aws_secret_access_key",
        ],
        Takes::Secret,
    ),
    row(&[Oss], "secret", &["access_key_secret"], Takes::Secret),
    name_row(&[Cos], "key", &["secret_id"]),
    row(&[Cos], "secret", &["secret_key"], Takes::Secret),
    row(
        &[S3],
        "token",
        &["session_token", "client_kwargs.aws_session_token"],
        Takes::Secret,
    ),
    row(&[Oss, Cos], "token", &["security_token"], Takes::Secret),
    // Roles, profiles, encryption.
    row(&[S3], "profile", &[], Takes::Text),
    row(&[S3, Oss], "role_arn", &[], Takes::Text),
    row(&[S3, Oss], "role_session_name", &[], Takes::Text),
    row(&[S3, Oss], "external_id", &[], Takes::Text),
    row(&[Oss], "oidc_provider_arn", &[], Takes::Text),
    row(&[Oss], "oidc_token_file", &[], Takes::Text),
    row(&[Oss], "sts_endpoint", &[], Takes::Text),
    row(
        &[S3],
        "requester_pays",
        &["enable_request_payer"],
        Takes::Flag,
    ),
    row(&[S3], "disable_list_objects_v2", &[], Takes::Flag),
    row(&[S3], "assume_role_duration_seconds", &[], Takes::Text),
    row(
        &[S3],
        "default_storage_class",
        &["s3_additional_kwargs.StorageClass"],
        Takes::Text,
    ),
    row(
        &[S3],
        "default_acl",
        &["acl", "s3_additional_kwargs.ACL"],
        Takes::Text,
    ),
    row(
        &[S3],
        "checksum_algorithm",
        &["s3_additional_kwargs.ChecksumAlgorithm"],
        Takes::Text,
    ),
    row(
        &[S3, Oss],
        "server_side_encryption",
        &["s3_additional_kwargs.ServerSideEncryption"],
        Takes::Text,
    ),
    row(
        &[S3],
        "server_side_encryption_aws_kms_key_id",
        &["s3_additional_kwargs.SSEKMSKeyId"],
        Takes::Text,
    ),
    row(&[Oss], "server_side_encryption_key_id", &[], Takes::Text),
    row(
        &[S3],
        "server_side_encryption_customer_algorithm",
        &[],
        Takes::Text,
    ),
    row(
        &[S3],
        "server_side_encryption_customer_key",
        &[],
        Takes::Secret,
    ),
    row(
        &[S3],
        "server_side_encryption_customer_key_md5",
        &[],
        Takes::Text,
    ),
    // Google.
    row(&[Gcs], "token", &["access_token"], Takes::Secret),
    row(
        &[Gcs],
        "credential",
        &[
            "credentials_json",
            "key.json",
            "credentials.json",
            "service-account.json",
        ],
        Takes::Secret,
    ),
    row(&[Gcs], "credential_path", &[], Takes::Text),
    row(&[Gcs], "service_account", &[], Takes::Text),
    row(&[Gcs], "scope", &[], Takes::Text),
    row(&[Gcs], "predefined_acl", &[], Takes::Text),
    row(&[Gcs], "default_storage_class", &[], Takes::Text),
    // gcsfs asks for it to make buckets; nothing here does.
    row(&[Gcs], "project", &[], Takes::Text),
    // Azure.
    name_row(
        &[Azure],
        "account_name",
        &["AZURE_STORAGE_ACCOUNT_NAME", "azurestorageaccountname"],
    ),
    row(
        &[Azure],
        "account_key",
        &["AZURE_STORAGE_ACCOUNT_KEY", "azurestorageaccountkey"],
        Takes::Secret,
    ),
    row(
        &[Azure],
        "sas_token",
        &["AZURE_STORAGE_SAS_TOKEN"],
        Takes::Secret,
    ),
    row(
        &[Azure],
        "connection_string",
        &["AZURE_STORAGE_CONNECTION_STRING"],
        Takes::Secret,
    ),
    row(&[Azure], "encryption_key", &[], Takes::Secret),
    row(&[Azure], "encryption_key_sha256", &[], Takes::Text),
    row(&[Azure], "encryption_algorithm", &[], Takes::Text),
    row(
        &[Azure],
        "client_secret",
        &["AZURE_CLIENT_SECRET"],
        Takes::Refused(
            "a client secret is taken from the environment alone: set AZURE_TENANT_ID, \
             AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or give account_key or sas_token",
        ),
    ),
    // Hadoop.
    row(&[Hdfs], "name_node", &[], Takes::Text),
    row(&[Hdfs], "extra_conf", &["options"], Takes::Map),
    row(
        &[Hdfs],
        "user",
        &[],
        Takes::Refused("the user is taken from the environment: set HADOOP_USER_NAME"),
    ),
    row(
        &[Hdfs, WebHdfs],
        "kerb_ticket",
        &[
            "kerberos",
            "kerb_kwargs",
            "kerberos_principal",
            "kerberos_keytab",
        ],
        Takes::Refused(NO_KERBEROS),
    ),
    name_row(&[WebHdfs], "user", &["user_name"]),
    row(&[WebHdfs], "token", &["delegation"], Takes::Secret),
    row(&[WebHdfs], "use_https", &[], Takes::Flag),
    row(&[WebHdfs], "disable_list_batch", &[], Takes::Flag),
    // The web.
    name_row(&[Http], "username", &[]),
    row(&[Http], "password", &[], Takes::Secret),
    row(&[Http], "token", &[], Takes::Secret),
];

/// The row of an option by any of its names, and the name it is kept under.
pub(super) fn row_of(kind: StoreKind, name: &str) -> Option<(&'static Row, String)> {
    let of_kind = |row: &&Row| row.stores.contains(&kind);
    let rows = || ROWS.iter().filter(of_kind);
    let exact = rows()
        .find(|row| (row.name == name || row.also.contains(&name)) && row.takes != Takes::Map);
    if let Some(row) = exact {
        return Some((row, row.name.to_owned()));
    }
    let (map, key) = name.split_once('.')?;
    let row = rows()
        .find(|row| (row.name == map || row.also.contains(&map)) && row.takes == Takes::Map)?;
    Some((row, format!("{}.{key}", row.name)))
}

pub(super) fn rows_of(kind: StoreKind) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| row.stores.contains(&kind))
}

impl StoreKind {
    /// The store of a scheme, or `None` where no store here serves it.
    pub fn of_scheme(scheme: &str) -> Option<Self> {
        let row = SCHEMES.iter().find(|(served, _)| *served == scheme);
        row.map(|(_, kind)| *kind)
    }

    /// Every scheme that is served, for a message.
    pub fn schemes() -> impl Iterator<Item = &'static str> {
        SCHEMES.iter().map(|(scheme, _)| *scheme)
    }

    /// Whether its credentials are a key and a secret ([`crate::Credentials::Keys`]); those of
    /// others are options.
    pub fn has_keys(self) -> bool {
        KEYED.contains(&self)
    }

    /// An endpoint as it should be, for stores that have none of their own.
    pub(crate) fn wanted_endpoint(self) -> Option<&'static str> {
        match self {
            Oss => Some("https://oss-cn-hangzhou.aliyuncs.com"),
            Cos => Some("https://cos.ap-singapore.myqcloud.com"),
            Obs => Some("https://obs.cn-north-4.myhuaweicloud.com"),
            _ => None,
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            File => "file",
            Memory => "memory",
            S3 => "s3",
            Oss => "oss",
            Cos => "cos",
            Obs => "obs",
            Gcs => "gcs",
            Azure => "azure",
            Hdfs => "hdfs",
            WebHdfs => "webhdfs",
            Http => "http",
        })
    }
}
