//! The client's side against the broker's, and what is told of servers that are wrong.

use super::*;

/// Both ends.
struct Ends {
    client: Transport,
    server: Box<Transport>,
    scratch: Scratch,
    /// What each got.
    up: Vec<u8>,
    down: Vec<u8>,
    /// How each sees it.
    fates: [Result<Fate, Fault>; 2],
    /// Bytes that each gets at a time.
    step: usize,
}

impl Ends {
    fn new(server: &Layers, client: &DialLayers) -> Ends {
        Ends {
            client: Transport::dial(client, 7).unwrap(),
            server: Transport::new(server).unwrap(),
            scratch: Scratch::default(),
            up: Vec::new(),
            down: Vec::new(),
            fates: [Ok(Fate::Open), Ok(Fate::Open)],
            step: usize::MAX,
        }
    }

    fn is_open(&self) -> bool {
        self.client.expects().is_none() && self.server.expects().is_none()
    }

    /// Carries bytes until nobody has anything to say; each end says its text once it can.
    fn talk(&mut self, mut up: &[u8], mut down: &[u8]) {
        let step = self.step;
        loop {
            let said = if self.client.expects().is_none() { std::mem::take(&mut up) } else { &[] };
            let (scratch, fates) = (&mut self.scratch, &mut self.fates);
            let spoke =
                carry(said, &mut self.client, &mut self.server, scratch, &mut self.up, &mut fates[1], step);
            let said = if self.server.expects().is_none() { std::mem::take(&mut down) } else { &[] };
            let answered =
                carry(said, &mut self.server, &mut self.client, scratch, &mut self.down, &mut fates[0], step);
            if !spoke && !answered {
                return;
            }
        }
    }

    /// What the client says of a server that is wrong.
    fn fault(mut self) -> String {
        self.talk(b"never", b"never");
        assert!(self.up.is_empty() && self.down.is_empty());
        assert!(self.fates[1].is_err() || self.fates[0].is_err(), "each hears of it");
        self.fates[0].clone().unwrap_err().text
    }
}

/// Carries what one end says to the other; whether it said anything.
fn carry(
    said: &[u8],
    from: &mut Transport,
    to: &mut Transport,
    scratch: &mut Scratch,
    got: &mut Vec<u8>,
    fate: &mut Result<Fate, Fault>,
    step: usize,
) -> bool {
    let mut wire = Vec::new();
    if from.has_output() || !said.is_empty() {
        from.seal(said, scratch, &mut wire);
    }
    for part in wire.chunks(step.min(wire.len().max(1))) {
        let now = to.receive(part, scratch, got);
        if *fate == Ok(Fate::Open) {
            *fate = now;
        }
    }
    !wire.is_empty()
}

/// What each of the three kinds is made of, in one version of TLS where it has it.
fn kinds(authority: &Authority, version: DialVersion) -> [(Layers, DialLayers); 3] {
    let certificates = vec![authority.sign("a", &["localhost"], 1)];
    let tls = layers(&TlsFiles { certificates, alpn: vec![b"mqtt".to_vec()], ..TlsFiles::default() });
    let files = DialFiles {
        authorities: vec![text("ca.pem", &authority.pem)],
        alpn: vec![b"mqtt".to_vec()],
        version: Some(version),
        ..DialFiles::default()
    };
    let dial = DialLayers { tls: Some(DialTls::new(&files, "localhost").unwrap()), websocket: None };
    let (websocket, dial_websocket) = (Some(Arc::new(terms())), Some(Arc::new(request("/mqtt"))));
    let wss = Layers { websocket: websocket.clone(), ..tls.clone() };
    let dial_wss = DialLayers { websocket: dial_websocket.clone(), ..dial.clone() };
    let ws = Layers { tls: None, websocket };
    [(tls, dial), (ws, DialLayers { tls: None, websocket: dial_websocket }), (wss, dial_wss)]
}

fn terms() -> WebSocketTerms {
    WebSocketTerms {
        path: "/mqtt".to_owned(),
        origins: Vec::new(),
        frame_bytes_max: 1 << 20,
        forwarded: false,
    }
}

fn request(path: &str) -> DialWebSocket {
    DialWebSocket { host: "localhost:1".to_owned(), path: path.to_owned() }
}

fn dial(files: &DialFiles, name: &str) -> DialLayers {
    DialLayers { tls: Some(DialTls::new(files, name).unwrap()), websocket: None }
}

#[test]
fn both_ends_understand_each_other_in_pieces_of_any_size() {
    let authority = Authority::new("authority");
    let up: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let down: Vec<u8> = (0..70_000u32).map(|n| (n * 7) as u8).collect();
    for version in [DialVersion::Tls12, DialVersion::Tls13] {
        for (at, (server, client)) in kinds(&authority, version).iter().enumerate() {
            for step in [1, 7, 1_000, usize::MAX] {
                let mut ends = Ends::new(server, client);
                ends.step = step;
                ends.talk(b"CONNECT", b"");
                assert!(ends.is_open() && ends.up == b"CONNECT", "{version:?} {at} {step}: {:?}", ends.fates);
                ends.up.clear();
                ends.talk(&up, &down);
                assert!(ends.up == up && ends.down == down, "{version:?} {at} {step}");
                let held = ends.client.bytes();
                assert!(held < 8_192, "an idle connection holds no buffer: {held}");
                assert!(!ends.client.is_resumed());
                ends.client.close(CloseCode::Normal);
                ends.talk(b"last", b"");
                assert!(ends.up.ends_with(b"last"));
                assert_eq!(ends.fates[1], Ok(Fate::Ended), "the broker hears of the end");
                assert!(!ends.client.has_output());
            }
        }
    }
}

