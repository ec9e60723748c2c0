//! Whom the certificates of back-ends must be signed by.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// TLS for those who ask back-ends: with the authorities of a file, else with those that this machine trusts.
///
/// # Errors
/// What is wrong with the file, in one line.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let fault = |what: String| format!("auth.http_ca_file: {}: {what}", path.display());
            let text = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate =
                    certificate.map_err(|error| fault(format!("expected certificates in PEM: {error}")))?;
                roots
                    .add(certificate)
                    .map_err(|error| fault(format!("a certificate is no authority: {error}")))?;
            }
            if roots.is_empty() {
                return Err(fault("expected certificates in PEM (BEGIN CERTIFICATE), got none".to_owned()));
            }
        }
        None => {
            // Some that cannot be used are on many machines.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS of this build is incomplete: {error}"))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
