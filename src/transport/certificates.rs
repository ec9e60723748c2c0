//! From certificates, keys, authorities and revocation lists to what rustls serves with, and from a client's
//! certificate to its name.

use super::pem::{Section, Text as PemText};
use crate::heap::{allocated, boxed};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use super::pem::Text;

/// Whether clients show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

impl ClientCertificates {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, ClientCertificates)] = &[
        ("none", ClientCertificates::None),
        ("optional", ClientCertificates::Optional),
        ("required", ClientCertificates::Required),
    ];
}

/// What of a client's certificate is its user name or client identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NameFrom {
    /// What CONNECT says.
    #[default]
    Off,
    /// The common name of its subject.
    Cn,
    /// Its subject's distinguished name, as in RFC 4514 but in the certificate's order.
    Dn,
    /// The first of its alternative names.
    San,
}

impl NameFrom {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, NameFrom)] =
        &[("off", NameFrom::Off), ("cn", NameFrom::Cn), ("dn", NameFrom::Dn), ("san", NameFrom::San)];
}

/// What TLS is served with.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Chains, each with its key. Clients get the first that has the name they ask for, else the first.
    pub certificates: Vec<(Text, Text)>,
    /// Authorities of clients' certificates.
    pub authorities: Vec<Text>,
    /// Revocation lists of clients' certificates.
    pub revoked: Vec<Text>,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
    /// Protocols that are agreed upon by ALPN, where a client names any.
    pub alpn: Vec<Vec<u8>>,
    /// Whether TLS 1.3 alone is served.
    pub only_13: bool,
    /// Where the user name comes from.
    pub username: NameFrom,
    /// Where the client identifier comes from.
    pub client_id: NameFrom,
}

/// Who a client is, by its certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerNames {
    /// Its user name, where the listener takes it from there.
    pub username: Option<Box<str>>,
    /// Its client identifier, where the listener takes it from there.
    pub client_id: Option<Box<str>>,
}

impl PeerNames {
    /// Bytes on the heap, its own included.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |name: &Option<Box<str>>| name.as_ref().map_or(0, |name| allocated(name.len()));
        boxed::<PeerNames>() + bytes(&self.username) + bytes(&self.client_id)
    }
}

/// What a listener serves TLS with.
#[derive(Debug)]
pub struct TlsTerms {
    pub(super) config: Arc<ServerConfig>,
    username: NameFrom,
    client_id: NameFrom,
    /// When the first of its certificates ends, in seconds of Unix time, and which.
    ends: (i64, String),
}

impl TlsTerms {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// One line: the file and its line, what was expected and what to do.
    pub fn new(files: &TlsFiles) -> Result<TlsTerms, String> {
        let provider = Arc::new(ring::default_provider());
        let mut ends = (i64::MAX, String::new());
        let mut served = Vec::new();
        for (chain, key) in &files.certificates {
            let certificate = served_certificate(chain, key)?;
            if certificate.ends < ends.0 {
                ends = (certificate.ends, chain.name.clone());
            }
            served.push(certificate);
        }
        if served.is_empty() {
            return Err("expected a certificate and its key, got none".to_owned());
        }
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
        let versions = if files.only_13 { &BOTH[..1] } else { BOTH };
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).map_err(|error| format!("TLS: {error}"))?;
        let builder = match files.clients {
            ClientCertificates::None => builder.with_no_client_auth(),
            wanted => {
                let roots = Arc::new(roots(&files.authorities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier =
                    verifier.with_crls(revoked(&files.revoked)?).only_check_end_entity_revocation();
                let verifier = match wanted {
                    ClientCertificates::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let names: Vec<&str> = files.revoked.iter().map(|text| &*text.name).collect();
                let verifier = verifier.build().map_err(|error| {
                    format!("{}: expected revocation lists that can be used: {error}", names.join(", "))
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Served(served)));
        config.alpn_protocols.clone_from(&files.alpn);
        // Of the ciphers that both know, the first in the broker's order.
        config.ignore_client_order = true;
        // Tickets carry the session; nothing is kept here for a client that may come again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer =
            ring::Ticketer::new().map_err(|error| format!("TLS: no session tickets: {error}"))?;
        config.send_tls13_tickets = 1;
        let (username, client_id) = (files.username, files.client_id);
        Ok(TlsTerms { config: Arc::new(config), username, client_id, ends })
    }

    /// When the first of its certificates ends, in seconds of Unix time, and the file that it is in.
    pub fn ends(&self) -> (i64, &str) {
        (self.ends.0, &self.ends.1)
    }

    /// Who shows this certificate; `None` where nobody asks.
    ///
    /// # Errors
    /// A name that is asked for and that it does not have: whoever shows it must not choose one.
    pub(super) fn names_of(&self, certificate: &CertificateDer<'_>) -> Result<Option<PeerNames>, String> {
        if (self.username, self.client_id) == (NameFrom::Off, NameFrom::Off) {
            return Ok(None);
        }
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("expected an X.509 certificate of a client: {error}"))?;
        let name = |from| match from {
            NameFrom::Off => Ok(None),
            from => match name(&certificate, from) {
                // What MQTT can take as a text [MQTT-1.5.4-2].
                Some(name) if !name.is_empty() && !name.contains('\0') => Ok(Some(name.into_boxed_str())),
                _ => Err(format!("expected a client's certificate to have a name of the kind {from:?}")),
            },
        };
        Ok(Some(PeerNames { username: name(self.username)?, client_id: name(self.client_id)? }))
    }
}

fn name(certificate: &X509Certificate<'_>, from: NameFrom) -> Option<String> {
    match from {
        NameFrom::Off => None,
        NameFrom::Cn => certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned),
        NameFrom::Dn => Some(certificate.subject().to_string()),
        NameFrom::San => {
            let names = certificate.subject_alternative_name().ok()??;
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                    Some((*name).to_owned())
                }
                _ => None,
            })
        }
    }
}

