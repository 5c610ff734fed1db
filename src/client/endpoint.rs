//! Connecting to an endpoint, and the error when it cannot be reached.

use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::ClientError;
pub use crate::protocol::endpoint::Endpoint;

/// A connected byte stream of either transport.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Ipc(UnixStream),
}

impl Endpoint {
    /// Opens a byte stream, or returns one error with the reason.
    pub(super) async fn open(&self, patience: Duration) -> Result<Stream, ClientError> {
        let opening = async {
            match self {
                Endpoint::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(Stream::Tcp(stream))
                }
                Endpoint::Ipc(path) => UnixStream::connect(path).await.map(Stream::Ipc),
            }
        };
        match timeout(patience, opening).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(ClientError::NoHandshake {
                endpoint: self.to_string(),
                reason: format!("no connection within {patience:?}"),
            }),
        }
    }

    /// Turns an error of the operating system into one that helps the user.
    pub(super) fn unreachable(&self, error: std::io::Error) -> ClientError {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        match error.kind() {
            // NotFound means a missing socket file; a missing host name is another kind.
            ConnectionRefused | NotFound => {
                ClientError::NothingListens { endpoint: self.to_string() }
            }
            _ => ClientError::Unreachable { endpoint: self.to_string(), source: error },
        }
    }
}
