//! PEM: from the text of a file to its sections, each with the line where it begins.

use rustls::pki_types::pem::{PemObject, SectionKind};

/// The text of a file, and the name by which errors call it.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its path.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// One section.
pub(super) struct Section {
    pub line: usize,
    pub kind: SectionKind,
    pub der: Vec<u8>,
}

impl Text {
    /// Where a section begins, for an error.
    pub(super) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }

    /// Its sections of kinds that mean something here; others, such as parameters of curves, are passed over.
    pub(super) fn sections(&self) -> Result<Vec<Section>, String> {
        let mut sections = Vec::new();
        let mut open: Option<(usize, usize, &[u8])> = None;
        let mut offset = 0;
        for (index, whole) in self.bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            let (line, start) = (index + 1, offset);
            offset += whole.len();
            let text = whole.trim_ascii();
            if let Some(label) = label(text, b"-----BEGIN ") {
                if let Some((begun, ..)) = open {
                    let what = format!("expected the end of the section of line {begun}, got a second begin");
                    return Err(format!("{}: {what}", self.at(line)));
                }
                open = Some((line, start, label));
            } else if let Some(end) = label(text, b"-----END ") {
                let Some((begun, from, begin)) = open.take() else {
                    return Err(format!("{}: expected -----BEGIN in front of -----END", self.at(line)));
                };
                let name = String::from_utf8_lossy(begin);
                if end != begin {
                    let what = format!("expected -----END {name}-----, for line {begun} begins it");
                    return Err(format!("{}: {what}", self.at(line)));
                }
                if begin == b"ENCRYPTED PRIVATE KEY" {
                    let what = "expected a private key without a passphrase; `openssl pkey -in FILE -out NEW` \
                                removes it";
                    return Err(format!("{}: {what}", self.at(begun)));
                }
                let section = <(SectionKind, Vec<u8>)>::pem_slice_iter(&self.bytes[from..offset]).next();
                match section {
                    Some(Ok((kind, der))) => sections.push(Section { line: begun, kind, der }),
                    Some(Err(_)) => {
                        let what = format!("expected {name} in base64, got something else");
                        return Err(format!("{}: {what}", self.at(begun)));
                    }
                    // A kind of no interest.
                    None => {}
                }
            }
        }
        match open {
            Some((begun, _, label)) => {
                let label = String::from_utf8_lossy(label);
                let what = format!("expected -----END {label}-----, got the end of the file");
                Err(format!("{}: {what}", self.at(begun)))
            }
            None => Ok(sections),
        }
    }
}

fn label<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(b"-----")
}
