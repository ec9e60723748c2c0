//! The rules of the house that a compiler does not know: who may import whom, how long things get, and
//! where `unsafe`, atomics, clocks and the kernel may appear. Each rule is data at the top of this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floors: a module imports from lower ones only. Each module of `src` stands here, or will.
const FLOORS: &[&[&str]] = &[
    &["limits", "heap", "time", "stats", "map", "rate", "traffic"],
    &["topic", "io", "sync"],
    &["message", "trie", "auth"],
    &["codec", "transport", "mesh", "retained", "record", "store"],
    &["session", "router", "desk", "listener"],
    &["shard", "api", "connectors", "log", "notify"],
    &["config"],
    &["broker", "bench", "ctl", "storectl", "tune"],
    &["main", "import", "operate", "passwd"],
];

/// Imports on one floor: who, from whom. Without cycles.
const SAME_FLOOR: &[(&str, &str)] = &[
    // Counters and tables take their sizes from the bounds; the hash map and the rest stand alone.
    ("stats", "limits"),
    ("stats", "time"),
    ("stats", "map"),
    ("stats", "heap"),
    ("map", "limits"),
    ("map", "heap"),
    ("rate", "time"),
    ("time", "limits"),
    ("time", "heap"),
    // Rules are about QoS.
    ("auth", "message"),
    // A router delivers into sessions.
    ("router", "session"),
    // A listener has rules of its own for its clients.
    ("listener", "session"),
    // The command line starts what operates the broker.
    ("main", "operate"),
    ("main", "passwd"),
    ("main", "import"),
    // A shard is given the log's bound on lines.
    ("shard", "log"),
    // The tuner counts shards as the broker does, and measures with the load generator.
    ("tune", "broker"),
    ("tune", "bench"),
];

/// Words that only some modules may use, with the reason. A trailing `!` or `::` is part of the word.
const WORDS: &[(&[&str], &[&str], &str)] = &[
    (&["unsafe"], &["io", "sync", "heap"], "unsafe code is for the kernel, the rings and the allocator"),
    (&["io_uring::", "libc::"], &["io", "tune"], "one place knows the kernel"),
    (
        &["atomic::", "AtomicBool", "AtomicU64", "AtomicU32", "AtomicUsize"],
        // io: the rings that the kernel shares; broker: nothing on the data path.
        &["sync", "io", "broker"],
        "atomics belong to the rings",
    ),
    (
        &["Instant::now", "SystemTime::now"],
        &["io", "api", "connectors", "log", "bench", "ctl", "tune", "main"],
        "rules get the time as an argument",
    ),
    (
        &["TcpListener", "TcpStream", "UdpSocket", "UnixStream", "UnixDatagram"],
        &["io", "api", "connectors", "bench", "ctl", "tune", "notify"],
        "sockets belong to the driver",
    ),
    (
        &["tokio::", "axum::"],
        &["api", "connectors", "broker", "main", "operate"],
        "no runtime on the data path",
    ),
    (&["Mutex", "RwLock", "Condvar"], &["api", "connectors"], "shards take no lock"),
    (&["todo!", "unimplemented!", "dbg!"], &[], "what is not finished is not committed"),
    (&["#[ignore"], &[], "a test that is not run is no test"),
];

/// Lines of a file at most.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function at most.
const FUNCTION_LINES_MAX: usize = 100;
/// Functions that may be longer: file, function, and why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

#[test]
fn imports_go_down() {
    let mut faults = Vec::new();
    for (path, text) in sources("src") {
        let from = module(&path);
        for to in imports(&without_tests(&path, &blank(&text))) {
            if let Some(fault) = arrow(&from, &to) {
                faults.push(format!("{}: {fault}", path.display()));
            }
        }
    }
    report(&faults);
}

