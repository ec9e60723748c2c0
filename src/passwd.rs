//! `ringmq passwd`: maintains a password file, beside a broker that runs or not.

use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use ringmq::auth::hash::hash;
use ringmq::auth::passwords::{Passwords, edited};
use ringmq::auth::scram::Verifier;
use ringmq::limits::{AUTH_PBKDF2_ROUNDS_MAX, SCRAM_ROUNDS_MIN};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct PasswdArgs {
    /// The password file; it is made where it is not there.
    file: PathBuf,
    /// The user or, in a file for `auth.client_id_file`, the client identifier; its password is the first line of the input.
    user: String,
    /// Takes the user out.
    #[arg(long, short = 'D')]
    delete: bool,
    /// Keeps a verifier of SCRAM-SHA-256 instead of a hash of Argon2, for clients that authenticate by it.
    #[arg(long, conflicts_with = "delete")]
    scram: bool,
    /// Rounds of that verifier, which each login costs the client.
    #[arg(long, requires = "scram", default_value_t = SCRAM_ROUNDS_MIN)]
    rounds: u32,
}

/// Does it, and says what was done.
///
/// # Errors
/// What could not be done, in one line; the file is then as it was.
pub fn passwd(arguments: &PasswdArgs) -> Result<String, String> {
    let PasswdArgs { file, user, delete, scram, rounds } = arguments;
    let fault = |what: String| format!("{}: {what}", file.display());
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !delete => String::new(),
        Err(error) => return Err(fault(format!("cannot be read: {error}"))),
    };
    // A file that is wrong is not made longer.
    Passwords::read(text.clone()).map_err(fault)?;
    // The name is looked at before anybody is asked for a password.
    edited(&text, user, None)?;
    let new = match (delete, scram) {
        (true, _) => None,
        (false, false) => Some(hash(password_from_input()?.as_bytes())?),
        (false, true) => Some(verifier(password_from_input()?.as_bytes(), *rounds)?),
    };
    let (text, known) = edited(&text, user, new.as_deref())?;
    let done = match (delete, known) {
        (true, false) => return Err(fault(format!("there is no user {user:?}"))),
        (true, true) => "taken out of",
        (false, true) => "has another password in",
        (false, false) => "added to",
    };
    replace(file, &text).map_err(|error| fault(format!("cannot be written: {error}")))?;
    Ok(format!("{user} {done} {}; a broker that runs reads it again on SIGHUP", file.display()))
}

/// A verifier of SCRAM for a password, with a salt of its own.
fn verifier(password: &[u8], rounds: u32) -> Result<String, String> {
    let expected = || format!("expected {SCRAM_ROUNDS_MIN} to {AUTH_PBKDF2_ROUNDS_MAX} rounds, got {rounds}");
    let fits = (SCRAM_ROUNDS_MIN..=AUTH_PBKDF2_ROUNDS_MAX).contains(&rounds);
    let rounds = NonZeroU32::new(rounds).filter(|_| fits).ok_or_else(expected)?;
    let mut salt = [0; 16];
    let drawn = SystemRandom::new().fill(&mut salt);
    drawn.map_err(|_| "the kernel gives no random bytes".to_owned())?;
    Ok(Verifier::of(password, &salt, rounds).show())
}

/// Reads a password: the first line of the input; only its end of line does not count.
///
/// # Errors
/// Why there is none, in one line.
pub fn password_from_input() -> Result<String, String> {
    if io::stdin().is_terminal() {
        eprint!("password (it is shown): ");
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| format!("the password cannot be read: {error}"))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("expected a password as the first line of the input, got an empty one".to_owned());
    }
    Ok(password.to_owned())
}

/// Puts a text in a file's place in one step, for its owner and group as before; a new file is its owner's alone.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    // Where it is a link, what it points to is replaced.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    if let Ok(old) = fs::metadata(&file) {
        written.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
        let ours = written.metadata()?;
        if (old.uid(), old.gid()) != (ours.uid(), ours.gid()) {
            chown(&new, Some(old.uid()), Some(old.gid()))?;
        }
    }
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, &file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
