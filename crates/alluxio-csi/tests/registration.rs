//! Registration as the kubelet does it: find the socket, ask who it is, say how it went.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use alluxio_csi::proto::csi::GetPluginInfoRequest;
use alluxio_csi::proto::csi::identity_client::IdentityClient;
use alluxio_csi::proto::pluginregistration::registration_client::RegistrationClient;
use alluxio_csi::proto::pluginregistration::{InfoRequest, RegistrationStatus};
use alluxio_csi::{CsiOptions, Registration, ServeError, Server};

use common::{TestMounter, connect, text};
use tonic::transport::{Channel, Endpoint};

fn options(folder: &std::path::Path) -> CsiOptions {
    let socket = folder.join("csi.sock");
    CsiOptions {
        registration_dir: Some(folder.to_owned()),
        ..CsiOptions::new(socket, "node-1")
    }
}

/// What the kubelet's gRPC library makes of a socket's path (`encodeAuthority` of grpc-go).
fn kubelet_authority(socket: &std::path::Path) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]@".contains(&b);
    let bytes = text(socket).into_bytes();
    let encode = |b: u8| {
        if plain(b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    bytes.into_iter().map(encode).collect()
}

/// A connection whose calls have the `:authority` that the kubelet's have.
async fn connect_as(socket: &std::path::Path, authority: &str) -> Channel {
    Endpoint::from_shared(format!("unix://{}", socket.display()))
        .unwrap()
        .origin(format!("http://{authority}").parse().unwrap())
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_kubelet_finds_the_driver_and_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind(options(folder.path()), Arc::<TestMounter>::default()).unwrap();
    let mut state = server.registration();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let socket = folder.path().join("reg@csi.alluxio-dataset.io.sock");
    for path in [&socket, &folder.path().join("csi.sock")] {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    let authority = kubelet_authority(&socket);
    let mut kubelet = RegistrationClient::new(connect_as(&socket, &authority).await);
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str()),
        ("CSIPlugin", "csi.alluxio-dataset.io")
    );
    assert_eq!(info.supported_versions, ["1.0.0"]);
    assert_eq!(info.endpoint, text(&folder.path().join("csi.sock")));
    let mut driver = IdentityClient::new(connect(info.endpoint.as_ref()).await);
    let answer = driver
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.name, info.name);

    assert_eq!(*state.borrow_and_update(), Registration::Pending);
    let refusal = RegistrationStatus {
        plugin_registered: false,
        error: "no such path".into(),
    };
    kubelet.notify_registration_status(refusal).await.unwrap();
    assert_eq!(
        *state.borrow_and_update(),
        Registration::Refused("no such path".into())
    );
    let taken = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    kubelet.notify_registration_status(taken).await.unwrap();
    assert_eq!(*state.borrow_and_update(), Registration::Registered);

    drop((kubelet, driver));
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_second_driver_does_not_take_the_socket_of_a_living_one() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Server::bind(options(folder.path()), Arc::<TestMounter>::default()).unwrap();
    let second = Server::bind(options(folder.path()), Arc::<TestMounter>::default());
    assert!(matches!(second, Err(ServeError::Socket(_))));
}
