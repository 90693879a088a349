//! A real etcd that asks for users, and one that speaks TLS: what works, and what a person is told
//! who has made a mistake.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a test fails by panicking, and says in one line what it left out"
)]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::time::Duration;

use alluxio_etcd::{EtcdClient, EtcdError, EtcdOptions, EtcdTls};
use certificates::Authority;
use support::{EtcdServer, ServerTls};

/// Names and address of an etcd on loopback.
const LOOPBACK: &[&str] = &["127.0.0.1", "localhost"];

fn reader(server: &EtcdServer, password: &str) -> EtcdOptions {
    EtcdOptions {
        user: Some(("reader".to_owned(), password.to_owned())),
        ..server.options()
    }
}

/// The words of the error that a connection ends in.
async fn refusal(options: &EtcdOptions) -> String {
    let error = EtcdClient::connect(options).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&options.endpoints[0]), "{text}");
    text
}

#[tokio::test]
async fn a_user_reads_what_it_may_and_no_more() {
    let Some(mut server) = EtcdServer::start("etcd users").await else {
        return;
    };
    server.ask_for_users("/ServiceDiscovery/").await;
    let root = EtcdClient::connect(&server.options()).await.unwrap();
    root.put("/ServiceDiscovery/c/w", "v", None).await.unwrap();
    let client = EtcdClient::connect(&reader(&server, "readpw"))
        .await
        .unwrap();
    let listing = client.get_prefix("/ServiceDiscovery/c/").await.unwrap();
    assert_eq!(listing.pairs.len(), 1);
    let mut watch = client
        .watch_prefix("/ServiceDiscovery/c/", listing.revision + 1)
        .await
        .unwrap();
    root.put("/ServiceDiscovery/c/w", "w", None).await.unwrap();
    while watch.next().await.unwrap().unwrap().is_empty() {}

    let denied = client.get_prefix("/DHT/").await.unwrap_err();
    let text = denied.to_string();
    assert!(matches!(denied, EtcdError::Refused { .. }), "{text}");
    assert!(
        text.contains("right to the keys") && text.contains(&server.endpoint()),
        "{text}"
    );
    let write = client.put("/ServiceDiscovery/c/x", "v", None).await;
    assert!(matches!(write, Err(EtcdError::Refused { .. })), "{write:?}");
}

#[tokio::test]
async fn a_wrong_password_and_no_user_at_all_are_told_with_a_remedy() {
    let Some(mut server) = EtcdServer::start("etcd passwords").await else {
        return;
    };
    server.ask_for_users("/w/").await;
    let wrong = refusal(&reader(&server, "hunter2")).await;
    assert!(wrong.contains("check user name and password"), "{wrong}");
    assert!(!wrong.contains("hunter2"), "{wrong}");
    let nobody = EtcdOptions {
        user: None,
        ..server.options()
    };
    let text = refusal(&nobody).await;
    assert!(text.contains("check user name and password"), "{text}");
}

#[tokio::test]
async fn a_login_that_a_restart_of_etcd_ended_is_renewed() {
    let Some(mut server) = EtcdServer::start("etcd logins").await else {
        return;
    };
    server.ask_for_users("/w/").await;
    let root = EtcdClient::connect(&server.options()).await.unwrap();
    let lease = root.lease_grant(Duration::from_mins(10)).await.unwrap();
    root.put("/w/a", "v", Some(lease)).await.unwrap();
    // Tokens are kept in etcd's memory alone.
    server.restart().await;
    let mut watch = root.watch_prefix("/w/", 0).await.unwrap();
    root.lease_keep_alive(lease).await.unwrap();
    root.put("/w/b", "v", None).await.unwrap();
    while watch.next().await.unwrap().unwrap().is_empty() {}
    assert_eq!(root.get_prefix("/w/").await.unwrap().pairs.len(), 2);
}

#[tokio::test]
async fn a_user_is_no_hindrance_where_etcd_asks_for_none() {
    let Some(server) = EtcdServer::start("etcd without users").await else {
        return;
    };
    let client = EtcdClient::connect(&reader(&server, "any")).await.unwrap();
    client.put("/w/a", "v", None).await.unwrap();
}

/// An etcd with a certificate of this authority, and a client that trusts it.
async fn with_tls(
    test: &str,
    authority: &Authority,
    names: &[&str],
    year: i32,
) -> Option<EtcdServer> {
    let signed = authority.sign_until("server", names, year);
    let client = authority.sign("client", &["client"]);
    let tls = ServerTls {
        certificate: signed.certificate,
        key: signed.key,
        client_ca: None,
        client: EtcdTls {
            ca_file: Some(authority.file()),
            client_files: Some((client.certificate, client.key)),
            server_name: None,
        },
    };
    EtcdServer::start_with(test, Some(tls)).await
}

