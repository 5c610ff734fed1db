//! Where an edge listens: `tcp://host:port` or `ipc://path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path of a Unix socket that Linux takes (`sun_path` less its final zero).
const IPC_PATH_BYTES_MAX: usize = 107;

/// An endpoint as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name or address, and a port; port 0 asks the system for one.
    Tcp {
        /// A name, an IPv4 address, an IPv6 address without its brackets, or `*` for every address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket.
    Ipc {
        /// The path, as given.
        path: PathBuf,
    },
}

/// Why a text is no endpoint; says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither `tcp://` nor `ipc://`.
    #[error("'{0}' is no endpoint: write tcp://HOST:PORT or ipc://PATH")]
    Scheme(String),
    /// No port, or none that a port can be.
    #[error("'{0}' has no port: write tcp://HOST:PORT, with 0 to be given a free one")]
    Port(String),
    /// No host, or an IPv6 address without brackets.
    #[error("'{0}' has no host: write tcp://127.0.0.1:PORT, or tcp://[::1]:PORT for IPv6")]
    Host(String),
    /// An empty path, or one that no Unix socket can have.
    #[error("'{0}' is no socket path: write ipc://PATH with 1 to {IPC_PATH_BYTES_MAX} bytes")]
    Path(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("ipc://") {
            // `@` is ZeroMQ's abstract namespace, which leaves no file to protect or to remove.
            if path.is_empty() || path.starts_with('@') || path.len() > IPC_PATH_BYTES_MAX {
                return Err(EndpointError::Path(text.to_owned()));
            }
            return Ok(Self::Ipc { path: PathBuf::from(path) });
        }
        let rest =
            text.strip_prefix("tcp://").ok_or_else(|| EndpointError::Scheme(text.to_owned()))?;
        let (host, port) =
            rest.rsplit_once(':').ok_or_else(|| EndpointError::Port(text.to_owned()))?;
        let port = port.parse().map_err(|_| EndpointError::Port(text.to_owned()))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').unwrap_or_default(),
            None if host.contains(':') => "",
            None => host,
        };
        if host.is_empty() {
            return Err(EndpointError::Host(text.to_owned()));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc { path } => write!(f, "ipc://{}", path.display()),
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
    fn what_is_no_endpoint_says_what_would_be_one() {
        let long = format!("ipc:///{}", "x".repeat(IPC_PATH_BYTES_MAX));
        for (text, cure) in [
            ("127.0.0.1:7533", "write tcp://HOST:PORT or ipc://PATH"),
            ("http://localhost:1", "write tcp://HOST:PORT or ipc://PATH"),
            ("tcp://localhost", "has no port"),
            ("tcp://localhost:", "has no port"),
            ("tcp://localhost:65536", "has no port"),
            ("tcp://:7533", "has no host"),
            ("tcp://::1:7533", "has no host"),
            ("tcp://[::1:7533", "has no host"),
            ("ipc://", "no socket path"),
            ("ipc://@abstract", "no socket path"),
            (long.as_str(), "no socket path"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(cure) && error.contains(text), "{text}: {error}");
        }
    }
}
