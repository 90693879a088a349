//! HDFS by its own protocol and by its REST interface.
//!
//! Both sign in with a user's name alone (Hadoop's "simple" authentication), WebHDFS also with a
//! delegation token. Kerberos needs a C library that a static binary cannot load.

use std::collections::HashMap;

use opendal::Operator;
use opendal::services::{HdfsNative, Webhdfs};

use super::Plan;
use crate::error::UfsError;

/// The port of a name node's own protocol where none is given: Hadoop's default.
const NAME_NODE_PORT: u16 = 8020;

impl Plan<'_> {
    pub(super) fn hdfs(&self) -> Result<Operator, UfsError> {
        let settings: HashMap<String, String> = self
            .config
            .options
            .map("extra_conf")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        if settings
            .get("hadoop.security.authentication")
            .is_some_and(|way| way != "simple")
        {
            return Err(self.subject.invalid(
                "Kerberos is not supported",
                "use a cluster with simple authentication, or webhdfs:// with a delegation token",
            ));
        }
        let name_nodes = match self.option("name_node") {
            Some(given) => given.to_owned(),
            None => name_nodes(self.bucket(), &settings),
        };
        let builder = HdfsNative::default()
            .name_node(&name_nodes)
            .options(settings);
        self.made(builder)
    }

    pub(super) fn webhdfs(&self) -> Result<Operator, UfsError> {
        let secure = self.uri.scheme() == "swebhdfs" || self.config.options.flag("use_https");
        let scheme = if secure { "https" } else { "http" };
        let mut builder = Webhdfs::default().endpoint(&format!("{scheme}://{}", self.bucket()));
        if self.config.options.flag("disable_list_batch") {
            builder = builder.disable_list_batch();
        }
        builder = self.set(builder, "user", Webhdfs::user_name);
        self.made(self.set(builder, "token", Webhdfs::delegation))
    }
}

/// The name nodes of a URI's authority: those that the settings name for it as a service with
/// several, or the one host.
fn name_nodes(authority: &str, settings: &HashMap<String, String>) -> String {
    if let Some(ids) = settings.get(&format!("dfs.ha.namenodes.{authority}")) {
        let address = |id: &str| {
            let key = format!("dfs.namenode.rpc-address.{authority}.{}", id.trim());
            settings.get(&key).cloned()
        };
        let addresses: Vec<_> = ids.split(',').filter_map(address).collect();
        return addresses.join(",");
    }
    if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:{NAME_NODE_PORT}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_node_has_a_port_and_a_service_has_several() {
        let none = HashMap::new();
        assert_eq!(name_nodes("nn", &none), "nn:8020");
        assert_eq!(name_nodes("nn:9000", &none), "nn:9000");
        let pairs = [
            ("dfs.ha.namenodes.prod", "a, b"),
            ("dfs.namenode.rpc-address.prod.a", "n1:8020"),
            ("dfs.namenode.rpc-address.prod.b", "n2:8020"),
        ];
        let settings = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(name_nodes("prod", &settings.into()), "n1:8020,n2:8020");
    }
}