#[test]
fn a_certificate_that_is_not_right_is_described() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let trusting = |pem: &str| DialFiles { authorities: vec![text("ca.pem", pem)], ..DialFiles::default() };
    let serving = |certificate| layers(&TlsFiles { certificates: vec![certificate], ..TlsFiles::default() });
    let good = ours.sign("a", &["a.example", "b.example"], 1);
    let files = trusting(&ours.pem);
    let fault = |server: &Layers, files: &DialFiles, name| Ends::new(server, &dial(files, name)).fault();
    let server = serving(good.clone());
    assert_eq!(
        fault(&server, &files, "c.example"),
        "TLS: expected a certificate for c.example, got one for a.example, b.example (CN=a)"
    );
    assert_eq!(
        fault(&server, &trusting(&theirs.pem), "a.example"),
        "TLS: expected a certificate by an authority in ca.pem, got one by CN=ours (CN=a)"
    );
    for (year, word) in [(1999, "ended"), (2998, "begins")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.not_after = rcgen::date_time_ymd(year + 1, 1, 1);
        let signed = params.signed_by(&key, &ours.issuer).unwrap();
        let server = serving((text("chain.pem", &signed.pem()), text("key.pem", &key.serialize_pem())));
        let told = fault(&server, &files, "a.example");
        assert!(
            told.starts_with(&format!("TLS: expected a certificate of today, got one that {word}")),
            "{told}"
        );
    }
    // Whoever does not look takes it all.
    let mut ends =
        Ends::new(&server, &dial(&DialFiles { insecure: true, ..DialFiles::default() }, "x.example"));
    ends.talk(b"up", b"down");
    assert_eq!((&*ends.up, &*ends.down), (&b"up"[..], &b"down"[..]));
}

/// As `openssl req -x509` makes them: signed by itself, and an authority.
#[test]
fn a_server_may_show_a_certificate_of_the_file_itself() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let (chain, key) = (text("chain.pem", &pem), text("key.pem", &key.serialize_pem()));
    let server = layers(&TlsFiles { certificates: vec![(chain.clone(), key)], ..TlsFiles::default() });
    let files = DialFiles { authorities: vec![chain], ..DialFiles::default() };
    let mut ends = Ends::new(&server, &dial(&files, "localhost"));
    ends.talk(b"up", b"");
    assert_eq!(ends.up, b"up");
    assert!(Ends::new(&server, &dial(&files, "other.example")).fault().contains("for other.example"));
    let others =
        DialFiles { authorities: vec![text("ca.pem", &Authority::new("other").pem)], ..DialFiles::default() };
    assert!(Ends::new(&server, &dial(&others, "localhost")).fault().contains("got one by itself"));
}

#[test]
fn a_client_shows_its_certificate_where_it_is_asked_for() {
    let authority = Authority::new("authority");
    let server = layers(&TlsFiles {
        certificates: vec![authority.sign("server", &["localhost"], 1)],
        authorities: vec![text("ca.pem", &authority.pem)],
        clients: ClientCertificates::Required,
        username: NameFrom::Cn,
        ..TlsFiles::default()
    });
    let mut files = DialFiles { authorities: vec![text("ca.pem", &authority.pem)], ..DialFiles::default() };
    let mut ends = Ends::new(&server, &dial(&files, "localhost"));
    // In 1.3 it learns of it once it believes that all is done.
    ends.talk(b"", b"");
    assert!(ends.fates[1].is_err());
    let told = ends.fates[0].clone().unwrap_err().text;
    assert_eq!(told, "TLS: the server expected a certificate of the client, got none");
    files.shown = Some(authority.sign("somebody", &["device-7"], 2));
    let mut ends = Ends::new(&server, &dial(&files, "localhost"));
    ends.talk(b"up", b"");
    assert_eq!(ends.up, b"up");
    assert_eq!(ends.server.names().and_then(|names| names.username.as_deref()), Some("somebody"));
    let (chain, _) = authority.sign("somebody", &["device-8"], 3);
    let (_, key) = authority.sign("somebody", &["device-9"], 4);
    files.shown = Some((chain, key));
    let told = DialTls::new(&files, "localhost").unwrap_err();
    assert!(told.starts_with("key.pem:1: expected the key of the certificate in chain.pem:1"), "{told}");
}

