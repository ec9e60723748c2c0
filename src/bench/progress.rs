//! How a run goes on: a bar for a person, lines for a pipe, both on standard error.

use super::fleet::Row;
use super::tally::Tally;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// Shows how it goes on.
#[derive(Debug)]
pub enum Progress {
    /// To a terminal.
    Bar(ProgressBar),
    /// One line a second.
    Lines,
    /// Not at all.
    Quiet,
}

impl Progress {
    /// As standard error suggests.
    pub fn new(quiet: bool) -> Progress {
        if quiet {
            return Progress::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Progress::Lines;
        }
        let style = ProgressStyle::with_template("{prefix:>10} {bar:30} {elapsed_precise} {msg}");
        let style = style.map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
        Progress::Bar(ProgressBar::new(1).with_style(style))
    }

    /// Something else begins; `goal` in units of what [`Progress::show`] counts in it, 0 where there is none.
    pub fn phase(&self, name: &'static str, goal: u64) {
        if let Progress::Bar(bar) = self {
            bar.set_prefix(name);
            bar.set_length(goal.max(1));
            bar.set_position(0);
        }
    }

    /// A second has passed.
    pub fn show(&self, row: &Row, tally: &Tally) {
        let text = line(row);
        match self {
            Progress::Quiet => {}
            Progress::Lines => eprintln!("{:7.1}s {:<10} {text}", row.at_s, row.phase),
            Progress::Bar(bar) => {
                let so_far = match row.phase {
                    "connect" | "subscribe" => tally.online,
                    "drain" => tally.delivered,
                    _ => bar.position() + 1,
                };
                bar.set_position(so_far.min(bar.length().unwrap_or(so_far)));
                bar.set_message(text);
            }
        }
    }

    /// It is over.
    pub fn end(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(row: &Row) -> String {
    let [connects, sent, received] = row.rates;
    let mut text = format!("online {}", row.online);
    if connects > 0.0 {
        text += &format!("  connects {connects:.0}/s");
    }
    if sent + received > 0.0 {
        text += &format!("  sent {sent:.0}/s  received {received:.0}/s");
    }
    if let Some([p50, p99, _]) = row.latency_ns {
        let us = |ns: u64| ns as f64 / 1000.0;
        text += &format!("  p50 {:.0} us  p99 {:.0} us", us(p50), us(p99));
    }
    if let Some(cores) = row.cores.0 {
        text += &format!("  broker {:.0} %", 100.0 * cores);
    }
    text + &format!("  errors {}", row.errors)
}
