//! azurite: Microsoft's stand-in for Azure's blob service, as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use alluxio_config::{Config, UfsConfig};

const CONTAINER: &str = "bucket";
/// The account that azurite always has, as its documentation tells.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server with one empty container; it ends with this value.
pub(crate) struct Azurite {
    process: Child,
    port: u16,
}

impl Azurite {
    /// Starts it, or says in one line that it is not there, which is a failure in CI.
    pub(crate) fn start() -> Option<Self> {
        let Some(folder) = super::tools::found("azurite") else {
            super::tools::left_out("azurite");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/azurite.mjs");
        let mut process = Command::new("node")
            .arg(script)
            .arg(folder)
            .arg(CONTAINER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        let ready = lines.find_map(|line| line.strip_prefix("READY ")?.parse().ok());
        Some(Self {
            process,
            port: ready.unwrap(),
        })
    }

    /// A configuration of a dataset in it, as a user writes one.
    pub(crate) fn config(&self, uri: &str) -> UfsConfig {
        let endpoint = self.endpoint();
        let text = format!(
            "ufs: {{uri: '{uri}', endpoint: '{endpoint}', \
             options: {{account_name: {ACCOUNT}, account_key: '{ACCOUNT_KEY}'}}}}"
        );
        Config::from_yaml(&text).unwrap().ufs
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }
    /// The same by the string that Azure's portal shows.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn config_by_string(&self, uri: &str) -> UfsConfig {
        let endpoint = self.endpoint();
        let text = format!(
            "ufs: {{uri: '{uri}', options: {{connection_string: \
             'DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};\
             BlobEndpoint={endpoint};'}}}}"
        );
        Config::from_yaml(&text).unwrap().ufs
    }
}

impl Drop for Azurite {
    /// Its standard input ends, and so do the script and the server.
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _reaped = self.process.wait();
    }
}
