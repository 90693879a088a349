//! The under-store's part of the configuration: fields and options become one, and are checked.

use std::collections::BTreeMap;
use std::path::Path;

use alluxio_wire::UfsUri;

use super::{AddressingStyle, UfsConfig, check_url};
use crate::raw::{RawOption, RawUfs};
use crate::store::{self, Given, StoreKind, StoreOptions};
use crate::{ConfigError, Credentials, SecretString};

impl UfsConfig {
    /// The configuration of a store of which only the URI and the credentials are given.
    pub fn new(uri: UfsUri, credentials: Credentials) -> Self {
        Self {
            uri,
            endpoint: None,
            region: None,
            addressing_style: AddressingStyle::Path,
            credentials,
            options: StoreOptions::default(),
        }
    }

    /// The kind of store, or `None` for a scheme that none here serves.
    pub fn kind(&self) -> Option<StoreKind> {
        StoreKind::of_scheme(self.uri.scheme())
    }

    /// Whether keys, tokens or passwords are in it.
    pub fn has_secrets(&self) -> bool {
        matches!(self.credentials, Credentials::Keys { .. }) || self.options.has_secrets()
    }

    /// The same with the credentials of a Kubernetes Secret's data.
    pub(super) fn with_credentials(
        mut self,
        data: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        match self.kind() {
            Some(kind) if !kind.has_keys() => {
                let given = store::from_secret(kind, data)?;
                self.credentials = Credentials::Environment;
                self.options = self.options.merged(given);
            }
            _ => self.credentials = Credentials::from_secret(data)?,
        }
        Ok(self)
    }
}

pub(super) fn validated(raw: RawUfs) -> Result<UfsConfig, ConfigError> {
    let uri = UfsUri::parse(&raw.uri).map_err(|e| ConfigError::value("ufs.uri", e.to_string()))?;
    let kind = StoreKind::of_scheme(uri.scheme()).ok_or_else(|| {
        let served: Vec<_> = StoreKind::schemes().collect();
        let scheme = uri.scheme();
        let served = served.join(", ");
        let reason = format!("the scheme `{scheme}` is not served; those that are: {served}");
        ConfigError::value("ufs.uri", reason)
    })?;
    let mut given = fields(&raw);
    given.extend(store::flattened(raw.options));
    let mut options = store::resolve(kind, given)?;
    let credentials = credentials(kind, &mut options)?;
    let endpoint = options.take("endpoint");
    match (&endpoint, kind.wanted_endpoint()) {
        (Some(endpoint), _) => check_url("ufs.endpoint", endpoint)?,
        (None, Some(wanted)) => {
            let reason = format!("missing: {kind} needs the one of its region, such as {wanted}");
            return Err(ConfigError::value("ufs.endpoint", reason));
        }
        (None, None) => {}
    }
    Ok(UfsConfig {
        uri,
        endpoint,
        region: options.take("region"),
        addressing_style: addressing_style(raw.addressing_style, &mut options)?,
        credentials,
        options,
    })
}

/// The fields beside `options`: they are options with a place of their own.
fn fields(raw: &RawUfs) -> Vec<Given> {
    let text = |value: &Option<String>| value.clone().map(RawOption::Text);
    let given = [
        ("anon", raw.anon.then_some(RawOption::Flag(true))),
        ("endpoint", text(&raw.endpoint)),
        ("region", text(&raw.region)),
        ("key", text(&raw.key)),
        ("secret", text(&raw.secret)),
        ("token", text(&raw.token)),
    ];
    let given = given.into_iter().filter_map(|(name, value)| {
        Some(Given {
            path: format!("ufs.{name}"),
            name: name.to_owned(),
            value: value?,
        })
    });
    given.collect()
}

fn credentials(kind: StoreKind, options: &mut StoreOptions) -> Result<Credentials, ConfigError> {
    let anon = options.take("anon").as_deref() == Some("true");
    if anon && options.has_secrets() {
        let reason = "anon is set together with key, secret or token: keep one of them";
        return Err(ConfigError::value("ufs.anon", reason));
    }
    if kind == StoreKind::Gcs {
        return Ok(google(anon, options));
    }
    if anon {
        if let Some(_key) = options.take("key") {
            let reason = "anon is set together with key: keep one of them";
            return Err(ConfigError::value("ufs.anon", reason));
        }
        return Ok(Credentials::Anonymous);
    }
    if !kind.has_keys() {
        return Ok(Credentials::Environment);
    }
    let missing = |field: &'static str, other: &str| {
        ConfigError::value(field, format!("missing: {other} is set, set both"))
    };
    let token = options.take("token").map(SecretString::new);
    match (options.take("key"), options.take("secret")) {
        (Some(key), Some(secret)) => Ok(Credentials::Keys {
            key,
            secret: SecretString::new(secret),
            token,
        }),
        (None, None) if token.is_some() => Err(missing("ufs.key", "token")),
        (None, None) => Ok(Credentials::Environment),
        (Some(_), None) => Err(missing("ufs.secret", "key")),
        (None, Some(_)) => Err(missing("ufs.key", "secret")),
    }
}

/// gcsfs puts everything into `token`: a way to sign in, the path of a key file, or a token.
fn google(anon: bool, options: &mut StoreOptions) -> Credentials {
    let token = options.take("token");
    match token.as_deref() {
        _ if anon => return Credentials::Anonymous,
        Some("anon") => return Credentials::Anonymous,
        None | Some("google_default" | "cloud") => {}
        Some(path)
            if path.starts_with('/')
                || Path::new(path).extension().is_some_and(|e| e == "json") =>
        {
            *options = options.clone().with("credential_path", path);
        }
        Some(token) => *options = options.clone().with_secret("token", token),
    }
    Credentials::Environment
}

fn addressing_style(
    field: AddressingStyle,
    options: &mut StoreOptions,
) -> Result<AddressingStyle, ConfigError> {
    if options.take("enable_virtual_host_style").as_deref() == Some("true") {
        return Ok(AddressingStyle::Virtual);
    }
    match options.take("addressing_style").as_deref() {
        None => Ok(field),
        Some("path") => Ok(AddressingStyle::Path),
        Some("virtual") => Ok(AddressingStyle::Virtual),
        Some(_) => {
            let reason = "write path or virtual";
            Err(ConfigError::value("ufs.addressing_style", reason))
        }
    }
}

pub(super) fn to_raw(ufs: &UfsConfig, secrets: bool) -> RawUfs {
    let mut raw = RawUfs {
        uri: ufs.uri.to_string(),
        endpoint: ufs.endpoint.clone(),
        region: ufs.region.clone(),
        addressing_style: ufs.addressing_style,
        anon: ufs.credentials == Credentials::Anonymous,
        key: None,
        secret: None,
        token: None,
        options: ufs.options.to_raw(secrets),
    };
    if let (Credentials::Keys { key, secret, token }, true) = (&ufs.credentials, secrets) {
        raw.key = Some(key.clone());
        raw.secret = Some(secret.expose().to_owned());
        raw.token = token.as_ref().map(|token| token.expose().to_owned());
    }
    raw
}
