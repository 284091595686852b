//! What the tests of the command line share: a working folder with a grid, the binary run in it, and what it said with
//! times, hashes and folders redacted.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "helpers of tests fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A grid of 24 settings that takes no time.
pub(crate) const SMALL: &str = "\
name: small
config: config.json
parameters:
  fast_length: [5, 10, 20, 40]
  slow_length: [50, 60, 80]
  direction_filter: [long, both]
gates: [\"total_trades >= 10\"]
limits: {chunk: 4}
output: {top: 2}
";

/// Synthetic hourly bars and a strategy that is quick on them.
pub(crate) const CONFIG: &str = r#"{
  "strategy_name": "sma_cross",
  "symbol": "EURUSD",
  "start_date": "2020-01-06",
  "end_date": "2020-06-30",
  "data": {"source": "synthetic", "seed": 7, "bars": 3000},
  "timeframes": {"primary": "H1", "additional": []},
  "warmup_bars": 100,
  "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
  "strategy_parameters": {"lots": 0.1}
}
"#;

/// A grid of 840 settings in 105 chunks that takes some seconds on one thread.
pub(crate) const HEAVY: &str = "\
name: heavy
config: heavy.json
parameters:
  window_length: 40..145:15
  atr_mult: {min: 1.0, max: 3.0, step: 0.5}
  ema_length: [20, 30, 50]
linked:
  - names: [z_score_long, z_score_short]
    values: [[-1.0, 1.0], [-1.2, 1.2], [-1.4, 1.4], [-1.6, 1.6], [-1.9, 1.9], [-2.2, 2.2], [-2.5, 2.5]]
limits: {chunk: 8}
output: {top: 2}
";

/// Five-minute bars and the strategy with dear columns.
pub(crate) const HEAVY_CONFIG: &str = r#"{
  "strategy_name": "mean_reversion_z_score",
  "symbol": "EURUSD",
  "start_date": "2020-11-23",
  "end_date": "2020-12-31",
  "data": {"source": "synthetic", "seed": 7, "bars": 75000},
  "timeframes": {"primary": "M5", "additional": ["H1", "H4", "D1"]},
  "warmup_bars": 200,
  "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
  "strategy_parameters": {"enabled_scenarios": [1]}
}
"#;

/// A working folder of its own and the binary.
pub(crate) struct Desk {
    dir: TempDir,
    env: Vec<(String, PathBuf)>,
}

/// What a finished command left on the terminal.
pub(crate) struct Shown {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Desk {
    /// With the small and the heavy grid in it.
    pub(crate) fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() };
        desk.write("small.yaml", SMALL);
        desk.write("config.json", CONFIG);
        desk.write("heavy.yaml", HEAVY);
        desk.write("heavy.json", HEAVY_CONFIG);
        for name in ["configs/execution_costs.yaml", "configs/symbol_specs.yaml"] {
            desk.write(name, &fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap());
        }
        desk
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A variable of the environment for every command.
    pub(crate) fn env(mut self, name: &str, value: impl Into<PathBuf>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The small grid with the first occurrence of `from` replaced.
    pub(crate) fn grid(&self, from: &str, to: &str) {
        assert!(SMALL.contains(from), "{from}");
        self.write("small.yaml", &SMALL.replacen(from, to, 1));
    }

    /// The config of the small grid with the first occurrence of `from` replaced.
    pub(crate) fn config(&self, from: &str, to: &str) {
        assert!(CONFIG.contains(from), "{from}");
        self.write("config.json", &CONFIG.replacen(from, to, 1));
    }

    /// The binary, blind to the environment of the test, with the arguments of a line (split at blanks).
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("omega-opt"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OMEGA_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.path()).env("OMEGA_CACHE_DIR", cache()).env_remove("RUST_LOG");
        command.env("RAYON_NUM_THREADS", "2").env("NO_COLOR", "1").env_remove("FORCE_COLOR").env("COLUMNS", "100");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(line.split_whitespace());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Shown {
        let output = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Shown { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Starts it without waiting.
    pub(crate) fn start(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs it and asserts that nothing in the working folder changed: a refusal harms nothing.
    pub(crate) fn refused(&self, line: &str) -> String {
        let before = tree(self.path());
        let shown = self.run(line);
        let after = tree(self.path());
        assert!(before == after, "the refusal changed {:?}", changed(&before, &after));
        assert_eq!(shown.stdout, "", "a refusal says nothing on stdout");
        self.show(&shown)
    }

    /// Exit code and stderr, redacted.
    pub(crate) fn show(&self, shown: &Shown) -> String {
        let code = shown.code.map_or("killed".to_owned(), |code| format!("exit {code}"));
        format!("{code}\n{}", self.redact(&shown.stderr))
    }

    /// Folders, hashes and times made equal.
    pub(crate) fn redact(&self, text: &str) -> String {
        redact(&text.replace(&*self.path().to_string_lossy(), "[DIR]"))
    }

    /// The only run folder below `root`.
    pub(crate) fn run_folder(&self, root: &str) -> PathBuf {
        let entries: Vec<PathBuf> =
            fs::read_dir(self.path().join(root)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.into_iter().next().unwrap()
    }
}

/// One cache folder for all tests: bars are made once. What is in it is named by its contents.
pub(crate) fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("omega-cache");
        fs::create_dir_all(&path).unwrap();
        path
    })
}

/// Every file below `root` by its path, folders with a slash at the end.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Names that are not the same in both.
pub(crate) fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    let mut names: Vec<String> = names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// What two equal runs must have in common: everything but events, logs and the clock in `meta.json`.
pub(crate) fn lasting(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(folder);
    files.retain(|name, _| name != "events.jsonl" && !name.starts_with("logs/") && !name.starts_with("profiling/"));
    for (name, bytes) in &mut files {
        if name.ends_with("meta.json") {
            let text = String::from_utf8(std::mem::take(bytes)).unwrap();
            let lines = text.lines().filter(|line| !line.contains("\"generated_at"));
            *bytes = lines.collect::<Vec<_>>().join("\n").into_bytes();
        }
    }
    files
}

/// Asserts byte identity of two sweeps, naming the files that differ.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    assert_same_files(a, b, &["leaderboard.parquet", "leaderboard.csv"]);
}

/// Asserts byte identity of two walk-forwards, naming the files that differ.
pub(crate) fn assert_same_walk(a: &Path, b: &Path) {
    let names = ["windows.parquet", "windows.csv", "equity.parquet", "trades.csv", "summary.json", "manifest.json"];
    assert_same_files(a, b, &names);
}

fn assert_same_files(a: &Path, b: &Path, names: &[&str]) {
    assert_eq!(a.file_name(), b.file_name(), "equal runs have equal names");
    let (left, right) = (lasting(a), lasting(b));
    for name in names {
        assert!(left.contains_key(*name), "{name} is missing: {:?}", left.keys());
    }
    assert!(left == right, "not the same bytes: {:?}", changed(&left, &right));
}

/// Identity of every finished chunk file: a chunk written again would be another file.
#[cfg(unix)]
pub(crate) fn identities(folder: &Path) -> BTreeMap<String, (u64, std::time::SystemTime)> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(folder.join("chunks")).unwrap().map(|entry| entry.unwrap());
    let chunks = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "parquet"));
    chunks
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            (entry.file_name().into_string().unwrap(), (metadata.ino(), metadata.modified().unwrap()))
        })
        .collect()
}

