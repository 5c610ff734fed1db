//! What all views share: the store, turns, and answers that are not rendered at once.

use super::connection::Connection;
use super::refuse::Refused;
use super::room::Room;
use super::store::Store;
use super::turns::Turns;
use crate::commands::Command;
use axum::body::Body;
use axum::http::Response;
use axum::http::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use std::sync::Arc;

/// Makes nginx forward received bytes at once, and other proxies that know the header.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The state that all views share.
pub struct Edge<S> {
    pub(super) store: Arc<S>,
    pub(super) turns: Arc<Turns>,
    /// The approximate MessagePack size of a page of a range or of the history.
    pub(super) page_bytes: usize,
    /// The longest answer whose length is determined before it is sent.
    pub(super) answer_bytes: usize,
}

impl<S: Store> Edge<S> {
    /// Runs a reading command. When its answer is longer than the reserved memory, the command runs
    /// again once there is room.
    pub(super) async fn read(
        &self,
        connection: &Connection,
        command: Command<'_>,
        room: &mut Room,
    ) -> Result<Bytes, Refused> {
        let caller = connection.caller();
        loop {
            match self.store.run(caller, command.clone(), |bytes| room.grow(bytes)).await {
                Ok(found) => return Ok(found),
                Err(refused) => room.again(refused).await?,
            }
        }
    }
}

/// The body of an answer to HEAD of unknown length: nothing was rendered.
pub(super) fn unrendered() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Bytes, Refused>>())
}

/// An answer that is rendered while it is read: proxies between us and the reader must not buffer
/// it.
pub(super) fn streamed(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}
