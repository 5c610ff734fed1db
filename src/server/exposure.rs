//! Checks whether other machines can reach a broker. That must be intended: the broker has neither
//! passwords nor encryption yet.

use super::ServeError;
use crate::config::Config;
use crate::protocol::Endpoint;
use std::net::IpAddr;
use tokio::net::lookup_host;

/// Returns the endpoints of `config` that other machines can reach; fails where that is not
/// allowed.
pub(super) async fn check(config: &Config) -> Result<Vec<String>, ServeError> {
    let mut exposed = Vec::new();
    if is_reachable(&config.http_host, config.http_port).await {
        exposed.push(("-H", config.http_host.clone()));
    }
    let flags = [("--router", &config.routers), ("--publisher", &config.publishers)];
    for (flag, endpoints) in flags {
        for text in endpoints {
            // An invalid endpoint is reported when it is bound.
            let Ok(Endpoint::Tcp { host, port }) = text.parse() else { continue };
            if is_reachable(&host, port).await {
                exposed.push((flag, text.clone()));
            }
        }
    }
    match exposed.first() {
        Some((flag, what)) if !config.insecure => {
            Err(ServeError::Exposed { flag, what: what.clone() })
        }
        _ => Ok(exposed.into_iter().map(|(flag, what)| format!("{flag} {what}")).collect()),
    }
}

/// Whether `host` has an address that other machines may know.
async fn is_reachable(host: &str, port: u16) -> bool {
    if host == "*" {
        return true;
    }
    // An unknown name cannot be bound either.
    let Ok(addresses) = lookup_host((host, port)).await else { return false };
    addresses.into_iter().any(|address| !is_loopback(address.ip()))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_loopback_addresses_are_out_of_reach() {
        for host in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"] {
            assert!(!is_reachable(host, 0).await, "{host}");
        }
        for host in ["0.0.0.0", "::", "*", "::ffff:0.0.0.0", "192.0.2.1", "2001:db8::1", "0"] {
            assert!(is_reachable(host, 0).await, "{host}");
        }
    }

    #[tokio::test]
    async fn every_setting_with_an_endpoint_is_checked() {
        let config = || Config::without_edges("unused");
        let text = |text: &str| vec!["tcp://127.0.0.1:0".to_owned(), text.to_owned()];
        let mut cases = [config(), config(), config()];
        cases[0].http_host = "0.0.0.0".to_owned();
        cases[1].routers = text("tcp://[::]:0");
        cases[2].publishers = text("tcp://*:0");
        for mut config in cases {
            let refused = check(&config).await.unwrap_err().to_string();
            assert!(refused.contains("--insecure"), "{refused}");
            config.insecure = true;
            assert_eq!(check(&config).await.unwrap().len(), 1);
        }
        let mut local = config();
        local.routers = text("ipc:///run/vatn.sock");
        assert_eq!(check(&local).await.unwrap(), Vec::<String>::new());
    }
}
