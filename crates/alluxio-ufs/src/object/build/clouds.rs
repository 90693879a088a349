//! OSS, COS, OBS and Google Cloud Storage.

use alluxio_config::{AddressingStyle, Credentials};
use opendal::Operator;
use opendal::services::{Cos, Gcs, Obs, Oss};

use super::Plan;
use crate::error::UfsError;

impl Plan<'_> {
    pub(super) fn oss(&self) -> Result<Operator, UfsError> {
        let endpoint = self.endpoint().unwrap_or_default();
        let mut builder = Oss::default().bucket(self.bucket()).endpoint(endpoint);
        // Its own servers take requests by the bucket's host name alone; with a port it is another
        // server, which seldom has names for its buckets.
        if self.config.addressing_style == AddressingStyle::Path && has_port(endpoint) {
            builder = builder.addressing_style("path");
        }
        builder = match &self.config.credentials {
            Credentials::Environment => builder,
            Credentials::Anonymous => builder.skip_signature(),
            Credentials::Keys { key, secret, token } => {
                let builder = builder
                    .access_key_id(key)
                    .access_key_secret(secret.expose());
                match token {
                    Some(token) => builder.security_token(token.expose()),
                    None => builder,
                }
            }
        };
        builder = self.set(builder, "role_arn", Oss::role_arn);
        builder = self.set(builder, "role_session_name", Oss::role_session_name);
        builder = self.set(builder, "external_id", Oss::external_id);
        builder = self.set(builder, "oidc_provider_arn", Oss::oidc_provider_arn);
        builder = self.set(builder, "oidc_token_file", Oss::oidc_token_file);
        builder = self.set(builder, "sts_endpoint", Oss::sts_endpoint);
        builder = self.set(
            builder,
            "server_side_encryption_key_id",
            Oss::server_side_encryption_key_id,
        );
        self.made(self.set(
            builder,
            "server_side_encryption",
            Oss::server_side_encryption,
        ))
    }

    pub(super) fn cos(&self) -> Result<Operator, UfsError> {
        let endpoint = self.endpoint().unwrap_or_default();
        let builder = Cos::default().bucket(self.bucket()).endpoint(endpoint);
        let builder = match &self.config.credentials {
            Credentials::Environment => builder,
            Credentials::Anonymous => return Err(self.cannot_be_anonymous()),
            Credentials::Keys { key, secret, token } => {
                let builder = builder
                    .secret_id(key)
                    .secret_key(secret.expose())
                    .disable_config_load();
                match token {
                    Some(token) => builder.security_token(token.expose()),
                    None => builder,
                }
            }
        };
        self.made(builder)
    }

    pub(super) fn obs(&self) -> Result<Operator, UfsError> {
        let endpoint = self.endpoint().unwrap_or_default();
        let builder = Obs::default().bucket(self.bucket()).endpoint(endpoint);
        let builder = match &self.config.credentials {
            Credentials::Environment => builder,
            Credentials::Anonymous => return Err(self.cannot_be_anonymous()),
            Credentials::Keys { key, secret, .. } => builder
                .access_key_id(key)
                .secret_access_key(secret.expose()),
        };
        self.made(builder)
    }

    pub(super) fn gcs(&self) -> Result<Operator, UfsError> {
        let mut builder = Gcs::default().bucket(self.bucket());
        if let Some(endpoint) = self.endpoint() {
            builder = builder.endpoint(endpoint.trim_end_matches('/'));
        }
        let explicit = ["token", "credential", "credential_path"];
        if self.is_anonymous() {
            builder = builder
                .skip_signature()
                .disable_vm_metadata()
                .disable_config_load();
        } else if explicit.iter().any(|name| self.option(name).is_some()) {
            builder = builder.disable_vm_metadata().disable_config_load();
        }
        if let Some(token) = self.option("token") {
            builder = builder.token(token.to_owned());
        }
        if let Some(credential) = self.option("credential") {
            builder = builder.credential(&in_base64(credential));
        }
        builder = self.set(builder, "credential_path", Gcs::credential_path);
        builder = self.set(builder, "service_account", Gcs::service_account);
        builder = self.set(builder, "predefined_acl", Gcs::predefined_acl);
        builder = self.set(builder, "default_storage_class", Gcs::default_storage_class);
        self.made(self.set(builder, "scope", Gcs::scope))
    }

    fn cannot_be_anonymous(&self) -> UfsError {
        self.subject.invalid(
            format!("{}: requests are always signed", self.uri.scheme()),
            "give the dataset a key and a secret",
        )
    }
}

/// A key file as it is downloaded is JSON; OpenDAL wants it in base64.
fn in_base64(credential: &str) -> String {
    if credential.trim_start().starts_with('{') {
        base64(credential.as_bytes())
    } else {
        credential.to_owned()
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() {
                '='
            } else {
                letter.into()
            });
        }
    }
    text
}

fn has_port(endpoint: &str) -> bool {
    let host = endpoint.split("://").last().unwrap_or_default();
    host.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_base64_and_base64_stays() {
        assert_eq!(in_base64("{\"a\":1}"), "eyJhIjoxfQ==");
        assert_eq!(in_base64("{}"), "e30=");
        assert_eq!(in_base64("{ }"), "eyB9");
        assert_eq!(in_base64("eyB9"), "eyB9");
    }

    #[test]
    fn a_server_with_a_port_is_not_asked_by_host_names() {
        assert!(has_port("http://127.0.0.1:9000"));
        assert!(!has_port("https://oss-cn-hangzhou.aliyuncs.com"));
    }
}