/// Chunk files that are there now.
pub(crate) fn chunk_count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder.join("chunks")) else { return 0 };
    entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|e| e == "parquet")).count()
}

/// Polls until `ready`, at most a minute.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The folder of real bars; none (and a line saying so) if neither the variable is set nor the default there.
pub(crate) fn real_data(test: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("OMEGA_TEST_DATA").map(|folder| workspace.join(folder));
    let data = given.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if data.is_dir() {
        return Some(data.canonicalize().unwrap());
    }
    assert!(given.is_none(), "OMEGA_TEST_DATA is set, but {} is missing", data.display());
    println!("{test}: skipped, no bars at {} and OMEGA_TEST_DATA is not set", data.display());
    None
}

/// A small file system of its own, unmounted when dropped; none (and a line saying so) where mounting is not allowed.
pub(crate) struct SmallDisk {
    path: PathBuf,
    _dir: TempDir,
}

impl SmallDisk {
    pub(crate) fn new(test: &str, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { path, _dir: dir });
        }
        println!("{test}: skipped, a tmpfs cannot be mounted here (needs Linux and root)");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes its options, such as `size=4m` or `ro`.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.path).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

fn redact(text: &str) -> String {
    let cache = cache().to_string_lossy().into_owned();
    let mut lines: Vec<String> = Vec::new();
    for line in text.replace(&cache, "[CACHE]").lines() {
        let mut line = replace_hash(line, 8, "-", "[HASH]");
        line = replace_between(&line, "evaluated in ", "), ", "[TIME]");
        line = replace_between(&line, "memory cap of ", " is", "[CAP]");
        line = replace_between(&line, "at least ", "", "[NEED]");
        line = replace_between(&line, "help: --memory ", "", "[NEED]");
        line = replace_between(&line, "· memory ", "", "[PEAK]");
        line = replace_between(&line, "(process ", ")", "[OWNER]");
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// Replaces `digits` hex digits that follow `before` and end a word.
fn replace_hash(line: &str, digits: usize, before: &str, with: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        out.push_str(head);
        let hex = tail.chars().take_while(|c| matches!(c, '0'..='9' | 'a'..='f')).count();
        let ends = !tail[hex..].starts_with(|c: char| c.is_alphanumeric() || c == '-');
        if hex == digits && ends {
            out.push_str(with);
            rest = &tail[hex..];
        } else {
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// Replaces what stands between two marks; to the end of the line if the second is empty. Only amounts: the text
/// replaced begins with a digit.
fn replace_between(line: &str, from: &str, to: &str, with: &str) -> String {
    let Some(at) = line.find(from).map(|at| at + from.len()) else { return line.to_owned() };
    let rest = &line[at..];
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return line.to_owned();
    }
    let end = if to.is_empty() { Some(rest.len()) } else { rest.find(to) };
    end.map_or_else(|| line.to_owned(), |end| format!("{}{with}{}", &line[..at], &rest[end..]))
}
