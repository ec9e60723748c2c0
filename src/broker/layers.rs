//! TLS and WebSocket of the listeners: reads their files, and sees when one has changed.

use crate::limits::TLS_FILE_BYTES_MAX;
use crate::listener::{Listener, TlsOptions, TlsVersion};
use crate::transport::{Layers, Text, TlsFiles, TlsTerms, WebSocketTerms};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What is agreed upon by ALPN: MQTT itself, or the HTTP of an upgrade request.
const ALPN_MQTT: &[u8] = b"mqtt";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// The layers of all listeners, by number.
///
/// # Errors
/// One line: the listener, the file and its line, and what was expected.
pub(super) fn layers(listeners: &[Listener]) -> Result<Vec<Layers>, String> {
    let one = |listener: &Listener| {
        let websocket = listener.kind.has_websocket().then(|| {
            let options = &listener.websocket;
            Arc::new(WebSocketTerms {
                path: options.path.to_string(),
                origins: options.origins.clone(),
                frame_bytes_max: options.frame_bytes_max,
                forwarded: listener.x_forwarded_for,
            })
        });
        let alpn = if websocket.is_some() { ALPN_HTTP } else { ALPN_MQTT };
        let tls = listener.kind.has_tls().then(|| terms(&listener.tls, alpn)).transpose();
        let tls = tls.map_err(|what| format!("listeners.{}: {what}", listener.name))?;
        if let Some((ends, file)) = tls.as_ref().map(|tls| tls.ends()) {
            let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs() as i64);
            if ends < now {
                tracing::warn!("listeners.{}: the certificate in {file} has expired", listener.name);
            }
        }
        Ok(Layers { tls: tls.map(Arc::new), websocket })
    };
    listeners.iter().map(one).collect()
}

fn terms(options: &TlsOptions, alpn: &[u8]) -> Result<TlsTerms, String> {
    let all = |paths: &[PathBuf]| paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>();
    TlsTerms::new(&TlsFiles {
        certificates: all(&options.certificates)?.into_iter().zip(all(&options.keys)?).collect(),
        authorities: all(&options.authorities)?,
        revoked: all(&options.revoked)?,
        clients: options.clients,
        alpn: vec![alpn.to_vec()],
        only_13: options.version_min == TlsVersion::V13,
        username: options.username,
        client_id: options.client_id,
    })
}

fn read(path: &Path) -> Result<Text, String> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let limit = TLS_FILE_BYTES_MAX as u64;
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{name}: expected a file that can be read: {error}"))?;
    if bytes.len() > TLS_FILE_BYTES_MAX {
        return Err(format!("{name}: expected at most {limit} bytes"));
    }
    Ok(Text { name, bytes })
}

/// The files of all listeners as they were seen last.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

/// What changes when a file does: when it was written, its length, its inode.
type Stamp = (i64, i64, u64, u64);

impl Watch {
    /// Those of these listeners as they are now.
    pub(super) fn new(listeners: &[Listener]) -> Watch {
        let listeners = listeners.iter().filter(|listener| listener.kind.has_tls());
        let files = listeners.flat_map(|listener| listener.tls.files());
        Watch { seen: files.map(|path| (path.clone(), stamp(path))).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Files that have changed since the last time.
    pub fn changed(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, seen) in &mut self.seen {
            let now = stamp(path);
            if *seen != now {
                *seen = now;
                changed.push(path.clone());
            }
        }
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    Some((about.mtime(), about.mtime_nsec(), about.len(), about.ino()))
}