#[test]
fn a_server_that_speaks_another_protocol_says_so() {
    let authority = Authority::new("authority");
    for version in [DialVersion::Tls12, DialVersion::Tls13] {
        let [(server, _), ..] = kinds(&authority, version);
        let files = DialFiles {
            insecure: true,
            alpn: vec![b"h2".to_vec()],
            version: Some(version),
            ..DialFiles::default()
        };
        let told = Ends::new(&server, &dial(&files, "localhost")).fault();
        assert_eq!(told, "TLS: expected the server to go on, got the alert NoApplicationProtocol");
    }
}

#[test]
fn sessions_are_resumed_by_whoever_asks_for_it() {
    let authority = Authority::new("authority");
    let certificates = vec![authority.sign("a", &["localhost"], 1)];
    let server = layers(&TlsFiles { certificates, ..TlsFiles::default() });
    for version in [DialVersion::Tls12, DialVersion::Tls13] {
        for resumes in [false, true] {
            let authorities = vec![text("ca.pem", &authority.pem)];
            let version = Some(version);
            let files = DialFiles { authorities, version, resumes, ..DialFiles::default() };
            let all = dial(&files, "localhost");
            let one = if resumes { all.of_one() } else { all };
            let kinds = [(); 2].map(|()| {
                let mut ends = Ends::new(&server, &one);
                ends.talk(b"up", b"down");
                assert_eq!(ends.up, b"up");
                ends.client.is_resumed()
            });
            assert_eq!(kinds, [false, resumes], "{version:?}");
        }
    }
}

#[test]
fn an_answer_that_makes_no_websocket_is_described() {
    let good = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\n";
    let accept = |ends: &mut Ends| {
        let (mut request, mut plain, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        ends.client.seal(&[], &mut ends.scratch, &mut request);
        ends.server.receive(&request, &mut ends.scratch, &mut plain).unwrap();
        ends.server.seal(&[], &mut ends.scratch, &mut answer);
        let answer = String::from_utf8(answer).unwrap();
        answer.lines().find(|line| line.starts_with("Sec-WebSocket-Accept")).unwrap().to_owned() + "\r\n"
    };
    let server = Layers { tls: None, websocket: Some(Arc::new(terms())) };
    let client = DialLayers { tls: None, websocket: Some(Arc::new(request("/mqtt"))) };
    let told = |status: &str, change: &dyn Fn(String) -> String| {
        let mut ends = Ends::new(&server, &client);
        let headers = change(format!("{good}{}", accept(&mut ends)));
        let answer = format!("HTTP/1.1 {status}\r\n{headers}\r\n");
        let got = ends.client.receive(answer.as_bytes(), &mut ends.scratch, &mut ends.down);
        got.map_err(|fault| fault.text)
    };
    let switching = "101 Switching Protocols";
    let without = |name: &'static str| {
        move |all: String| {
            all.lines().filter(|l| !l.starts_with(name)).map(|l| l.to_owned() + "\r\n").collect()
        }
    };
    assert_eq!(told(switching, &|all| all), Ok(Fate::Open));
    for (name, expected) in [
        ("Upgrade", "WebSocket: expected the header Upgrade: websocket, got ``"),
        ("Connection", "WebSocket: expected the header Connection: Upgrade, got ``"),
        ("Sec-WebSocket-Protocol", "WebSocket: expected the header Sec-WebSocket-Protocol: mqtt, got ``"),
    ] {
        assert_eq!(told(switching, &without(name)).unwrap_err(), expected);
    }
    let forged = |all: String| all.replace("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x");
    assert!(told(switching, &forged).unwrap_err().contains("got `x"));
    assert!(told(switching, &without("Sec-WebSocket-Accept")).is_err());
    let extended = |all: String| all + "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    assert!(told(switching, &extended).unwrap_err().contains("no WebSocket extension"));
    // What the broker itself says of another path.
    let elsewhere = DialLayers { tls: None, websocket: Some(Arc::new(request("/other"))) };
    assert_eq!(
        Ends::new(&server, &elsewhere).fault(),
        "WebSocket: expected HTTP status 101, which makes it a WebSocket, got 404 Not Found: expected the path /mqtt"
    );
}

#[test]
fn a_server_does_not_mask_its_frames() {
    let server = Layers { tls: None, websocket: Some(Arc::new(terms())) };
    let client = DialLayers { tls: None, websocket: Some(Arc::new(request("/mqtt"))) };
    let mut ends = Ends::new(&server, &client);
    ends.talk(b"up", b"down");
    assert!(ends.is_open());
    let got = ends.client.receive(&[0x82, 0x81, 0, 0, 0, 0, b'x'], &mut ends.scratch, &mut ends.down);
    assert!(got.unwrap_err().text.contains("not to be masked"));
    ends.talk(b"", b"");
    assert_eq!(ends.fates[1], Ok(Fate::Ended), "the server is told why");
    // And pings are answered in kind: masked, or the broker would find fault.
    let mut ends = Ends::new(&server, &client);
    ends.talk(b"up", b"down");
    ends.client.receive(&[0x89, 2, b'h', b'i'], &mut ends.scratch, &mut ends.down).unwrap();
    assert!(ends.client.has_output());
    ends.talk(b"more", b"");
    assert_eq!((&*ends.up, &ends.fates[1]), (&b"upmore"[..], &Ok(Fate::Open)));
}
