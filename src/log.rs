//! The log: lines by `tracing`, as text or JSON, to standard error or to a rotated file.
//!
//! A thread of its own writes them, so that no shard waits for a disk or a terminal; when it falls behind,
//! lines are dropped and counted. Use [`crate::rate::RateLimit`] in front of lines that a peer can cause.

use crate::limits::LOG_LINES_QUEUED_MAX;
use std::path::{Path, PathBuf};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::RollingFileAppender;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

/// How important a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// Something failed that somebody should look at.
    Error,
    /// Something works in a worse way than it could.
    Warn,
    /// What the broker does as a whole.
    #[default]
    Info,
    /// What it does with a client.
    Debug,
    /// What it does with a packet.
    Trace,
}

impl Level {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Level)] = &[
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];

    fn filter(self) -> LevelFilter {
        match self {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Format)] = &[("text", Format::Text), ("json", Format::Json)];
}

/// When a new file is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rotation {
    /// At midnight, UTC.
    #[default]
    Daily,
    /// At each full hour.
    Hourly,
    /// Never; the file keeps its name.
    Never,
}

impl Rotation {
    /// Each value with its name in a configuration.
    pub const NAMES: &[(&'static str, Rotation)] =
        &[("daily", Rotation::Daily), ("hourly", Rotation::Hourly), ("never", Rotation::Never)];
}

/// Where the log goes and what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// The least important lines that are written.
    pub level: Level,
    /// How.
    pub format: Format,
    /// The file, `None` = standard error.
    pub file: Option<PathBuf>,
    /// When a new one is begun.
    pub rotation: Rotation,
    /// How many files are kept, 0 = all.
    pub keep_files: u32,
    /// Lines about clients per second and shard.
    pub shard_lines_per_s: u32,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            level: Level::default(),
            format: Format::default(),
            file: None,
            rotation: Rotation::default(),
            keep_files: 7,
            shard_lines_per_s: 100,
        }
    }
}

/// The running log of this process. Dropping it writes what is queued.
#[derive(Debug)]
pub struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Log {
    /// Starts the log of the process; once.
    ///
    /// # Errors
    /// One line that says why the file cannot be written, and what to do.
    pub fn start(options: &LogOptions) -> Result<Log, String> {
        let builder = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LOG_LINES_QUEUED_MAX)
            .thread_name("log");
        let (writer, guard) = match &options.file {
            Some(path) => builder.finish(open(path, options)?),
            None => builder.finish(std::io::stderr()),
        };
        let dropped = writer.error_counter();
        let (filter, level) = reload::Layer::new(options.level.filter());
        let lines = fmt::layer().with_ansi(false).with_writer(writer);
        let lines = match options.format {
            Format::Text => lines.boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        let subscriber = Registry::default().with(filter).with(lines);
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_| "the log of this process was started before".to_owned())?;
        Ok(Log { level, dropped, _writer: guard })
    }

    /// Changes the level from now on.
    pub fn set_level(&self, level: Level) {
        if let Err(error) = self.level.reload(level.filter()) {
            tracing::error!(%error, "the level of the log cannot be changed; restart to change it");
        }
    }

    /// Lines that were dropped because the writer fell behind.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

fn open(path: &Path, options: &LogOptions) -> Result<RollingFileAppender, String> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name =
        name.ok_or_else(|| format!("log.file: expected the path of a file, got {}", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = RollingFileAppender::builder().filename_prefix(name).rotation(match options.rotation {
        Rotation::Daily => tracing_appender::rolling::Rotation::DAILY,
        Rotation::Hourly => tracing_appender::rolling::Rotation::HOURLY,
        Rotation::Never => tracing_appender::rolling::Rotation::NEVER,
    });
    if options.keep_files > 0 && options.rotation != Rotation::Never {
        builder = builder.max_log_files(options.keep_files as usize);
    }
    let fault = |cause: String| {
        let todo = "make its folder writable, or choose another with --set log.file=FILE";
        format!("cannot write the log to {}: {cause}; {todo}", path.display())
    };
    std::fs::create_dir_all(folder).map_err(|error| fault(error.to_string()))?;
    builder.build(folder).map_err(|error| {
        fault(std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string))
    })
}
