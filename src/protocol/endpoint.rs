//! Endpoints of ZeroMQ sockets: `tcp://HOST:PORT` or `ipc://PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path of a Unix socket that Linux takes (`sun_path` less its final zero), in bytes.
const IPC_PATH_BYTES_MAX: usize = 107;

/// Where a broker listens, or a client connects.
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
    /// A TCP port.
    Tcp {
        /// A name, an IPv4 address, an IPv6 address without its brackets, or `*` for every address
        /// of this machine.
        host: String,
        /// The port; 0 asks the system for a free one.
        port: u16,
    },
    /// The path of a Unix-domain socket.
    Ipc(PathBuf),
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an endpoint: {reason}; write tcp://HOST:PORT or ipc://PATH")]
pub struct EndpointError {
    /// The text as it was given.
    pub text: String,
    /// The fault.
    pub reason: &'static str,
}

impl Endpoint {
    /// Reads an endpoint to connect to: its port is not 0, and its host is not `*`.
    pub fn to_connect(text: &str) -> Result<Self, EndpointError> {
        let bad = |reason| Err(EndpointError { text: text.to_owned(), reason });
        match text.parse()? {
            Self::Tcp { port: 0, .. } => bad("port 0 cannot be connected to"),
            Self::Tcp { host, .. } if host == "*" => bad("the host * cannot be connected to"),
            endpoint => Ok(endpoint),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let bad = |reason| EndpointError { text: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("ipc://") {
            return match path {
                "" => Err(bad("the path after ipc:// is missing")),
                // ZeroMQ's abstract namespace leaves no file to protect or to remove.
                _ if path.starts_with('@') => Err(bad("the path must be a file, not an @ name")),
                _ if path.len() > IPC_PATH_BYTES_MAX => Err(bad("the path has over 107 bytes")),
                _ => Ok(Self::Ipc(path.into())),
            };
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return Err(bad("it begins neither with tcp:// nor with ipc://"));
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let port = port.parse().map_err(|_| bad("the port is not a number up to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').unwrap_or_default(),
            None if host.contains(':') => return Err(bad("an IPv6 address needs brackets, [::1]")),
            None => host,
        };
        match host {
            "" => Err(bad("the host is missing")),
            _ => Ok(Self::Tcp { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written_alike() {
        for text in ["tcp://127.0.0.1:7533", "tcp://[::1]:0", "tcp://*:1", "ipc:///run/vatn.sock"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn an_error_names_the_text_and_the_reason() {
        let long = format!("ipc:///{}", "x".repeat(IPC_PATH_BYTES_MAX));
        for (text, reason) in [
            ("127.0.0.1:7533", "neither with tcp://"),
            ("http://localhost:1", "neither with tcp://"),
            ("tcp://localhost", "port is missing"),
            ("tcp://localhost:", "port is not a number"),
            ("tcp://localhost:65536", "port is not a number"),
            ("tcp://:7533", "host is missing"),
            ("tcp://::1:7533", "needs brackets"),
            ("tcp://[::1:7533", "host is missing"),
            ("ipc://", "path after ipc:// is missing"),
            ("ipc://@abstract", "must be a file"),
            (long.as_str(), "over 107 bytes"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_client_needs_one_host_and_one_port() {
        for (text, reason) in [("tcp://127.0.0.1:0", "port 0"), ("tcp://*:7533", "host *")] {
            let error = Endpoint::to_connect(text).unwrap_err();
            assert!(error.reason.contains(reason), "{error}");
        }
        assert!(Endpoint::to_connect("tcp://localhost:1").is_ok());
    }
}
