//! How a client reaches the broker through each kind of listener.

use crate::common::{Ground, Socket, TIMEOUT, uptime};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

/// A folder with an authority, and a certificate for localhost with its key.
pub struct Files {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
}

impl Files {
    pub fn new() -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("ringmq-transport-{process}-{next}"));
        std::fs::create_dir_all(&folder).expect("a folder of one's own");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = params.self_signed(&key).unwrap();
        let (pem, authority) = (authority.pem(), authority.der().clone());
        let files = Files { folder, issuer: Issuer::new(params, key), authority };
        files.write("ca.pem", &pem);
        let (chain, key) = files.sign("server", "localhost");
        files.write("chain.pem", &chain);
        files.write("key.pem", &key);
        files
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Puts a file in its place in one step.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.folder.join("new");
        std::fs::write(&new, text).expect("a folder that can be written to");
        std::fs::rename(new, self.folder.join(name)).expect("a file that can be replaced");
    }

    /// A certificate of this authority, and its key.
    pub fn sign(&self, common: &str, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The configuration of a client that trusts the authority, and shows this if any.
    pub fn client(&self, shown: Option<&(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A listener, and what is spoken with it.
pub struct Way {
    pub addr: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    pub websocket: bool,
    pub path: &'static str,
    /// What stands before everything else.
    pub before: Vec<u8>,
    /// Whether that comes alone, or in one piece with what follows.
    pub alone: bool,
    /// Headers of the upgrade request.
    pub headers: Vec<(&'static str, String)>,
}

impl Way {
    pub fn new(addr: SocketAddr, kind: &str, files: &Files) -> Way {
        let tls = matches!(kind, "tls" | "wss").then(|| files.client(None));
        let websocket = kind.starts_with("ws");
        Way { addr, tls, websocket, path: "/mqtt", before: Vec::new(), alone: false, headers: Vec::new() }
    }

    pub fn connect(&self) -> io::Result<Through> {
        let tcp = TcpStream::connect(self.addr)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        let mut tcp = Front { tcp, before: self.before.clone() };
        if self.alone && !self.before.is_empty() {
            let _ = tcp.write(&[])?;
        }
        let mut stream = match &self.tls {
            None => Stream::Tcp(tcp),
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                let tls = ClientConnection::new(config.clone(), name).unwrap();
                Stream::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        };
        if !self.websocket {
            stream.flush()?;
            return Ok(Through::Stream(stream));
        }
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let uri = format!("{scheme}://localhost{}", self.path).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_sub_protocol("mqtt");
        let request = self
            .headers
            .iter()
            .fold(request, |request, (name, value)| request.with_header(*name, value.as_str()));
        let (socket, _) = tungstenite::client(request, stream).map_err(io::Error::other)?;
        Ok(Through::WebSocket(Box::new(socket)))
    }
}

impl Ground for Way {
    type Socket = Through;

    fn dial(&self) -> Through {
        self.connect().expect("the listener takes connections")
    }
}

/// A socket on which something is said first.
pub struct Front {
    tcp: TcpStream,
    before: Vec<u8>,
}

impl Read for Front {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buffer)
    }
}

impl Write for Front {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.before.is_empty() {
            return self.tcp.write(bytes);
        }
        let first = std::mem::take(&mut self.before);
        self.tcp.write_all(&[&first, bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// TCP or TLS.
pub enum Stream {
    Tcp(Front),
    Tls(Box<StreamOwned<ClientConnection, Front>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Tcp(front) => &front.tcp,
            Stream::Tls(tls) => &tls.sock.tcp,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// A connection through a listener.
pub enum Through {
    Stream(Stream),
    WebSocket(Box<WebSocket<Stream>>),
}

impl Through {
    fn tcp(&self) -> &TcpStream {
        match self {
            Through::Stream(stream) => stream.tcp(),
            Through::WebSocket(socket) => socket.get_ref().tcp(),
        }
    }

    /// The certificate that the broker showed.
    pub fn shown(&self) -> Vec<u8> {
        let stream = match self {
            Through::Stream(stream) => stream,
            Through::WebSocket(socket) => socket.get_ref(),
        };
        let Stream::Tls(tls) = stream else { panic!("no TLS") };
        tls.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.tcp())
    }
}

impl Socket for Through {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp().set_write_timeout(Some(TIMEOUT))?;
        match self {
            Through::Stream(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Through::WebSocket(socket) => {
                // Packets begin and end in the middle of frames.
                for part in bytes.chunks(bytes.len().div_ceil(3).max(1)) {
                    socket.send(Message::binary(part.to_vec())).map_err(io::Error::other)?;
                }
                socket.send(Message::Ping(Vec::new().into())).map_err(io::Error::other)
            }
        }
    }

    fn receive(&mut self, within: Duration) -> Option<Vec<u8>> {
        let within = within.max(Duration::from_millis(1));
        self.tcp().set_read_timeout(Some(within)).expect("a socket takes a timeout");
        let mut buffer = [0; 16_384];
        loop {
            let error = match self {
                Through::Stream(stream) => match stream.read(&mut buffer) {
                    Ok(len) => return Some(buffer[..len].to_vec()),
                    Err(error) => error,
                },
                Through::WebSocket(socket) => match socket.read() {
                    Ok(Message::Binary(bytes)) if bytes.is_empty() => continue,
                    Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
                    Ok(Message::Pong(_)) => continue,
                    Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => return Some(Vec::new()),
                    Ok(other) => panic!("a broker sends no {other:?}"),
                    Err(Error::Io(error)) => error,
                    Err(error) => panic!("cannot receive: {error}"),
                },
            };
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Some(Vec::new()),
                _ => panic!("cannot receive: {error}"),
            }
        }
    }

    fn end_sending(&mut self) {
        let _ = self.tcp().shutdown(Shutdown::Write);
    }

    fn now(&self) -> Duration {
        uptime()
    }
}