#[test]
fn every_module_has_a_floor_and_same_floor_imports_have_no_cycle() {
    let mut faults: Vec<String> = Vec::new();
    for (path, _) in sources("src") {
        let name = module(&path);
        if name != "lib" && floor(&name).is_none() {
            faults.push(format!("{}: the module {name} is on no floor of tests/tidy.rs", path.display()));
        }
    }
    for (from, to) in SAME_FLOOR {
        if floor(from) != floor(to) {
            faults.push(format!("SAME_FLOOR: {from} and {to} are on different floors"));
        }
        let mut reached = vec![*to];
        let mut next = 0;
        while let Some(at) = reached.get(next).copied() {
            let more: Vec<_> = SAME_FLOOR.iter().filter(|(a, b)| *a == at && !reached.contains(b)).collect();
            reached.extend(more.iter().map(|(_, b)| *b));
            next += 1;
        }
        if reached.contains(from) {
            faults.push(format!("SAME_FLOOR: {from} imports itself through {to}"));
        }
    }
    report(&faults);
}

#[test]
fn words_stay_where_they_belong() {
    let mut faults = Vec::new();
    for (path, text) in sources("src") {
        let code = without_tests(&path, &blank(&text));
        for (word, line, why) in misplaced(&module(&path), &code) {
            faults.push(format!("{}:{line}: {word}: {why}", path.display()));
        }
    }
    // In tests, only what is about habits.
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(folder) {
            for (words, _, why) in WORDS.iter().filter(|(_, modules, _)| modules.is_empty()) {
                for (word, line) in found(words, &blank(&text)) {
                    faults.push(format!("{}:{line}: {word}: {why}", path.display()));
                }
            }
        }
    }
    faults.dedup();
    report(&faults);
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                faults.push(format!("{}: {lines} lines; split it by noun", path.display()));
            }
            for (name, line, lines) in functions(&blank(&text)) {
                let allowed = LONG_FUNCTIONS
                    .iter()
                    .any(|(file, function, _)| path.ends_with(file) && name == *function);
                if lines > FUNCTION_LINES_MAX && !allowed {
                    faults.push(format!("{}:{line}: fn {name} has {lines} lines", path.display()));
                }
            }
        }
    }
    report(&faults);
}

/// What `tests/mutations/run` breaks is still there to be broken.
#[test]
fn mutations_apply() {
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("tests/mutations")).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        count += 1;
        let patch = std::fs::read_to_string(&path).expect("a patch is readable");
        let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap_or_default();
        faults.extend(misapplied(&patch, read).map(|fault| format!("{}: {fault}", path.display())));
    }
    assert!(count >= 14, "{count} patches in tests/mutations");
    report(&faults);
}