#[tokio::test]
async fn tls_is_checked_against_the_authority_that_is_named() {
    let (ours, other) = (Authority::new(), Authority::new());
    let Some(server) = with_tls("etcd TLS", &ours, LOOPBACK, 4000).await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    client.put("/w/a", "v", None).await.unwrap();

    let mut wrong = server.options();
    wrong.tls.ca_file = Some(other.file());
    let text = refusal(&wrong).await;
    assert!(text.contains("tls.ca_file"), "{text}");
    // The public authorities did not sign it either.
    let public = EtcdOptions {
        tls: EtcdTls::default(),
        ..server.options()
    };
    let text = refusal(&public).await;
    assert!(text.contains("tls.ca_file"), "{text}");
    let plain = EtcdOptions {
        endpoints: vec![format!("http://{}", server.endpoint())],
        ..server.options()
    };
    let text = refusal(&plain).await;
    assert!(text.contains("https://"), "{text}");
}

#[tokio::test]
async fn the_name_in_the_certificate_is_the_hosts_or_the_one_that_is_given() {
    let authority = Authority::new();
    let about = "etcd's name in its certificate";
    // etcd's own gateway wants the address as well; `localhost` is what is missing.
    let Some(server) = with_tls(about, &authority, &["etcd.internal", "127.0.0.1"], 4000).await
    else {
        return;
    };
    let mut options = server.options();
    options.endpoints = vec![server.url().replace("127.0.0.1", "localhost")];
    let text = refusal(&options).await;
    assert!(text.contains("tls.server_name"), "{text}");
    options.tls.server_name = Some("etcd.internal".to_owned());
    EtcdClient::connect(&options).await.unwrap();
    options.tls.server_name = Some("no name".to_owned());
    let error = EtcdClient::connect(&options).await.unwrap_err();
    assert!(matches!(error, EtcdError::BadServerName(_)), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_etcd_wants_one() {
    let (authority, other) = (Authority::new(), Authority::new());
    let signed = authority.sign("server", LOOPBACK);
    let client = authority.sign("client", &["client"]);
    let tls = ServerTls {
        certificate: signed.certificate,
        key: signed.key,
        client_ca: Some(authority.file()),
        client: EtcdTls {
            ca_file: Some(authority.file()),
            client_files: Some((client.certificate.clone(), client.key.clone())),
            server_name: None,
        },
    };
    let Some(server) = EtcdServer::start_with("etcd client certificates", Some(tls)).await else {
        return;
    };
    let good = server.options();
    EtcdClient::connect(&good).await.unwrap();
    let with = |files| {
        let mut options = good.clone();
        options.tls.client_files = files;
        options
    };
    let stranger = other.sign("client", &["client"]);
    let old = authority.sign_until("old", &["client"], 2001);
    for files in [
        None,
        Some((stranger.certificate, stranger.key.clone())),
        Some((old.certificate, old.key)),
    ] {
        let text = refusal(&with(files)).await;
        assert!(
            text.contains("set tls.cert_file and tls.key_file"),
            "{text}"
        );
    }
    let crossed = with(Some((client.certificate.clone(), stranger.key.clone())));
    let text = EtcdClient::connect(&crossed).await.unwrap_err().to_string();
    assert!(
        text.contains("do not go together") && text.contains(stranger.key.to_str().unwrap()),
        "{text}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_told_as_such() {
    let authority = Authority::new();
    let Some(server) = with_expired(&authority).await else {
        return;
    };
    let text = refusal(&server.options()).await;
    assert!(text.contains("renew etcd's certificate"), "{text}");
}

/// An etcd whose certificate has expired since its start; it never answers a client's check.
async fn with_expired(authority: &Authority) -> Option<EtcdServer> {
    let server = with_tls("etcd's expired certificate", authority, LOOPBACK, 4000).await?;
    // etcd reads its certificate for each connection.
    authority.sign_until("server", LOOPBACK, 2001);
    Some(server)
}

#[tokio::test]
async fn a_renewed_certificate_is_read_by_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let Some(server) = with_tls("etcd's renewed certificate", &old, LOOPBACK, 4000).await else {
        return;
    };
    let options = server.options();
    EtcdClient::connect(&options).await.unwrap();
    let renewed = new.sign("server", LOOPBACK);
    let place = |name: &str| old.file().with_file_name(name);
    std::fs::copy(&renewed.certificate, place("server.pem")).unwrap();
    std::fs::copy(&renewed.key, place("server.key")).unwrap();
    assert!(refusal(&options).await.contains("tls.ca_file"));
    std::fs::copy(new.file(), old.file()).unwrap();
    EtcdClient::connect(&options).await.unwrap();
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    let signed = authority.sign("client", &["client"]);
    let empty = authority.file().with_file_name("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let tls = |ca_file, client_files| EtcdOptions {
        endpoints: vec!["https://127.0.0.1:1".to_owned()],
        user: None,
        tls: EtcdTls {
            ca_file,
            client_files,
            server_name: None,
        },
    };
    let missing = authority.file().with_file_name("missing.pem");
    let cases = [
        (tls(Some(missing.clone()), None), &missing),
        (tls(Some(empty.clone()), None), &empty),
        (tls(None, Some((empty.clone(), signed.key.clone()))), &empty),
        // The two files of a pair, one for the other.
        (
            tls(
                None,
                Some((signed.certificate.clone(), signed.certificate.clone())),
            ),
            &signed.certificate,
        ),
    ];
    for (options, file) in cases {
        let error = EtcdClient::connect(&options).await.unwrap_err();
        assert!(matches!(error, EtcdError::TlsFile { .. }), "{error}");
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
    }
}
