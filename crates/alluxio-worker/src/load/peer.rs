//! A batch sent to another worker: one request, its answer read line by line.
//!
//! A connection is made for each batch: a batch moves megabytes, so a handshake is nothing, and
//! dropping the connection is how a load that was stopped ends on the owner.

use std::time::Duration;

use alluxio_client::membership::WorkerEndpoint;
use alluxio_client::worker::security::Security;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use bytes::{Buf, BytesMut};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::message::{Batch, Event};

/// How long connecting may take; a worker in the same cluster answers in a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest silence between two events: four attempts of the slowest read of the under-store,
/// with a throttle between.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(3);

/// The longest line of an event; reasons are cut far below.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Sends the batch and passes on its events, the last of them [`Event::End`]. An error, in words,
/// when it breaks off before.
pub(super) async fn send(
    worker: &WorkerEndpoint,
    security: &Security,
    batch: &Batch,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let body = serde_json::to_vec(batch).map_err(|error| error.to_string())?;
    let authority = worker
        .base_url
        .strip_prefix("http://")
        .unwrap_or(&worker.base_url);
    let connecting = security.connect(authority);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| format!("cannot be reached: {error}"))?,
        Err(_) => return Err("cannot be reached in time".to_owned()),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/v1/internal/load")
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = security.authorization().await {
        request = request.header(header::AUTHORIZATION, token);
    }
    let request = request
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let answered = async {
        let response = in_time(sender.send_request(request))
            .await?
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Body::new(response.into_body());
        if status == StatusCode::OK {
            pass_on(body, events).await
        } else {
            Err(refusal(status, body).await)
        }
    };
    // The connection is driven here, so that it ends when this future is dropped.
    tokio::pin!(answered);
    tokio::select! {
        result = &mut answered => result,
        // What it read before it ended may still be waiting for us.
        _ = connection => answered.await,
    }
}

async fn pass_on(body: Body, events: &mpsc::Sender<Event>) -> Result<(), String> {
    let mut parts = body.into_data_stream();
    let mut buffer = BytesMut::new();
    while let Some(part) = in_time(parts.next()).await? {
        buffer.extend_from_slice(&part.map_err(|error| format!("broke off: {error}"))?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end);
            buffer.advance(1);
            let event: Event = serde_json::from_slice(&line)
                .map_err(|error| format!("sent what is no event: {error}"))?;
            let is_end = event == Event::End;
            events
                .send(event)
                .await
                .map_err(|_| "the load was stopped".to_owned())?;
            if is_end {
                return Ok(());
            }
        }
        if buffer.len() > MAX_LINE_BYTES {
            return Err("sent a line that is too long for an event".to_owned());
        }
    }
    Err("broke off before the end of the batch".to_owned())
}

async fn refusal(status: StatusCode, body: Body) -> String {
    let read = axum::body::to_bytes(body, MAX_LINE_BYTES);
    let words = match in_time(read).await {
        Ok(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    };
    format!("refused the batch with {status}: {words}")
}

async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(SILENCE_TIMEOUT, step)
        .await
        .map_err(|_| format!("said nothing for {} s", SILENCE_TIMEOUT.as_secs()))
}