/// Why a patch does not apply, if it does not: each hunk's old lines stand in its file once.
fn misapplied(patch: &str, read: impl Fn(&str) -> String) -> Option<String> {
    for word in ["Breaks: ", "Caught by: "] {
        if !patch.lines().take_while(|line| !line.starts_with("diff ")).any(|line| line.starts_with(word)) {
            return Some(format!("expected a line `{word}` in front of the diff"));
        }
    }
    let mut hunks = 0;
    for part in patch.split("\n--- a/").skip(1) {
        let mut parts = part.split("\n@@ ");
        let file = parts.next().and_then(|head| head.lines().next()).unwrap_or_default();
        let text = read(file);
        let text: Vec<&str> = text.lines().collect();
        for hunk in parts {
            hunks += 1;
            let body = hunk.split("\ndiff ").next().unwrap_or_default();
            let lines = body.lines().skip(1).filter(|line| !line.starts_with('+'));
            let old: Vec<&str> = lines.map(|line| line.get(1..).unwrap_or_default()).collect();
            let found = text.windows(old.len().max(1)).filter(|lines| *lines == old).count();
            if found != 1 {
                let first = old.get(2).unwrap_or(&"").trim();
                return Some(format!(
                    "expected the lines around `{first}` once in {file}, found them {found} times; change the patch \
                     so that it breaks the same thing in the code as it is now"
                ));
            }
        }
    }
    (hunks == 0).then(|| "expected a diff".to_owned())
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert_eq!(arrow("session", "codec"), None);
    assert_eq!(arrow("codec", "codec"), None);
    assert!(arrow("codec", "session").is_some());
    assert!(arrow("codec", "mesh").is_some());
    assert_eq!(arrow("router", "session"), None);
    assert!(arrow("codec", "nowhere").is_some());

    let code = "use crate::{a::X, b::{self, Y}, c};\n// crate::d\nlet x = crate::e::f(\"crate::g\"); use ringmq::h::I;\n/// [`crate::k`]\nuse self::z;";
    assert_eq!(imports(&blank(code)), ["a", "b", "c", "e", "h"]);

    let tricky =
        "let a = '\"'; let b: &'static str = r#\"unsafe \" \"#; /* unsafe /* libc:: */ */ b'\\''; unsafe {}";
    assert_eq!(found(&["unsafe", "libc::"], &blank(tricky)), [("unsafe", 1)]);
    assert_eq!(misplaced("io", "unsafe {}"), []);
    let unsafe_why = WORDS[0].2;
    assert_eq!(misplaced("codec", "fn x() {}\nunsafe { x() }"), [("unsafe", 2, unsafe_why)]);
    assert_eq!(found(&["unsafe"], "unsafe_code not_unsafe"), []);
    assert_eq!(found(&["todo!"], "\ntodo!()"), [("todo!", 2)]);

    let code = "fn a() {\n  if b {\n  }\n}\nfn c();\n fn d<F: Fn()>(f: F) { }\n";
    assert_eq!(functions(code), [("a".to_owned(), 1, 4), ("d".to_owned(), 6, 1)]);

    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n unsafe {} }\n";
    assert_eq!(without_tests(Path::new("src/a.rs"), code), "fn a() {}\n");
    assert_eq!(without_tests(Path::new("src/a/tests.rs"), code), "");

    let patch =
        "Breaks: x\nCaught by: y\n\ndiff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@ z\n a\n-b\n+c\n";
    assert_eq!(misapplied(patch, |_| "a\nb\n".to_owned()), None);
    assert!(misapplied(patch, |_| "a\nb\na\nb\n".to_owned()).is_some_and(|fault| fault.contains("2 times")));
    assert!(misapplied(patch, |_| "a\nc\n".to_owned()).is_some());
    assert!(misapplied("Breaks: x\nCaught by: y\n", |_| String::new()).is_some());
    assert!(misapplied(&patch["Breaks: x\n".len()..], |_| "a\nb\n".to_owned()).is_some());

    assert!(sources("src").keys().any(|path| path.ends_with("src/lib.rs")), "the sources are found");
    assert_eq!(module(&root().join("src/codec/packet.rs")), "codec");
    assert_eq!(module(&root().join("src/time.rs")), "time");
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is readable");
                files.insert(path, text);
            }
        }
    }
    files
}

/// The module at the top of `src` that a file belongs to.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix(root().join("src")).expect("a file below src");
    let first = inner.components().next().expect("a file has a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// What is wrong with this import, if anything.
fn arrow(from: &str, to: &str) -> Option<String> {
    if from == to || from == "lib" || SAME_FLOOR.contains(&(from, to)) {
        return None;
    }
    match (floor(from), floor(to)) {
        (Some(above), Some(below)) if above > below => None,
        (Some(here), Some(there)) => Some(format!("{from} (floor {here}) imports {to} (floor {there})")),
        (_, None) => Some(format!("imports {to}, which is on no floor")),
        (None, _) => Some(format!("{from} is on no floor")),
    }
}

/// The text without what only tests use: a test file, or all behind the first module of tests.
fn without_tests(path: &Path, code: &str) -> String {
    let is_test = |part: &std::path::Component<'_>| {
        let part = part.as_os_str().to_string_lossy();
        part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs")
    };
    let inner = path.strip_prefix(root()).unwrap_or(path);
    if inner.components().any(|part| is_test(&part)) {
        return String::new();
    }
    let inline = code.match_indices("#[cfg(test)]").find(|(at, _)| {
        let rest = code[at + "#[cfg(test)]".len()..].trim_start();
        rest.starts_with("mod ") && rest.find(['{', ';']).is_some_and(|at| rest[at..].starts_with('{'))
    });
    code[..inline.map_or(code.len(), |(at, _)| at)].to_owned()
}

