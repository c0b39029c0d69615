//! What a client is told that asked for something it cannot have: a status, and an error as OpenAI's clients read it.
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lolm_runtime::serve::{Finish, Refused};
use serde_json::{Value, json};

/// An answer that is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub status: StatusCode,
    /// A sentence for people.
    pub message: String,
    /// The field that is wrong, if one is.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// Seconds after which it is worth to ask a busy server again.
    pub retry_after: u64,
}

impl Fault {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Fault {
        Fault { code: Some(code), status, ..Fault::invalid(message) }
    }

    /// A request that cannot be meant.
    pub fn invalid(message: impl Into<String>) -> Fault {
        let (status, message) = (StatusCode::BAD_REQUEST, message.into());
        Fault { status, message, param: None, code: None, retry_after: 1 }
    }

    /// A field of a request that is wrong.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { param: Some(param.into()), ..Fault::invalid(message) }
    }

    /// The model is not there yet.
    pub fn loading() -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "loading", "the model is being loaded: try again soon")
    }

    pub fn internal(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// Why an answer ended that did not come to its end; none if it did.
    pub fn of_end(finish: &Finish) -> Option<Fault> {
        match finish {
            Finish::Length | Finish::Stop => None,
            Finish::Deadline => Some(Fault::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the answer took longer than the server allows for a request",
            )),
            Finish::Cancelled => Some(Fault::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "cancelled",
                "the server stopped before the answer was whole",
            )),
            Finish::Failed(why) => Some(Fault::internal(format!("the answer ended early: {why}"))),
        }
    }

    /// What OpenAI's clients call this kind of error.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The error as JSON.
    pub fn json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        let message = refused.to_string();
        match refused {
            Refused::EmptyPrompt | Refused::Token { .. } => Fault::field("prompt", message),
            Refused::TooLong { .. } => {
                Fault { code: Some("context_length_exceeded"), ..Fault::field("max_tokens", message) }
            }
            Refused::Sampling(e) => Fault::field(e.name, message),
            Refused::Bias { .. } => Fault::field("logit_bias", message),
            Refused::NoGate => Fault::field("lolm.gate", message),
            Refused::Full { seconds, .. } => {
                let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message);
                Fault { retry_after: seconds, ..fault }
            }
            Refused::Draining => Fault::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message),
            Refused::Stopped(_) => Fault::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", message),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.json());
        let headers = response.headers_mut();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What a client is told that finds no room for its connection.
pub fn too_many_connections() -> Value {
    let message = "there are too many connections: try again later";
    Fault::new(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", message).json()
}

/// A whole answer in JSON.
pub fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_status_that_clients_act_on() {
        let fault = |r: Refused| {
            let response = Fault::from(r).into_response();
            let after = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_string());
            (response.status().as_u16(), after)
        };
        assert_eq!(fault(Refused::Full { waiting: 3, seconds: 7 }), (429, Some("7".into())));
        assert_eq!(fault(Refused::Draining), (503, Some("1".into())));
        assert_eq!(fault(Refused::EmptyPrompt), (400, None));
        assert_eq!(fault(Refused::TooLong { prompt: 9, more: 1, limit: 4 }), (400, None));
        let e = Fault::from(Refused::NoGate);
        assert_eq!(e.json()["error"]["param"], "lolm.gate");
        assert_eq!(e.json()["error"]["type"], "invalid_request_error");
        assert!(Fault::of_end(&Finish::Stop).is_none());
        assert_eq!(Fault::of_end(&Finish::Deadline).unwrap().status.as_u16(), 504);
    }
}
