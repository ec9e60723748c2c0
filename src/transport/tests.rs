//! TLS against rustls' own client, and what is told of files that are wrong.

mod dial;

use super::*;
use crate::limits::TLS_HANDSHAKE_BYTES_MAX;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io::{Read, Write};

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, common: &str, names: &[&str], serial: u64) -> (Text, Text) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (text("chain.pem", &certificate.pem()), text("key.pem", &key.serialize_pem()))
    }

    fn revoke(&self, serial: u64) -> Text {
        let day = |day| rcgen::date_time_ymd(2026, 1, day);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: day(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: day(1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        text("crl.pem", &list.signed_by(&self.issuer).unwrap().pem().unwrap())
    }
}

fn text(name: &str, pem: &str) -> Text {
    Text { name: name.to_owned(), bytes: pem.as_bytes().to_vec() }
}

fn layers(files: &TlsFiles) -> Layers {
    Layers { tls: Some(Arc::new(TlsTerms::new(files).unwrap())), websocket: None }
}

/// TLS with a certificate for localhost.
pub(crate) fn tls() -> Layers {
    let certificates = vec![Authority::new("authority").sign("server", &["localhost"], 1)];
    layers(&TlsFiles { certificates, ..TlsFiles::default() })
}

/// The first words of a client.
pub(crate) fn hello() -> Vec<u8> {
    let config = Arc::new(client(rustls::ALL_VERSIONS));
    let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut words = Vec::new();
    client.write_tls(&mut words).unwrap();
    words
}

/// Takes every certificate; which one it was is looked at afterwards.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client of rustls, and the transport that it speaks with.
struct Pair {
    client: ClientConnection,
    server: Box<Transport>,
    scratch: Scratch,
    /// What the server got, and the client.
    got: Vec<u8>,
    told: Vec<u8>,
    fate: Result<Fate, Fault>,
    /// Bytes that the server gets at a time.
    step: usize,
}

impl Pair {
    fn new(layers: &Layers, config: &Arc<ClientConfig>, name: &str) -> Pair {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Pair {
            client: ClientConnection::new(config.clone(), name).unwrap(),
            server: Transport::new(layers).unwrap(),
            scratch: Scratch::default(),
            got: Vec::new(),
            told: Vec::new(),
            fate: Ok(Fate::Open),
            step: usize::MAX,
        }
    }

    /// Carries bytes to and fro until nobody has anything to say; `said` is what the server says of its own.
    fn talk(&mut self, mut said: &[u8]) {
        loop {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            for part in wire.chunks(self.step.min(wire.len().max(1))) {
                let fate = self.server.receive(part, &mut self.scratch, &mut self.got);
                if self.fate == Ok(Fate::Open) {
                    self.fate = fate;
                }
            }
            let mut answer = Vec::new();
            if self.server.has_output() || (!said.is_empty() && !self.server.is_handshaking()) {
                self.server.seal(std::mem::take(&mut said), &mut self.scratch, &mut answer);
            }
            if answer.is_empty() && wire.is_empty() {
                return;
            }
            let mut answer = &answer[..];
            while !answer.is_empty() {
                self.client.read_tls(&mut answer).unwrap();
                if self.client.process_new_packets().is_err() {
                    return;
                }
                let _ = self.client.reader().read_to_end(&mut self.told);
            }
        }
    }

    /// What the client was told of its server's certificate.
    fn shown(&self) -> Vec<u8> {
        self.client.peer_certificates().unwrap()[0].to_vec()
    }
}

fn client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Gullible)).with_no_client_auth()
}

fn client_with(shown: &(Text, Text)) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&shown.0.bytes).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&shown.1.bytes).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Gullible));
    Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
}

fn der(text: &Text) -> Vec<u8> {
    CertificateDer::from_pem_slice(&text.bytes).unwrap().to_vec()
}

#[test]
fn bytes_go_both_ways_in_both_versions_in_pieces_of_any_size() {
    let authority = Authority::new("authority");
    let files = TlsFiles {
        certificates: vec![authority.sign("a", &["localhost"], 1)],
        alpn: vec![b"mqtt".to_vec()],
        ..TlsFiles::default()
    };
    let layers = layers(&files);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for step in [1, 7, 1_000, usize::MAX] {
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let builder = builder.with_protocol_versions(&[version]).unwrap();
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = vec![b"mqtt".to_vec()];
            let mut pair = Pair::new(&layers, &Arc::new(config), "localhost");
            pair.step = step;
            pair.talk(&[]);
            assert!(!pair.client.is_handshaking() && pair.server.expects().is_none(), "{version:?} {step}");
            assert_eq!(pair.client.alpn_protocol(), Some(&b"mqtt"[..]));
            let (up, down): (Vec<u8>, Vec<u8>) =
                ((0..100_000u32).map(|n| n as u8).collect(), (0..70_000u32).map(|n| (n * 7) as u8).collect());
            for part in up.chunks(40_000) {
                pair.client.writer().write_all(part).unwrap();
                pair.talk(&[]);
            }
            pair.talk(&down);
            assert!(pair.got == up && pair.told == down, "{version:?} {step}");
            let held = pair.server.bytes();
            assert!(held < 8_192, "an idle connection holds no buffer: {held}");
            pair.server.close(CloseCode::Normal);
            pair.talk(b"last");
            assert!(pair.told.ends_with(b"last"));
            pair.client.send_close_notify();
            pair.talk(&[]);
            assert_eq!(pair.fate, Ok(Fate::Ended), "what follows a close is ignored");
        }
    }
}