/// The code with comments, strings and characters blanked out; lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(bytes, at);
        if end == at {
            out.push(char::from(bytes[at]));
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment, string or character that begins at `at`, or `at`.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |needle: &[u8], from: usize| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(bytes.len(), |found| at + from + found + needle.len())
    };
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return find(b"\n", 0).saturating_sub(usize::from(rest.contains(&b'\n')));
    }
    if rest.starts_with(b"/*") {
        let (mut depth, mut end) = (0usize, at);
        while end < bytes.len() {
            let step = match &bytes[end..] {
                [b'/', b'*', ..] => Some(1isize),
                [b'*', b'/', ..] => Some(-1),
                _ => None,
            };
            depth = depth.saturating_add_signed(step.unwrap_or(0));
            end += if step.is_some() { 2 } else { 1 };
            if depth == 0 {
                break;
            }
        }
        return end.min(bytes.len());
    }
    if !word_before && (rest[0] == b'r' || rest.starts_with(b"br")) {
        let start = if rest[0] == b'b' { 2 } else { 1 };
        let hashes = rest[start..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(start + hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            return find(&close, start + hashes + 1);
        }
    }
    if rest[0] == b'"' {
        return at + 1 + quoted(&rest[1..], b'"');
    }
    // A character, not a lifetime: it closes after one character or an escape.
    if rest[0] == b'\'' {
        let escape = rest.get(1) == Some(&b'\\');
        let wide = rest.iter().skip(2).take(4).position(|byte| *byte == b'\'');
        let ascii = rest.get(2) == Some(&b'\'');
        if escape || ascii || wide.is_some() && !rest[1].is_ascii() {
            return at + 1 + quoted(&rest[1..], b'\'');
        }
    }
    at
}

/// Bytes up to and with the closing quote.
fn quoted(bytes: &[u8], close: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != close {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The modules that `crate::…` and `ringmq::…` paths name.
fn imports(code: &str) -> Vec<String> {
    let word =
        |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
    let mut found = Vec::new();
    for root in ["crate::", "ringmq::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &code[at + root.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                found.push(word(rest));
                continue;
            };
            let (mut depth, mut start) = (0, true);
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        found.push(word(&group[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        }
    }
    // Macros and types at the root of the crate name no module.
    found.retain(|name| !name.is_empty() && name.starts_with(|c: char| c.is_lowercase()));
    found
}

/// Each of these words in the code, with its line.
fn found<'a>(words: &[&'a str], code: &str) -> Vec<(&'a str, usize)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut hits = Vec::new();
    for word in words {
        for (at, _) in code.match_indices(word) {
            let before = word.starts_with(part) && code[..at].ends_with(part);
            let after = word.ends_with(part) && code[at + word.len()..].starts_with(part);
            if !before && !after {
                hits.push((*word, 1 + code[..at].matches('\n').count()));
            }
        }
    }
    hits
}

/// Words of the table that this module may not use: word, line, reason.
fn misplaced(module: &str, code: &str) -> Vec<(&'static str, usize, &'static str)> {
    let rules = WORDS.iter().filter(|(_, modules, _)| !modules.contains(&module));
    rules.flat_map(|(words, _, why)| found(words, code).into_iter().map(move |(w, l)| (w, l, *why))).collect()
}

/// Name, first line and number of lines of each function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut all = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|c| part(*c)).collect();
        if name.is_empty() || code[..at].ends_with(part) {
            continue;
        }
        if let Some(length) = body(&code[at..]) {
            let lines = |text: &str| 1 + text.matches('\n').count();
            all.push((name, lines(&code[..at]), lines(&code[at..at + length])));
        }
    }
    all
}

/// The length of a function from `fn` to its closing brace; `None` for one without a body. A `;` within
/// brackets belongs to an array type.
fn body(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0usize, 0usize);
    for (at, c) in code.char_indices() {
        match c {
            ';' if braces == 0 && brackets == 0 => return None,
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces = braces.checked_sub(1)?,
            _ => {}
        }
    }
    None
}
