//! A store's configuration as an OpenDAL operator: one function a kind of store.
//!
//! Which options there are, and by which names, is settled in `alluxio_config::store`; here each is
//! handed on. Credentials are looked for in the order: what the configuration says, the process'
//! environment, a profile or key file, web identity, the machine's metadata service. The search
//! beyond the configuration happens for [`Credentials::Environment`] only: a dataset with keys of
//! its own or with none must not pick up the node's.

mod azure;
mod clouds;
mod hadoop;

use alluxio_config::{AddressingStyle, Credentials, StoreKind, UfsConfig};
use alluxio_wire::UfsUri;
use opendal::services::{Http, Memory, S3};
use opendal::{Builder, Operator};

use super::failure::words_of;
use crate::error::{Subject, UfsError};

/// The region for stores that have none of their own; also AWS' default.
const DEFAULT_REGION: &str = "us-east-1";

/// What a builder works from.
struct Plan<'a> {
    subject: &'a Subject,
    config: &'a UfsConfig,
    /// A URI of the bucket, container or host.
    uri: &'a UfsUri,
}

/// The operator of the URI's bucket, container or host, over no transport yet.
pub(super) fn operator(
    subject: &Subject,
    config: &UfsConfig,
    uri: &UfsUri,
    kind: StoreKind,
) -> Result<Operator, UfsError> {
    let plan = Plan {
        subject,
        config,
        uri,
    };
    match kind {
        StoreKind::S3 => plan.s3(),
        StoreKind::Oss => plan.oss(),
        StoreKind::Cos => plan.cos(),
        StoreKind::Obs => plan.obs(),
        StoreKind::Gcs => plan.gcs(),
        StoreKind::Azure => plan.azure(),
        StoreKind::Hdfs => plan.hdfs(),
        StoreKind::WebHdfs => plan.webhdfs(),
        StoreKind::Http => plan.http(),
        StoreKind::Memory => plan.made(Memory::default()),
        StoreKind::File => Err(subject.invalid(
            "local files are no object store",
            "give a file:// URI to a dataset of its own",
        )),
    }
}

impl<'a> Plan<'a> {
    fn bucket(&self) -> &'a str {
        self.uri.authority()
    }

    fn endpoint(&self) -> Option<&'a str> {
        self.config.endpoint.as_deref()
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.config.options.get(name)
    }

    fn is_anonymous(&self) -> bool {
        self.config.credentials == Credentials::Anonymous
    }

    /// Gives the option to the builder where there is one.
    fn set<B>(&self, builder: B, name: &str, set: impl FnOnce(B, &str) -> B) -> B {
        match self.option(name) {
            Some(value) => set(builder, value),
            None => builder,
        }
    }

    fn made<B: Builder>(&self, builder: B) -> Result<Operator, UfsError> {
        Operator::new(builder).map_err(|error| {
            self.subject.invalid(
                words_of(&error),
                "check bucket, endpoint and region of the dataset's UFS",
            )
        })
    }

    fn s3(&self) -> Result<Operator, UfsError> {
        let (config, bucket) = (self.config, self.bucket());
        if config.addressing_style == AddressingStyle::Virtual && bucket.contains('.') {
            return Err(self.subject.invalid(
                format!("the bucket name `{bucket}` has a dot and the addressing style is virtual"),
                "set the addressing style to path",
            ));
        }
        let region = config.region.as_deref().unwrap_or(DEFAULT_REGION);
        let mut builder = S3::default().bucket(bucket).region(region);
        if let Some(endpoint) = self.endpoint() {
            builder = builder.endpoint(endpoint);
        }
        if config.addressing_style == AddressingStyle::Virtual {
            builder = builder.enable_virtual_host_style();
        }
        builder = match &config.credentials {
            Credentials::Environment => builder,
            Credentials::Anonymous => builder
                .skip_signature()
                .disable_config_load()
                .disable_ec2_metadata(),
            Credentials::Keys { key, secret, token } => {
                let builder = builder
                    .access_key_id(key)
                    .secret_access_key(secret.expose())
                    .disable_config_load()
                    .disable_ec2_metadata();
                match token {
                    Some(token) => builder.session_token(token.expose()),
                    None => builder,
                }
            }
        };
        builder = self.set(builder, "profile", S3::profile);
        builder = self.set(builder, "role_arn", S3::role_arn);
        builder = self.set(builder, "role_session_name", S3::role_session_name);
        builder = self.set(builder, "external_id", S3::external_id);
        if let Some(text) = self.option("assume_role_duration_seconds") {
            let seconds = text.parse().map_err(|_| {
                self.subject.invalid(
                    format!("assume_role_duration_seconds `{text}` is no number of seconds"),
                    "give one such as 3600",
                )
            })?;
            builder = builder.assume_role_duration_seconds(seconds);
        }
        builder = self.set(builder, "default_storage_class", S3::default_storage_class);
        builder = self.set(builder, "default_acl", S3::default_acl);
        builder = self.set(builder, "checksum_algorithm", S3::checksum_algorithm);
        if config.options.flag("requester_pays") {
            builder = builder.enable_request_payer();
        }
        if config.options.flag("disable_list_objects_v2") {
            builder = builder.disable_list_objects_v2();
        }
        self.made(self.s3_encryption(builder))
    }

    fn s3_encryption(&self, builder: S3) -> S3 {
        let builder = self.set(
            builder,
            "server_side_encryption",
            S3::server_side_encryption,
        );
        let builder = self.set(
            builder,
            "server_side_encryption_aws_kms_key_id",
            S3::server_side_encryption_aws_kms_key_id,
        );
        let builder = self.set(
            builder,
            "server_side_encryption_customer_algorithm",
            S3::server_side_encryption_customer_algorithm,
        );
        let builder = self.set(
            builder,
            "server_side_encryption_customer_key",
            S3::server_side_encryption_customer_key,
        );
        self.set(
            builder,
            "server_side_encryption_customer_key_md5",
            S3::server_side_encryption_customer_key_md5,
        )
    }

    fn http(&self) -> Result<Operator, UfsError> {
        let endpoint = format!("{}://{}", self.uri.scheme(), self.bucket());
        let builder = Http::default().endpoint(&endpoint);
        let builder = self.set(builder, "username", Http::username);
        let builder = self.set(builder, "password", Http::password);
        self.made(self.set(builder, "token", Http::token))
    }
}
