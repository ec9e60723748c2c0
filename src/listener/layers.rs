//! What a listener is told of TLS and WebSocket.

use crate::limits::WS_FRAME_BYTES_DEFAULT;
use crate::transport::{ClientCertificates, NameFrom};
use std::path::PathBuf;

/// The oldest TLS that is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V12,
    /// TLS 1.3.
    V13,
}

impl TlsVersion {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, TlsVersion)] = &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
}

/// Files of a listener with TLS, and what they are for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsOptions {
    /// Chains of certificates.
    pub certificates: Vec<PathBuf>,
    /// The key of each, at the same place.
    pub keys: Vec<PathBuf>,
    /// Authorities of clients' certificates.
    pub authorities: Vec<PathBuf>,
    /// Revocation lists of clients' certificates.
    pub revoked: Vec<PathBuf>,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
    /// The oldest version.
    pub version_min: TlsVersion,
    /// What of a client's certificate is its user name.
    pub username: NameFrom,
    /// What of a client's certificate is its client identifier.
    pub client_id: NameFrom,
}

impl TlsOptions {
    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.certificates.iter().chain(&self.keys).chain(&self.authorities).chain(&self.revoked)
    }

    /// What does not go together: the key, and what was expected.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let (certificates, keys) = (self.certificates.len(), self.keys.len());
        if certificates == 0 {
            return Some(("certificate", "expected a file of certificates, got none".to_owned()));
        }
        if certificates != keys {
            let what =
                format!("expected one file for each of the {certificates} of `certificate`, got {keys}");
            return Some(("key", what));
        }
        if self.clients == ClientCertificates::None {
            let named = (self.username, self.client_id) != (NameFrom::Off, NameFrom::Off);
            let what =
                "expected \"optional\" or \"required\", for names are taken from clients' certificates";
            return named.then(|| ("client_certificate", what.to_owned()));
        }
        self.authorities.is_empty().then(|| {
            ("ca", "expected a file of the authorities of clients' certificates, got none".to_owned())
        })
    }
}

/// What a listener with WebSocket asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSocketOptions {
    /// The path of the upgrade request; empty takes every one.
    pub path: Box<str>,
    /// Origins of web pages that may connect; empty takes every one.
    pub origins: Vec<String>,
    /// Bytes of one frame at most.
    pub frame_bytes_max: u64,
}

impl Default for WebSocketOptions {
    fn default() -> WebSocketOptions {
        WebSocketOptions {
            path: "/mqtt".into(),
            origins: Vec::new(),
            frame_bytes_max: WS_FRAME_BYTES_DEFAULT,
        }
    }
}
