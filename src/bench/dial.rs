//! How clients reach the broker: options of TLS and WebSocket → layers of transport.

use crate::transport::{DialFiles, DialLayers, DialTls, DialVersion, DialWebSocket, Text};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep the authorities that everybody trusts.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another such file, as for OpenSSL.
const AUTHORITIES_VARIABLE: &str = "SSL_CERT_FILE";

/// What MQTT is carried by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Protocol {
    /// TCP.
    #[value(alias = "tcp")]
    Mqtt,
    /// TLS.
    #[value(alias = "tls")]
    Mqtts,
    /// WebSocket.
    Ws,
    /// WebSocket in TLS.
    Wss,
}

impl Protocol {
    /// Whether it has TLS.
    pub fn has_tls(self) -> bool {
        matches!(self, Protocol::Mqtts | Protocol::Wss)
    }

    /// Whether it has WebSocket.
    pub fn has_websocket(self) -> bool {
        matches!(self, Protocol::Ws | Protocol::Wss)
    }

    /// The kind of a listener that speaks it.
    pub fn kind(self) -> &'static str {
        match self {
            Protocol::Mqtt => "tcp",
            Protocol::Mqtts => "tls",
            Protocol::Ws => "ws",
            Protocol::Wss => "wss",
        }
    }

    /// Its usual port.
    pub fn port(self) -> u16 {
        match self {
            Protocol::Mqtt => 1883,
            Protocol::Mqtts => 8883,
            Protocol::Ws => 8083,
            Protocol::Wss => 8084,
        }
    }
}

/// TLS and WebSocket, named as in emqtt-bench, mqttx bench and mosquitto_pub where they have them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS and WebSocket")]
pub struct DialArgs {
    /// TLS; together with --ws: WebSocket in TLS.
    #[arg(short = 'S', long, visible_alias = "tls")]
    pub ssl: bool,
    /// WebSocket.
    #[arg(long)]
    pub ws: bool,
    /// Another way to say --ssl and --ws.
    #[arg(short = 'l', long, value_enum, conflicts_with_all = ["ssl", "ws"])]
    pub protocol: Option<Protocol>,
    /// The path of WebSocket.
    #[arg(long, default_value = "/mqtt")]
    pub path: String,
    /// Authorities of the broker's certificate, or this certificate itself, in PEM [those that this system trusts].
    #[arg(long, visible_aliases = ["cacertfile", "ca"], value_name = "FILE", conflicts_with = "insecure")]
    pub cafile: Option<PathBuf>,
    /// Takes any certificate of the broker.
    #[arg(long)]
    pub insecure: bool,
    /// The clients' certificate, with those between it and its authority, in PEM.
    #[arg(long, visible_alias = "certfile", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, visible_alias = "keyfile", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The name that the broker is asked for and that its certificate must have [that of --host].
    #[arg(long, visible_alias = "servername", value_name = "NAME")]
    pub sni: Option<String>,
    /// Protocols that are named to the broker (ALPN).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub alpn: Vec<String>,
    /// The only version of TLS: 1.2 or 1.3 [both].
    #[arg(long, visible_alias = "ssl-version", value_name = "VERSION", value_parser = ["1.2", "1.3", "tlsv1.2", "tlsv1.3"])]
    pub tls_version: Option<String>,
    /// Clients that come back resume their session of TLS.
    #[arg(long)]
    pub tls_resume: bool,
}

impl DialArgs {
    /// What MQTT is carried by.
    pub fn kind(&self) -> Protocol {
        self.protocol.unwrap_or(match (self.ssl, self.ws) {
            (false, false) => Protocol::Mqtt,
            (true, false) => Protocol::Mqtts,
            (false, true) => Protocol::Ws,
            (true, true) => Protocol::Wss,
        })
    }

    /// The broker is one that this process has started: whoever looks at its certificate has said so.
    pub fn trust_own(&mut self) {
        self.insecure |= self.kind().has_tls() && self.cafile.is_none();
    }

    /// The layers of connections to each of these hosts, which have a port; none where MQTT is on the socket itself.
    ///
    /// # Errors
    /// The option or the file, what was expected and what to do.
    pub fn layers(&self, hosts: &[String]) -> Result<Vec<DialLayers>, String> {
        let kind = self.kind();
        self.check(kind)?;
        if kind == Protocol::Mqtt {
            return Ok(Vec::new());
        }
        let files = kind.has_tls().then(|| self.files()).transpose()?;
        let layers = |host: &String| {
            let name = host.rsplit_once(':').map_or(&**host, |(name, _)| name);
            let name = self.sni.as_deref().unwrap_or(name);
            let tls = files.as_ref().map(|files| DialTls::new(files, name)).transpose()?;
            let ask = || Arc::new(DialWebSocket { host: host.clone(), path: self.path.clone() });
            Ok(DialLayers { tls, websocket: kind.has_websocket().then(ask) })
        };
        hosts.iter().map(layers).collect()
    }

    /// What would do nothing is refused.
    fn check(&self, kind: Protocol) -> Result<(), String> {
        let only_tls = [
            ("--cafile", self.cafile.is_some()),
            ("--insecure", self.insecure),
            ("--cert", self.cert.is_some()),
            ("--sni", self.sni.is_some()),
            ("--alpn", !self.alpn.is_empty()),
            ("--tls-version", self.tls_version.is_some()),
            ("--tls-resume", self.tls_resume),
        ];
        match only_tls.iter().find(|(_, given)| *given) {
            Some((option, _)) if !kind.has_tls() => {
                return Err(format!("{option}: only with TLS (--ssl)"));
            }
            _ => {}
        }
        if !kind.has_websocket() && self.path != "/mqtt" {
            return Err("--path: only with WebSocket (--ws)".to_owned());
        }
        let plain = |c: char| c.is_ascii_graphic();
        if !self.path.starts_with('/') || !self.path.chars().all(plain) {
            return Err(format!(
                "--path: expected / and then letters of a URL, got {}",
                self.path.escape_default()
            ));
        }
        Ok(())
    }

    fn files(&self) -> Result<DialFiles, String> {
        let pair = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read("--cert", cert)?, read("--key", key)?)),
            _ => None,
        };
        Ok(DialFiles {
            authorities: if self.insecure { Vec::new() } else { vec![self.authorities()?] },
            insecure: self.insecure,
            shown: pair,
            alpn: self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            version: self.tls_version.as_deref().map(|version| match version.trim_start_matches("tlsv") {
                "1.2" => DialVersion::Tls12,
                _ => DialVersion::Tls13,
            }),
            resumes: self.tls_resume,
        })
    }

    fn authorities(&self) -> Result<Text, String> {
        if let Some(file) = &self.cafile {
            return read("--cafile", file);
        }
        if let Some(file) = std::env::var_os(AUTHORITIES_VARIABLE) {
            return read(AUTHORITIES_VARIABLE, Path::new(&file));
        }
        let file = AUTHORITIES.iter().map(Path::new).find(|file| file.exists()).ok_or(
            "this system has no file of authorities that is known; name one with --cafile, or take any certificate with \
             --insecure",
        )?;
        read("the system's authorities", file)
    }
}

fn read(option: &str, file: &Path) -> Result<Text, String> {
    let bytes = fs::read(file).map_err(|e| format!("{option}: cannot read {}: {e}", file.display()))?;
    Ok(Text { name: file.display().to_string(), bytes })
}
