//! `ringmq passwd`: maintains a password file, beside a broker that runs or not.

use clap::Args;
use ringmq::auth::hash::hash;
use ringmq::auth::passwords::{Passwords, edited};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct PasswdArgs {
    /// The password file; it is made where it is not there.
    file: PathBuf,
    /// The user, whose password is the first line of the input.
    user: String,
    /// Takes the user out.
    #[arg(long, short = 'D')]
    delete: bool,
}

/// Does it, and says what was done.
///
/// # Errors
/// What could not be done, in one line; the file is then as it was.
pub fn passwd(arguments: &PasswdArgs) -> Result<String, String> {
    let PasswdArgs { file, user, delete } = arguments;
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
    let new = if *delete { None } else { Some(hash(password_from_input()?.as_bytes())?) };
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
