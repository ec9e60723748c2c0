//! The client's side: whom to trust, what to show, and what is wrong with what a server shows.

use super::certificates::{Text, of_kind, roots, served_certificate};
use super::upgrade::DialWebSocket;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError};
use rustls::{SignatureScheme, SupportedProtocolVersion, version};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a client's TLS is made of.
#[derive(Clone, Debug, Default)]
pub struct DialFiles {
    /// Authorities of servers' certificates, or these certificates themselves.
    pub authorities: Vec<Text>,
    /// Every certificate will do.
    pub insecure: bool,
    /// The client's own chain with its key.
    pub shown: Option<(Text, Text)>,
    /// Protocols that are asked for by ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// The only version, where there is to be one.
    pub version: Option<DialVersion>,
    /// Sessions are resumed.
    pub resumes: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// A client's TLS to one server.
#[derive(Clone, Debug)]
pub struct DialTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// The layers of a client's connections to one server.
#[derive(Clone, Debug, Default)]
pub struct DialLayers {
    /// TLS, where there is to be any.
    pub tls: Option<DialTls>,
    /// WebSocket, where there is to be any.
    pub websocket: Option<Arc<DialWebSocket>>,
}

impl DialLayers {
    /// Whether MQTT is spoken on the socket itself.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.websocket.is_none()
    }

    /// The same for one client whose sessions of TLS are its own.
    #[must_use]
    pub fn of_one(&self) -> DialLayers {
        let mut layers = self.clone();
        if let Some(tls) = &mut layers.tls {
            let mut config = ClientConfig::clone(&tls.config);
            config.resumption = Resumption::in_memory_sessions(1);
            tls.config = Arc::new(config);
        }
        layers
    }
}

impl DialTls {
    /// Reads and checks everything. The server is to have a certificate for this name, which it is asked for.
    ///
    /// # Errors
    /// One line: the file and its line, what was expected and what to do.
    pub fn new(files: &DialFiles, name: &str) -> Result<DialTls, String> {
        let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(bare)
            .map_err(|_| format!("expected the name or the address of a server, got {name}"))?;
        let provider = Arc::new(ring::default_provider());
        let (tls12, tls13, both): (&[_], &[_], &[&'static SupportedProtocolVersion]) =
            (&[&version::TLS12], &[&version::TLS13], &[&version::TLS13, &version::TLS12]);
        let versions = match files.version {
            Some(DialVersion::Tls12) => tls12,
            Some(DialVersion::Tls13) => tls13,
            None => both,
        };
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).map_err(|error| format!("TLS: {error}"))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Judge::new(files)?));
        let mut config = match &files.shown {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let shown = served_certificate(chain, key)?.key;
                builder.with_client_cert_resolver(Arc::new(Shown(shown)))
            }
        };
        config.alpn_protocols.clone_from(&files.alpn);
        config.resumption = Resumption::disabled();
        if files.resumes {
            config.resumption = Resumption::in_memory_sessions(1);
        }
        Ok(DialTls { config: Arc::new(config), name: server })
    }
}

/// The one certificate of a client.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Decides about servers' certificates, and says what is wrong with one.
#[derive(Debug)]
struct Judge {
    /// Knows the authorities; without it everything will do.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates of the files, of which a server may show one itself: many are signed by their own key.
    known: Vec<CertificateDer<'static>>,
    /// The files' names.
    files: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Judge {
    fn new(files: &DialFiles) -> Result<Judge, String> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let names: Vec<&str> = files.authorities.iter().map(|text| &*text.name).collect();
        let mut judge = Judge { webpki: None, known: Vec::new(), files: names.join(", "), algorithms };
        if files.insecure {
            return Ok(judge);
        }
        for text in &files.authorities {
            let sections = of_kind(text, |kind| kind == SectionKind::Certificate, "a certificate")?;
            judge.known.extend(sections.into_iter().map(|section| CertificateDer::from(section.der)));
        }
        let roots = Arc::new(roots(&files.authorities)?);
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        judge.webpki = Some(webpki.map_err(|error| format!("{}: {error}", judge.files))?);
        Ok(judge)
    }

    /// One that is known by itself: it must be for the name and of today.
    fn verify_known(
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let (validity, now_s) = (parsed.validity(), now.as_secs() as i64);
        if now_s < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now_s > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// What was expected, and what came.
    fn reason(&self, error: &Error, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> String {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return "expected an X.509 certificate of the server, got something else".to_owned();
        };
        let (subject, issuer) = (parsed.subject().to_string(), parsed.issuer().to_string());
        let Error::InvalidCertificate(error) = error else { return format!("TLS: {error}") };
        match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let got = names(&parsed).join(", ");
                let got = if got.is_empty() { "no name" } else { &got };
                format!("expected a certificate for {}, got one for {got} ({subject})", name.to_str())
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let end = parsed.validity().not_after;
                format!("expected a certificate of today, got one that ended on {end} ({subject})")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                let begin = parsed.validity().not_before;
                format!("expected a certificate of today, got one that begins on {begin} ({subject})")
            }
            _ if subject == issuer => {
                let got = format!("got one by itself ({subject})");
                format!("expected a certificate by an authority in {}, {got}", self.files)
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let got = format!("got one by {issuer} ({subject})");
                format!("expected a certificate by an authority in {}, {got}", self.files)
            }
            error => format!("expected a certificate of a server, got one with a fault: {error} ({subject})"),
        }
    }
}

/// What a certificate is for.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let all = alternative.map_or(&[][..], |names| &names.value.general_names);
    let one = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => bytes.try_into().ok().map(|bytes: [u8; 16]| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    all.iter().filter_map(one).collect()
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(webpki) = &self.webpki else { return Ok(ServerCertVerified::assertion()) };
        let verdict = if self.known.iter().any(|known| known == certificate) {
            Judge::verify_known(certificate, name, now).map(|()| ServerCertVerified::assertion())
        } else {
            webpki.verify_server_cert(certificate, chain, name, ocsp, now)
        };
        verdict.map_err(|error| {
            let why = Why(self.reason(&error, certificate, name));
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.webpki {
            Some(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.webpki {
            Some(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a certificate is not taken.
#[derive(Debug)]
struct Why(String);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Why {}

/// What a client tells its user of an error.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(why)) => format!("TLS: {why}"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "TLS: the server expected a certificate of the client, got none".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!("TLS: expected the server to go on, got the alert {alert:?}")
        }
        Error::InvalidMessage(_) => "TLS: expected a record of TLS, got something else".to_owned(),
        error => format!("TLS: {error}"),
    }
}
