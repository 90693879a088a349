//! Azure Blob Storage. Both spellings of a URI are known: `az://container/path` with the account
//! among the options, and `abfs://container@account.dfs.core.windows.net/path`. The blob endpoint is
//! asked in both cases, as adlfs does: it serves accounts with and without directories.

use opendal::Operator;
use opendal::services::Azblob;

use super::Plan;
use crate::error::UfsError;

/// Where accounts are, unless the URI or the endpoint says otherwise.
const HOST_SUFFIX: &str = "core.windows.net";

impl Plan<'_> {
    pub(super) fn azure(&self) -> Result<Operator, UfsError> {
        let address = Address::of(self.bucket());
        let builder = match self.option("connection_string") {
            None => Azblob::default(),
            Some(text) => Azblob::from_connection_string(text).map_err(|_| {
                self.subject.invalid(
                    "the connection string is not understood",
                    "copy it anew from the account's access keys",
                )
            })?,
        };
        let account = self.option("account_name").or(address.account);
        let endpoint = match (self.endpoint(), account) {
            (Some(endpoint), _) => Some(endpoint.trim_end_matches('/').to_owned()),
            (None, _) if self.option("connection_string").is_some() => None,
            (None, Some(account)) => Some(format!("https://{account}.blob.{}", address.suffix)),
            (None, None) => {
                return Err(self.subject.invalid(
                    "the storage account is not known",
                    "write abfs://container@account.dfs.core.windows.net/path, or set account_name",
                ));
            }
        };
        let mut builder = builder.container(address.container);
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint(&endpoint);
        }
        if let Some(account) = account {
            builder = builder.account_name(account);
        }
        if self.is_anonymous() {
            builder = builder.skip_signature();
        }
        builder = self.set(builder, "account_key", Azblob::account_key);
        builder = self.set(builder, "encryption_key", Azblob::encryption_key);
        builder = self.set(
            builder,
            "encryption_key_sha256",
            Azblob::encryption_key_sha256,
        );
        builder = self.set(
            builder,
            "encryption_algorithm",
            Azblob::encryption_algorithm,
        );
        self.made(self.set(builder, "sas_token", Azblob::sas_token))
    }
}

/// The parts of a URI's authority.
#[derive(PartialEq, Eq, Debug)]
struct Address<'a> {
    container: &'a str,
    account: Option<&'a str>,
    suffix: &'a str,
}

impl<'a> Address<'a> {
    fn of(authority: &'a str) -> Self {
        let (container, host) = match authority.split_once('@') {
            Some((container, host)) => (container, host),
            None => (authority, ""),
        };
        let (account, rest) = host.split_once('.').unwrap_or((host, ""));
        let rest = rest.strip_prefix("dfs.").unwrap_or(rest);
        let rest = rest.strip_prefix("blob.").unwrap_or(rest);
        Self {
            container,
            account: (!account.is_empty()).then_some(account),
            suffix: if rest.is_empty() { HOST_SUFFIX } else { rest },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_address_are_known() {
        let of = |authority| {
            let address = Address::of(authority);
            (address.container, address.account, address.suffix)
        };
        assert_eq!(of("c"), ("c", None, HOST_SUFFIX));
        assert_eq!(of("c@a"), ("c", Some("a"), HOST_SUFFIX));
        let public = ("c", Some("a"), HOST_SUFFIX);
        assert_eq!(of("c@a.dfs.core.windows.net"), public);
        assert_eq!(of("c@a.blob.core.windows.net"), public);
        let china = ("c", Some("a"), "core.chinacloudapi.cn");
        assert_eq!(of("c@a.dfs.core.chinacloudapi.cn"), china);
    }
}