#[test]
fn a_client_that_closes_in_order_ends_it() {
    let files = TlsFiles {
        certificates: vec![Authority::new("authority").sign("a", &["localhost"], 1)],
        ..TlsFiles::default()
    };
    let mut pair = Pair::new(&layers(&files), &Arc::new(client(rustls::ALL_VERSIONS)), "localhost");
    pair.talk(&[]);
    pair.client.writer().write_all(b"bye").unwrap();
    pair.client.send_close_notify();
    pair.talk(&[]);
    assert_eq!((pair.got.as_slice(), pair.fate.clone()), (&b"bye"[..], Ok(Fate::Ended)));
    assert!(!pair.server.has_output(), "it is the shard that closes");
    pair.server.close(CloseCode::Normal);
    assert!(pair.server.has_output());
}

#[test]
fn what_is_no_tls_is_answered_by_an_alert() {
    let files = TlsFiles {
        certificates: vec![Authority::new("authority").sign("a", &["localhost"], 1)],
        alpn: vec![b"mqtt".to_vec()],
        ..TlsFiles::default()
    };
    let layers = layers(&files);
    let (mut scratch, mut plain, mut wire) = (Scratch::default(), Vec::new(), Vec::new());
    let mut server = Transport::new(&layers).unwrap();
    let mqtt = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
    let fault = server.receive(&mqtt, &mut scratch, &mut plain).unwrap_err();
    assert_eq!(fault.layer, Layer::Tls);
    server.close(CloseCode::Policy);
    server.seal(b"never", &mut scratch, &mut wire);
    assert_eq!((wire[0], plain.len()), (21, 0), "an alert, and nothing in clear text");
    assert!(server.receive(&mqtt, &mut scratch, &mut plain).is_ok() && !server.has_output());
    // Another protocol than MQTT.
    let mut config = client(rustls::ALL_VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut pair = Pair::new(&layers, &Arc::new(config), "localhost");
    pair.talk(&[]);
    assert!(pair.fate.is_err() && pair.client.is_handshaking());
    // A handshake message that does not end.
    let mut server = Transport::new(&layers).unwrap();
    let mut fault = None;
    for _ in 0..4 {
        let mut record = vec![22, 3, 3, 0x40, 0];
        record.resize(5 + 0x4000, 0);
        // A ClientHello of 60,000 bytes.
        record[5..9].copy_from_slice(&[1, 0, 0xea, 0x60]);
        fault = fault.or(server.receive(&record, &mut scratch, &mut plain).err());
    }
    assert!(fault.is_some(), "more than {TLS_HANDSHAKE_BYTES_MAX} bytes");
}

#[test]
fn a_step_is_due_with_a_whole_record_or_with_what_is_none() {
    let layers = tls();
    let held = |bytes: &[u8]| {
        let mut server = Transport::new(&layers).unwrap();
        server.hold(bytes);
        server
    };
    let hello = hello();
    for cut in 0..hello.len() {
        let server = held(&hello[..cut]);
        assert!(!server.is_step_due(), "{cut} of {}", hello.len());
        assert!(server.bytes() < 2_048 + hello.len(), "{cut}: rustls has not begun");
    }
    for due in [&hello[..], b"GET /", b"\x10", b"\x16\x02", b"\x16\x03\x01\xff\xff", b"\x80\x2e"] {
        assert!(held(due).is_step_due(), "{due:x?}");
    }
    let stepped = held(&hello).step(&mut Scratch::default());
    assert_eq!((stepped.fate, stepped.plain.len()), (Ok(Fate::Open), 0));
    assert!(stepped.transport.has_output() && !stepped.transport.is_step_due());
    let stepped = held(b"GET / HTTP/1.1\r\n").step(&mut Scratch::default());
    assert!(stepped.fate.is_err() && stepped.transport.has_output(), "an alert");
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let authority = Authority::new("authority");
    let (first, second) =
        (authority.sign("a", &["a.example"], 1), authority.sign("b", &["b.example", "*.c.example"], 2));
    let layers =
        layers(&TlsFiles { certificates: vec![first.clone(), second.clone()], ..TlsFiles::default() });
    let config = Arc::new(client(rustls::ALL_VERSIONS));
    let cases = [
        ("a.example", &first),
        ("B.example", &second),
        ("x.c.example", &second),
        ("x.y.c.example", &first),
        ("c.example", &first),
        ("127.0.0.1", &first),
    ];
    for (name, expected) in cases {
        let mut pair = Pair::new(&layers, &config, name);
        pair.talk(&[]);
        assert!(pair.shown() == der(&expected.0), "{name}");
    }
}

#[test]
fn a_client_comes_back_with_its_ticket() {
    let files = TlsFiles {
        certificates: vec![Authority::new("authority").sign("a", &["localhost"], 1)],
        ..TlsFiles::default()
    };
    let layers = layers(&files);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(client(&[version]));
        let kinds = [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed];
        for kind in kinds {
            let mut pair = Pair::new(&layers, &config, "localhost");
            pair.talk(b"x");
            assert_eq!(pair.client.handshake_kind(), Some(kind), "{version:?}");
        }
    }
}

