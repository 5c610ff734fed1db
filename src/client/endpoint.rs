//! Endpoints: how they are written, and what it means when one cannot be reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::ClientError;

/// Where a broker listens: `tcp://HOST:PORT` or `ipc://PATH`.
///
/// ```
/// use vatn::client::Endpoint;
///
/// let endpoint: Endpoint = "tcp://[::1]:7533".parse().unwrap();
/// assert_eq!(endpoint, Endpoint::Tcp { host: "::1".to_owned(), port: 7533 });
/// assert!("localhost".parse::<Endpoint>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port; the host is a name or an address, an IPv6 address without its brackets.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, 1 to 65,535.
        port: u16,
    },
    /// A Unix-domain socket.
    Ipc(PathBuf),
}

impl FromStr for Endpoint {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::BadEndpoint { endpoint: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("ipc://") {
            if path.is_empty() {
                return Err(bad("the path after ipc:// is missing"));
            }
            return Ok(Endpoint::Ipc(path.into()));
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return Err(bad("it begins neither with tcp:// nor with ipc://"));
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port = port.parse().map_err(|_| bad("the port is not a number up to 65535"))?;
        if port == 0 {
            return Err(bad("port 0 cannot be connected to"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host {
            "" | "*" => Err(bad("the host is missing")),
            _ => Ok(Endpoint::Tcp { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Endpoint::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Endpoint::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

/// A connected byte stream of either transport.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Ipc(UnixStream),
}

impl Endpoint {
    /// Opens a byte stream, or says in one error why there is none.
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

    /// Turns what the operating system said into what the user needs to know.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_back() {
        for text in ["tcp://127.0.0.1:7533", "tcp://localhost:1", "tcp://[::1]:7533", "ipc:///a/b"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_with_the_reason() {
        for (text, reason) in [
            ("127.0.0.1:7533", "neither with tcp://"),
            ("tcp://127.0.0.1", "port is missing"),
            ("tcp://127.0.0.1:70000", "port is not a number"),
            ("tcp://127.0.0.1:0", "port 0"),
            ("tcp://*:7533", "host is missing"),
            ("ipc://", "path after ipc:// is missing"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
