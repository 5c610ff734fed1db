//! Refusals: a status, and a JSON body with the cause and the cure.

use super::json;
use crate::protocol::Seq;
use crate::protocol::refusal::{Code, Detail, Refusal};
use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use std::num::NonZeroU64;

/// The methods that every endpoint allows, in FlatDB's order.
pub(super) const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("HEAD, OPTIONS, GET");

/// A request answered with an error: `{"error":CODE,"message":"…"}`.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    status: StatusCode,
    code: &'static str,
    message: Box<str>,
    /// The first seq that is still held, for `COMPACTED`.
    first: Option<NonZeroU64>,
    /// The store's id and its last seq, for `OTHER_HISTORY`.
    history: Option<Box<(String, Seq)>>,
    /// More headers, where the status needs some.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refused {
    /// A refusal with a code for programs and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into().into_boxed_str();
        Self { status, code, message, first: None, history: None, headers: Vec::new() }
    }

    /// 400, for bytes that are not HTTP as this server speaks it, or for wrong arguments.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BadRequest.name(), message)
    }

    /// 405, with the allowed methods.
    pub fn method_not_allowed(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
            .with(ALLOW, ALLOWED_METHODS)
    }

    /// 503, for a request that may succeed a second later.
    pub fn busy(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .with(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 410, for a position that `store`, whose last seq is `last`, never reached.
    pub fn other_history(store: &str, last: Seq) -> Self {
        let message = format!(
            "this store ({store}) has come to seq {last}: the position asked for is of another \
             history. Take the state anew, then follow from a position of this store"
        );
        let history = Some(Box::new((store.to_owned(), last)));
        Self { history, ..Self::new(StatusCode::GONE, "OTHER_HISTORY", message) }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same as the last answer on its connection.
    #[must_use]
    pub fn and_close(self) -> Self {
        self.with(CONNECTION, HeaderValue::from_static("close"))
    }
}

/// An engine's refusal in HTTP's terms.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code();
        let status = match code {
            Code::WriteQueueFull | Code::Stopping => {
                return Self::busy(code.name(), refusal.message());
            }
            Code::BadRequest
            | Code::BadArgument
            | Code::BadKey
            | Code::NotANumber
            | Code::WrongType
            | Code::Overflow => StatusCode::BAD_REQUEST,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::UnknownMethod | Code::NotFound => StatusCode::NOT_FOUND,
            Code::Conflict => StatusCode::CONFLICT,
            Code::Compacted | Code::OtherHistory => StatusCode::GONE,
            Code::Storage => StatusCode::SERVICE_UNAVAILABLE,
        };
        let first = refusal.details().iter().find_map(|(name, detail)| match detail {
            Detail::Number(first) if *name == "first" => NonZeroU64::new(*first),
            _ => None,
        });
        Self { first, ..Self::new(status, code.name(), refusal.message()) }
    }
}

impl Refused {
    /// The body of the answer.
    pub fn body(&self) -> Vec<u8> {
        let mut body = b"{\"error\":".to_vec();
        json::string(self.code, &mut body);
        body.extend_from_slice(b",\"message\":");
        json::string(&self.message, &mut body);
        if let Some(first) = self.first {
            body.extend_from_slice(format!(",\"first\":{first}").as_bytes());
        }
        if let Some((store, last)) = self.history.as_deref() {
            let members = format!(",\"store_id\":\"{store}\",\"seq\":{last}");
            body.extend_from_slice(members.as_bytes());
        }
        body.push(b'}');
        body
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        let mut response = answer(self.status, Body::from(self.body()));
        response.headers_mut().extend(self.headers);
        response
    }
}

/// An answer with the headers that all answers share.
pub fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = shared_headers();
    response
}

fn shared_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_engine_has_its_status() {
        for code in Code::ALL {
            let response = Refused::from(Refusal::new(code, "why")).into_response();
            let expected = match code {
                Code::WriteQueueFull | Code::Storage | Code::Stopping => 503,
                Code::TooLarge => 413,
                Code::Compacted | Code::OtherHistory => 410,
                Code::Conflict => 409,
                Code::NotFound | Code::UnknownMethod => 404,
                _ => 400,
            };
            assert_eq!(response.status().as_u16(), expected, "{code:?}");
            // A retry helps against a full queue, not against a failed disk.
            let may_help = matches!(code, Code::WriteQueueFull | Code::Stopping);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), may_help, "{code:?}");
        }
    }
}
