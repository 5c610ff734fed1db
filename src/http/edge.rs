//! The routes, and the checks that every request passes before its route.

use super::connection::Connection;
use super::guard::Guard;
use super::refuse::{ALLOWED_METHODS, Refused, answer};
use super::store::{Counted, Store};
use super::stream::Shared;
use super::turns::Turns;
use super::view::Edge;
use super::{changes, getrange, query, views};
use crate::engine::Counters;
use crate::limits::Limits;
use crate::net::MemoryQuota;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Response, StatusCode, Uri, Version};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::timeout;

/// The most bytes of a request's body; no endpoint reads one.
const BODY_BYTES: usize = 64 * 1024;
/// After a query longer than this, other connections of the thread get a turn.
const LONG_QUERY_BYTES: usize = 1024;
/// The store whose history an answer is from.
pub(super) const STORE_ID: HeaderName = HeaderName::from_static("vatn-store-id");
/// The endpoints that write.
const PUT: &str = "/put";
const DELETE: &str = "/delete";

/// From a request to its answer.
#[derive(Clone)]
pub struct App {
    routes: TowerToHyperService<Router>,
    store: Arc<dyn Counted>,
    turns: Arc<Turns>,
    store_id: HeaderValue,
    guard: Arc<Guard>,
    body_deadline: Duration,
}

impl App {
    /// The routes over `store`.
    pub fn new<S: Store>(store: Arc<S>, guard: Guard, limits: &Limits) -> Self {
        let turns = Arc::<Turns>::default();
        let edge = Arc::new(Edge {
            store: Arc::clone(&store),
            turns: Arc::clone(&turns),
            page_bytes: limits.range_bytes,
            answer_bytes: limits.http_answer_bytes,
        });
        let routes = Router::new()
            .route("/get", view(views::get::<S>))
            .route("/getrange", view(getrange::getrange::<S>))
            .route(PUT, view(views::put::<S>))
            .route(DELETE, view(views::delete::<S>))
            .route("/changes", view(changes::changes::<S>))
            .route("/healthz", view(views::health::<S>))
            .fallback(no_such_path)
            .with_state(edge);
        let store_id = HeaderValue::from_str(store.id());
        Self {
            routes: TowerToHyperService::new(routes),
            turns,
            // Hexadecimal digits, so this never fails.
            store_id: store_id.unwrap_or(HeaderValue::from_static("")),
            store,
            guard: Arc::new(guard),
            body_deadline: Duration::from_millis(limits.handshake_ms),
        }
    }

    /// The broker's counters.
    pub(super) fn counters(&self) -> &Counters {
        self.store.counters()
    }

    /// The memory of all edges.
    pub(super) fn quota(&self) -> &MemoryQuota {
        self.store.quota()
    }

    /// The turns for rendering.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// The store's id, as a header.
    pub(super) fn store_id(&self) -> &HeaderValue {
        &self.store_id
    }

    /// Answers one request of a connection.
    pub async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        shared: &Arc<Shared>,
    ) -> Response<Body> {
        let is_long = request.uri().query().is_some_and(|query| query.len() > LONG_QUERY_BYTES);
        let mut response = self.answer_now(request, shared).await;
        response.headers_mut().insert(STORE_ID, self.store_id.clone());
        if is_long {
            // Pipelined requests follow at once.
            yield_now().await;
        }
        response
    }

    async fn answer_now(
        &self,
        request: hyper::Request<Incoming>,
        shared: &Arc<Shared>,
    ) -> Response<Body> {
        self.counters().http_requests.up();
        if let Some(fault) = shared.fault.get() {
            return Refused::from(*fault).into_response();
        }
        let version = request.version();
        let is_last = version == Version::HTTP_10 || shared.is_last.load(Relaxed);
        let mut response = match self.admit(request, is_last, shared).await {
            Ok(mut request) => {
                request.extensions_mut().insert(Connection(Arc::clone(shared)));
                self.routes.call(request).await.unwrap_or_else(|never| match never {})
            }
            Err(refused) => refused.into_response(),
        };
        if response.status() == StatusCode::NO_CONTENT {
            // HTTP forbids a length here, and hyper omits it from all answers except those to HEAD.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            // hyper grants a 1.0 client's keep-alive unless the answer is 1.0 too; FlatDB grants
            // none.
            *response.version_mut() = version;
        }
        response
    }

    /// Checks which host the request names and whether a web page may have caused it, removes its
    /// body, and turns its path into a route.
    async fn admit(
        &self,
        request: hyper::Request<Incoming>,
        is_last: bool,
        shared: &Shared,
    ) -> Result<Request, Refused> {
        let (mut parts, body) = request.into_parts();
        self.guard.check(parts.version, &parts.uri, &parts.headers)?;
        if is_last {
            let ignored = timeout(self.body_deadline, to_bytes(Body::new(body), BODY_BYTES)).await;
            if !matches!(ignored, Ok(Ok(_))) {
                return Err(body_refused());
            }
        }
        let route = query::route(parts.uri.path());
        let writes = [PUT, DELETE].contains(&route.as_deref().unwrap_or(parts.uri.path()));
        if writes && (parts.method == Method::GET || parts.method == Method::HEAD) {
            self.guard.check_write(shared.accepted_on, &parts.uri, &parts.headers)?;
        }
        if let Some(route) = route {
            parts.uri = with_path(&parts.uri, route);
        }
        Ok(Request::from_parts(parts, Body::empty()))
    }
}

/// An endpoint: GET and HEAD run it, OPTIONS lists the allowed methods, others are refused.
fn view<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    get(handler).options(options).fallback(method_not_allowed)
}

async fn options() -> Response<Body> {
    let mut response = answer(StatusCode::OK, Body::empty());
    response.headers_mut().insert(ALLOW, ALLOWED_METHODS);
    response
}

async fn method_not_allowed() -> Refused {
    Refused::method_not_allowed("this endpoint allows HEAD, OPTIONS and GET")
}

async fn no_such_path() -> Refused {
    let message = "there is no such path; the paths are /get, /getrange, /put, /delete, /changes \
                   and /healthz";
    Refused::new(StatusCode::NOT_FOUND, "NO_SUCH_PATH", message)
}

fn body_refused() -> Refused {
    let message =
        format!("a body is ignored here, and this one is over {BODY_BYTES} bytes or did not come");
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", message)
}

/// `uri` with another path and its own query.
fn with_path(uri: &Uri, path: String) -> Uri {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    // A route is plain text and the query was valid before, so this always parses.
    PathAndQuery::try_from(text).map_or_else(|_| uri.clone(), Uri::from)
}
