//! The body of a request: JSON, no longer than allowed, and in time.
use super::app::Limits;
use super::errors::Fault;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use tokio_stream::StreamExt;

/// Reads the body. The type has to be said, since a page of another site cannot say it without being asked first.
pub async fn read(request: Request<Body>, limits: &Limits) -> Result<Vec<u8>, Fault> {
    let (head, body) = request.into_parts();
    json(&head.headers)?;
    let too_long = || {
        let message = format!("the body has more than {} bytes", limits.body);
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|n| n > limits.body as u64) {
        return Err(too_long());
    }
    let whole = async {
        let (mut chunks, mut all) = (body.into_data_stream(), vec![]);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| Fault::invalid(format!("the body ended early: {e}")))?;
            if all.len() + chunk.len() > limits.body {
                return Err(too_long());
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    };
    let slow = |_| {
        let message = format!("the body took longer than {} s", limits.read.as_secs());
        Fault::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message)
    };
    tokio::time::timeout(limits.read, whole).await.map_err(slow)?
}

fn json(headers: &HeaderMap) -> Result<(), Fault> {
    let kind = headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let plain = kind.as_deref().map(|k| k.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    match plain.as_deref() {
        Some("application/json") => Ok(()),
        found => {
            let found = found.map_or("missing".into(), |k| format!("`{}`", k.chars().take(60).collect::<String>()));
            let message = format!("Content-Type is {found}, expected application/json");
            Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message))
        }
    }
}
