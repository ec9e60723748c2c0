//! Runs the cases: every one on each driver and number of shards, many at a time, for most of them wait.

use crate::coverage::Section;
use crate::ground::{PLACES, Place};
use crate::scene::{Brokers, Scene};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// One case: a function, and the statements that fail with it.
pub struct Case {
    /// `3.1.0-2`, of the suite's standard.
    pub ids: &'static [&'static str],
    /// Name of the function.
    pub what: &'static str,
    /// Fails by a panic.
    pub run: fn(&Scene),
    /// Where alone it can run, if not on both grounds.
    pub only: Option<Only>,
}

/// The one ground that a case can run on, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "cases come and go")]
pub enum Only {
    /// Sockets.
    Sockets(&'static str),
    /// The simulation.
    Simulation(&'static str),
}

impl Case {
    /// Whether it runs there.
    pub fn runs_on(&self, sockets: bool) -> bool {
        match self.only {
            None => true,
            Some(Only::Sockets(_)) => sockets,
            Some(Only::Simulation(_)) => !sockets,
        }
    }
}

/// The cases of one standard.
pub struct Suite {
    /// As `coverage.toml` has it: `5.0`.
    pub standard: &'static str,
    /// As names of tests have it: `v5`.
    pub tag: &'static str,
    /// Its statements.
    pub statements: &'static [Section],
    /// Its files' cases.
    pub files: &'static [&'static [Case]],
}

/// Registers the functions of a file: `"3.1.0-1" "3.1.4-1" => the_function,` and so on. One that can run on one
/// ground alone names it and says why: `"3.1.0-1" => the_function [Simulation: "it …"],`.
#[macro_export]
macro_rules! cases {
    (@only) => { None };
    (@only $ground:ident $why:literal) => { Some($crate::harness::Only::$ground($why)) };
    ($($($id:literal)+ => $run:ident $([$ground:ident: $why:literal])?),+ $(,)?) => {
        /// The cases of this file.
        pub const CASES: &[$crate::harness::Case] = &[
            $($crate::harness::Case {
                ids: &[$($id),+],
                what: stringify!($run),
                run: $run,
                only: $crate::cases!(@only $($ground $why)?),
            }),+
        ];
    };
}

impl Suite {
    /// All its cases.
    pub fn cases(&self) -> impl Iterator<Item = &'static Case> {
        self.files.iter().flat_map(|file| file.iter())
    }

    /// The name of a case under one of its statements.
    pub fn name(&self, id: &str, case: &Case) -> String {
        format!("mqtt_{}_{}_{}", id.replace(['.', '-'], "_"), self.tag, case.what)
    }
}

/// Numbers of shards that each case runs with.
const SHARDS: [usize; 2] = [1, 4];
/// Cases at a time: they wait for the broker or for a timer rather than compute.
const THREADS: usize = 48;

thread_local! {
    /// What the panic of this thread said, and where.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the command line asks for, as the standard test harness understands it.
#[derive(Default)]
struct Wanted {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
    threads: Option<usize>,
}

impl Wanted {
    fn parse(args: impl Iterator<Item = String>) -> Wanted {
        let mut wanted = Wanted::default();
        let mut args = args.flat_map(|arg| match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
            _ => vec![arg],
        });
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                "--ignored" => wanted.ignored = true,
                "--skip" => wanted.skips.extend(args.next()),
                "--test-threads" => wanted.threads = args.next().and_then(|n| n.parse().ok()),
                "--format" | "--color" | "--logfile" | "-Z" | "--report-time" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                _ => wanted.filters.push(arg),
            }
        }
        wanted
    }

    fn takes(&self, name: &str) -> bool {
        let hit = |filter: &String| if self.exact { name == filter } else { name.contains(&**filter) };
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(hit))
            && !self.skips.iter().any(hit)
    }
}

/// One case, what it is called, and where it runs.
struct Job {
    names: Vec<String>,
    case: &'static Case,
    place: Place,
    shards: usize,
}

/// Runs what the command line asks for.
pub fn run(suites: &'static [Suite]) -> ExitCode {
    let wanted = Wanted::parse(std::env::args().skip(1));
    let mut jobs = Vec::new();
    for (suite, case) in suites.iter().flat_map(|suite| suite.cases().map(move |case| (suite, case))) {
        let names: Vec<String> = case.ids.iter().map(|id| suite.name(id, case)).collect();
        if !names.iter().any(|name| wanted.takes(name)) {
            continue;
        }
        let places = PLACES.iter().filter(|place| case.runs_on(matches!(place, Place::Sockets(_))));
        for &place in places {
            jobs.extend(SHARDS.map(|shards| Job { names: names.clone(), case, place, shards }));
        }
    }
    let plain: Vec<_> = crate::coverage::TESTS.iter().filter(|(name, _)| wanted.takes(name)).collect();
    if wanted.list {
        let cases: std::collections::BTreeSet<_> = jobs.iter().flat_map(|job| &job.names).collect();
        cases.iter().for_each(|name| println!("{name}: test"));
        plain.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    note_panics();
    let began = Instant::now();
    let mut faults = run_jobs(&jobs, wanted.threads.unwrap_or(THREADS));
    for (name, test) in &plain {
        if let Err(fault) = guarded(test) {
            faults.insert((*name).to_owned(), vec![fault]);
        }
    }
    report(&jobs, &plain.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &faults, began)
}

/// A panic is told with the others at the end.
fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = format!("{info}");
        PANIC.with(|panic| *panic.borrow_mut() = text);
    }));
}

fn guarded(test: &dyn Fn()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(test)).map_err(|_| PANIC.with(|panic| panic.take()))
}

/// Runs all jobs and stops their brokers; what failed, by the name of the test.
fn run_jobs(jobs: &[Job], threads: usize) -> BTreeMap<String, Vec<String>> {
    let (brokers, next, faults) = (Brokers::default(), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scene = Scene::new(&brokers, job.place, job.shards, job.case.what);
                    let run = || {
                        (job.case.run)(&scene);
                        scene.end();
                    };
                    let Err(fault) = guarded(&run) else { continue };
                    let text = format!("{} with {} shards: {fault}", job.place, job.shards);
                    let mut faults = faults.lock().expect("no thread panics here");
                    faults.entry(job.names.join(" ")).or_insert_with(Vec::new).push(text);
                }
            });
        }
    });
    let mut faults = faults.into_inner().expect("no thread panics here");
    let ends: Vec<_> = brokers.stop(guarded);
    if !ends.is_empty() {
        faults.insert("the_brokers_end_in_order".to_owned(), ends);
    }
    faults
}

fn report(jobs: &[Job], plain: &[&str], faults: &BTreeMap<String, Vec<String>>, began: Instant) -> ExitCode {
    let mut names: Vec<_> =
        jobs.iter().flat_map(|job| &job.names).map(String::as_str).chain(plain.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let failed = |name: &str| faults.keys().any(|key| key.split(' ').any(|part| part == name));
    println!("\nrunning {} tests", names.len());
    for name in &names {
        println!("test {name} ... {}", if failed(name) { "FAILED" } else { "ok" });
    }
    for (name, texts) in faults {
        println!("\n---- {name} ----");
        texts.iter().for_each(|text| println!("{text}"));
    }
    let bad = names.iter().filter(|name| failed(name)).count();
    let verdict = if faults.is_empty() { "ok" } else { "FAILED" };
    println!("\n{}", crate::coverage::summary());
    println!(
        "\ntest result: {verdict}. {} passed; {bad} failed; 0 ignored; 0 measured; finished in {:.2}s\n",
        names.len() - bad,
        began.elapsed().as_secs_f64()
    );
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