#[test]
fn certificates_of_clients_are_checked_and_name_them() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let mut files = TlsFiles {
        certificates: vec![ours.sign("server", &["localhost"], 1)],
        authorities: vec![text("ca.pem", &ours.pem)],
        clients: ClientCertificates::Required,
        username: NameFrom::Cn,
        client_id: NameFrom::San,
        ..TlsFiles::default()
    };
    let good = ours.sign("somebody", &["device-7"], 2);
    let revoked = ours.sign("nobody", &["device-8"], 3);
    let foreign = theirs.sign("stranger", &["device-9"], 4);
    let nameless = ours.sign("", &["device-10"], 5);
    let names = |files: &TlsFiles, config: &Arc<ClientConfig>| {
        let mut pair = Pair::new(&layers(files), config, "localhost");
        pair.talk(&[]);
        let names = pair.server.names().cloned();
        pair.fate.map(|_| names)
    };
    let somebody = PeerNames { username: Some("somebody".into()), client_id: Some("device-7".into()) };
    assert_eq!(names(&files, &client_with(&good)), Ok(Some(somebody)));
    let nobody = Arc::new(client(rustls::ALL_VERSIONS));
    assert!(names(&files, &nobody).is_err());
    assert!(names(&files, &client_with(&foreign)).is_err());
    assert!(names(&files, &client_with(&nameless)).is_err(), "no name, no entry");
    assert!(names(&files, &client_with(&revoked)).is_ok());
    files.revoked = vec![ours.revoke(3)];
    assert!(names(&files, &client_with(&revoked)).is_err());
    assert!(names(&files, &client_with(&good)).is_ok());
    (files.username, files.client_id) = (NameFrom::Dn, NameFrom::Off);
    let whole = PeerNames { username: Some("CN=somebody".into()), client_id: None };
    assert_eq!(names(&files, &client_with(&good)), Ok(Some(whole)));
    files.clients = ClientCertificates::Optional;
    assert_eq!(names(&files, &nobody), Ok(None));
    assert!(names(&files, &client_with(&foreign)).is_err(), "one that is shown must be good");
}

#[test]
fn faults_in_files_name_the_file_the_line_and_what_was_expected() {
    let authority = Authority::new("authority");
    let (chain, key) = authority.sign("a", &["localhost"], 1);
    let other = authority.sign("b", &["localhost"], 2).1;
    let pem = String::from_utf8(chain.bytes.clone()).unwrap();
    let says = |chain: &Text, key: &Text| {
        let certificates = vec![(chain.clone(), key.clone())];
        TlsTerms::new(&TlsFiles { certificates, ..TlsFiles::default() }).unwrap_err()
    };
    let in_chain = |pem: &str| says(&text("chain.pem", pem), &key);
    let cases = [
        (in_chain(""), "chain.pem: expected a certificate in PEM, got none"),
        (
            in_chain(&format!("\n{}", &pem[..200])),
            "chain.pem:2: expected -----END CERTIFICATE-----, got the end",
        ),
        (in_chain(&pem.replace("END CERT", "END KEY")), "expected -----END CERTIFICATE-----, for line 1"),
        (in_chain(&pem.replace("MII", "!!!")), "chain.pem:1: expected CERTIFICATE in base64"),
        (in_chain(&format!("{pem}{}", pem.replace("MII", "MIA"))), ": expected an X.509 certificate"),
        (
            in_chain(&format!("-----BEGIN CERTIFICATE-----\n{pem}")),
            "chain.pem:2: expected the end of the section",
        ),
        (says(&chain, &text("key.pem", &pem)), "key.pem: expected a private key in PEM, got none"),
        (says(&chain, &other), "key.pem:1: expected the key of the certificate in chain.pem:1, got another"),
        (
            says(
                &chain,
                &text(
                    "key.pem",
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
                ),
            ),
            "key.pem:1: expected a private key without a passphrase",
        ),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "{said}\n{expected}");
    }
    let lines = pem.lines().count();
    let said = in_chain(&format!("{pem}{}", pem.replace("MII", "MIA")));
    assert!(said.starts_with(&format!("chain.pem:{}: ", lines + 1)), "{said}");
    let files = TlsFiles {
        certificates: vec![(chain, key)],
        clients: ClientCertificates::Required,
        ..TlsFiles::default()
    };
    assert!(TlsTerms::new(&files).unwrap_err().contains("authorities, got none"));
}
