//! A knob: what it is called, how it is read, what it should be, and why.

use super::demand::Demand;
use super::host::{Host, sysctl_path};

/// How bad a value is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As it should be, or without effect here.
    Green,
    /// It cannot be read.
    Unknown,
    /// It works, and costs something: memory, latency, or room when much happens at once.
    Yellow,
    /// It does not work for so many clients, or harms them.
    Red,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Green => "green",
            Level::Unknown => "unknown",
            Level::Yellow => "yellow",
            Level::Red => "red",
        }
    }
}

/// What makes a knob what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    /// A kernel parameter, `net.core.somaxconn`.
    Sysctl {
        /// Its name.
        name: &'static str,
        /// What to write.
        value: String,
    },
    /// A file of `/proc` or `/sys`, without the leading `/`.
    File {
        /// Where.
        path: String,
        /// What to write.
        value: String,
    },
    /// A limit, of logins or of the service.
    Limit {
        /// As limits.conf names it.
        item: &'static str,
        /// Of the service, in its unit; else of logins.
        service: bool,
        /// Files or bytes.
        value: u64,
    },
    /// A key of the broker's configuration. Told, and never written by this program.
    Config {
        /// Its name.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

/// What a knob is, and should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The knob.
    pub name: &'static str,
    /// What it is about.
    pub group: &'static str,
    /// What it is; `-` where there is no such thing.
    pub now: String,
    /// What it should be.
    pub wanted: String,
    /// How bad that is.
    pub level: Level,
    /// Why it matters, for anybody.
    pub why: &'static str,
    /// What is special here, with figures; may be empty.
    pub note: String,
    /// What would make it green.
    pub settings: Vec<Setting>,
}

/// What a rule says about a value.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// How bad it is.
    pub level: Level,
    /// What it should be.
    pub wanted: String,
    /// See [`Finding::note`].
    pub note: String,
    /// See [`Finding::settings`].
    pub settings: Vec<Setting>,
}

impl Judgement {
    /// As it should be.
    pub fn good(wanted: impl Into<String>) -> Judgement {
        Judgement { level: Level::Green, wanted: wanted.into(), note: String::new(), settings: Vec::new() }
    }

    /// As it should be, or as bad as this.
    pub fn unless(holds: bool, level: Level, wanted: impl Into<String>) -> Judgement {
        Judgement { level: if holds { Level::Green } else { level }, ..Judgement::good(wanted) }
    }

    /// With a note.
    pub fn note(mut self, note: impl Into<String>) -> Judgement {
        self.note = note.into();
        self
    }

    /// With what would make it good, where it is not.
    pub fn set(mut self, settings: impl IntoIterator<Item = Setting>) -> Judgement {
        if self.level > Level::Unknown {
            self.settings.extend(settings);
        }
        self
    }
}

/// What a rule knows.
pub struct Context<'a> {
    /// The host.
    pub host: &'a Host,
    /// What is asked of it.
    pub demand: &'a Demand,
}

/// How a knob is read.
pub enum Read {
    /// The kernel parameter of that name.
    Sysctl,
    /// The word in brackets of a file.
    Choice(&'static str),
    /// Something else; `None` when there is no such thing.
    With(fn(&Context) -> Option<String>),
}

/// What a knob should be. A [`Level`] is how bad it is otherwise.
pub enum Want {
    /// A number, at least.
    AtLeast(fn(&Demand) -> u64, Level),
    /// A number, at most.
    AtMost(fn(&Demand) -> u64, Level),
    /// One of these words; the first is set.
    OneOf(&'static [&'static str], Level),
    /// Whatever it is; why is in the reason.
    Any,
    /// A rule of its own.
    Rule(fn(&Context, &str) -> Judgement),
}

/// One row of the table.
pub struct Knob {
    /// Its name: that of the kernel parameter, where it is one.
    pub name: &'static str,
    /// How it is read.
    pub read: Read,
    /// What it should be.
    pub want: Want,
    /// Why it matters.
    pub why: &'static str,
    /// What it means when there is no such thing: nothing to do, or that it cannot be read.
    pub absent: &'static str,
}

/// What a knob without a file means, as [`Knob::absent`]: it should be there.
pub const UNREADABLE: &str = "";

impl Knob {
    /// Reads and judges it.
    pub fn look(&self, group: &'static str, context: &Context) -> Finding {
        let now = match &self.read {
            Read::Sysctl => context.host.text(&sysctl_path(self.name)).map(|text| words(&text)),
            Read::Choice(path) => context.host.choice(path),
            Read::With(read) => read(context),
        };
        let judgement = match &now {
            Some(now) => self.judge(context, now),
            None if self.absent == UNREADABLE => {
                Judgement { level: Level::Unknown, ..Judgement::good("-").note("it cannot be read here") }
            }
            None => Judgement::good("-").note(self.absent),
        };
        let Judgement { level, wanted, note, settings } = judgement;
        let now = now.unwrap_or_else(|| "-".to_owned());
        Finding { name: self.name, group, now, wanted, level, why: self.why, note, settings }
    }

    fn judge(&self, context: &Context, now: &str) -> Judgement {
        let number = || now.parse::<u64>().unwrap_or(u64::MAX);
        let compared = |sign: &str, holds: bool, wanted: u64, level: Level| {
            Judgement::unless(holds, level, format!("{sign} {wanted}")).set(self.setting(wanted.to_string()))
        };
        match self.want {
            Want::AtLeast(wanted, level) => {
                let wanted = wanted(context.demand);
                compared(">=", number() >= wanted, wanted, level)
            }
            Want::AtMost(wanted, level) => {
                let wanted = wanted(context.demand);
                compared("<=", number() <= wanted, wanted, level)
            }
            Want::OneOf(wanted, level) => {
                let first = wanted.first().copied().unwrap_or_default();
                Judgement::unless(wanted.contains(&now), level, wanted.join(" or "))
                    .set(self.setting(first.to_owned()))
            }
            Want::Any => Judgement::good("any"),
            Want::Rule(rule) => rule(context, now),
        }
    }

    /// What writes a value of this knob, where one file does.
    fn setting(&self, value: String) -> Option<Setting> {
        match self.read {
            Read::Sysctl => Some(Setting::Sysctl { name: self.name, value }),
            Read::Choice(path) => Some(Setting::File { path: path.to_owned(), value }),
            Read::With(_) => None,
        }
    }
}

/// Words with one blank between them: kernel parameters have tabs.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All knobs of a host.
pub fn look(host: &Host, demand: &Demand) -> Vec<Finding> {
    let context = Context { host, demand };
    let tables = super::knobs::GROUPS.iter();
    tables.flat_map(|(group, knobs)| knobs.iter().map(|knob| knob.look(group, &context))).collect()
}