/// A chain with its key, and the names that it is for.
#[derive(Debug)]
pub(super) struct ServedCertificate {
    names: Vec<String>,
    pub(super) key: Arc<CertifiedKey>,
    ends: i64,
}

pub(super) fn served_certificate(chain: &PemText, key: &PemText) -> Result<ServedCertificate, String> {
    let certificates = of_kind(chain, |kind| kind == SectionKind::Certificate, "a certificate")?;
    for section in &certificates {
        if let Err(error) = X509Certificate::from_der(&section.der) {
            return Err(format!("{}: expected an X.509 certificate: {error}", chain.at(section.line)));
        }
    }
    let first = &certificates[0];
    let (_, leaf) = X509Certificate::from_der(&first.der)
        .map_err(|error| format!("{}: expected an X.509 certificate: {error}", chain.at(first.line)))?;
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(alternative)) = leaf.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    let ends = leaf.validity().not_after.timestamp();
    let is_key = |kind| {
        matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
    };
    let keys = of_kind(key, is_key, "a private key")?;
    let (line, first_line) = (keys[0].line, first.line);
    let signing =
        keys.into_iter().next().and_then(|section| PrivateKeyDer::from_pem(section.kind, section.der));
    let signing = signing.and_then(|der| ring::sign::any_supported_type(&der).ok()).ok_or_else(|| {
        format!("{}: expected an RSA key of 2048 bits or more, an ECDSA or an Ed25519 key", key.at(line))
    })?;
    let chain_der = certificates.into_iter().map(|section| CertificateDer::from(section.der)).collect();
    let certified = CertifiedKey::new(chain_der, signing);
    if let Err(rustls::Error::InconsistentKeys(_)) = certified.keys_match() {
        let what = format!("expected the key of the certificate in {}, got another", chain.at(first_line));
        return Err(format!("{}: {what}", key.at(line)));
    }
    Ok(ServedCertificate { names, key: Arc::new(certified), ends })
}

/// Sections of one kind, at least one.
pub(super) fn of_kind(
    text: &PemText,
    wanted: impl Fn(SectionKind) -> bool,
    what: &str,
) -> Result<Vec<Section>, String> {
    let sections: Vec<_> = text.sections()?.into_iter().filter(|section| wanted(section.kind)).collect();
    if sections.is_empty() {
        return Err(format!("{}: expected {what} in PEM, got none", text.name));
    }
    Ok(sections)
}

pub(super) fn roots(authorities: &[PemText]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for text in authorities {
        for section in of_kind(text, |kind| kind == SectionKind::Certificate, "a certificate")? {
            roots.add(CertificateDer::from(section.der)).map_err(|error| {
                format!("{}: expected the certificate of an authority: {error}", text.at(section.line))
            })?;
        }
    }
    if roots.is_empty() {
        return Err("expected the certificates of clients' authorities, got none".to_owned());
    }
    Ok(roots)
}

fn revoked(lists: &[PemText]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let mut all = Vec::new();
    for text in lists {
        for section in of_kind(text, |kind| kind == SectionKind::Crl, "a revocation list")? {
            let list = x509_parser::revocation_list::CertificateRevocationList::from_der(&section.der);
            if let Err(error) = list {
                return Err(format!("{}: expected a revocation list: {error}", text.at(section.line)));
            }
            all.push(CertificateRevocationListDer::from(section.der));
        }
    }
    Ok(all)
}

/// Chooses by the name that a client asks for, among those whose keys it can verify.
#[derive(Debug)]
struct Served(Vec<ServedCertificate>);

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable =
            |one: &&ServedCertificate| one.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().map(str::to_ascii_lowercase);
        let named = named.and_then(|name| {
            let has = |one: &&ServedCertificate| one.names.iter().any(|pattern| covers(pattern, &name));
            self.0.iter().filter(has).find(usable)
        });
        let found = named.or_else(|| self.0.iter().find(usable)).or_else(|| self.0.first());
        found.map(|one| one.key.clone())
    }
}

/// Whether a certificate for `pattern` is one for `name`: the same, or `*` for its first label [RFC 6125, 6.4.3].
fn covers(pattern: &str, name: &str) -> bool {
    let rest = |text| str::split_once(text, '.').map(|(_, rest)| rest);
    match pattern.strip_prefix("*.") {
        Some(domain) => rest(name) == Some(domain),
        None => pattern == name,
    }
}
