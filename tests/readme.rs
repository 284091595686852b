//! README.md says what is so: its commands are run, its output is what they print, its grids are read, its tables hold
//! every column and exit code.
//!
//! `sh` blocks are run line by line in a folder with the repository's grids and configs, `bash` blocks are what
//! `.ci/run` does, `yaml` and `csv` blocks are files of the name behind the language. After a change of the output on purpose,
//! `OMEGA_README=update cargo test --test readme` writes the new one into README.md.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A fenced block: language, the word behind it (a file name) and content.
struct Block {
    language: String,
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in markdown.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                let (language, name) = language.split_once(' ').unwrap_or((language, ""));
                blocks.push(Block { language: language.to_owned(), name: name.to_owned(), text: String::new() });
            }
            None if open => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "a block of README.md is not closed");
    blocks
}

/// The part of a page from a heading to the next of its level.
fn section<'a>(markdown: &'a str, heading: &str) -> &'a str {
    let start = markdown.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section `{heading}`"));
    let rest = &markdown[start + 4..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// Texts in backticks in the first cell of every row of the tables of a section.
fn first_cells(section: &str) -> Vec<String> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A folder like a fresh clone: grids and configs, and the grids README.md shows.
struct Clone {
    folder: TempDir,
    /// Grids of README.md, relative to the folder.
    grids: Vec<String>,
}

impl Clone {
    fn new(blocks: &[Block]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["grids", "configs"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            for entry in fs::read_dir(root().join(name)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::copy(&path, folder.path().join(name).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        let mut grids = Vec::new();
        for block in blocks.iter().filter(|block| block.language == "yaml") {
            fs::write(folder.path().join(&block.name), &block.text).unwrap();
            grids.push(block.name.clone());
        }
        for block in blocks.iter().filter(|block| block.language == "csv") {
            fs::write(folder.path().join(&block.name), &block.text).unwrap();
        }
        Self { folder, grids }
    }

    fn omega_opt(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omega-opt"));
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OMEGA_") {
                command.env_remove(name);
            }
        }
        command.env("OMEGA_CACHE_DIR", self.folder.path().join("cache")).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    /// Runs one line of a `sh` block.
    fn run(&self, line: &str) -> Output {
        assert!(!line.contains(['"', '\'', '$', '|', '>', '*']), "`{line}` needs a shell");
        let mut words = line.split_whitespace().peekable();
        let mut command = self.omega_opt();
        while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
            command.env(name, value);
            words.next();
        }
        match words.next() {
            Some("omega-opt") => {}
            Some("cargo") => {
                let rest: Vec<&str> = words.by_ref().take(3).collect();
                assert_eq!(rest, ["run", "--release", "--"], "{line}");
            }
            other => panic!("`{line}` starts with {other:?}"),
        }
        command.args(words.map(|word| self.in_this_run(word))).output().unwrap()
    }

    /// Puts the name of the run folder that is there in place of the one README.md shows.
    fn in_this_run(&self, word: &str) -> PathBuf {
        match word.strip_prefix("results/quickstart-") {
            Some(_) => self.quickstart(),
            None => word.into(),
        }
    }

    fn quickstart(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.folder.path().join("results")).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("quickstart-")).unwrap()
    }
}

/// What a command printed, as a person saw it: talk, then data.
fn printed(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap() + &String::from_utf8(output.stdout.clone()).unwrap()
}

/// Lines without what differs between two equal runs: times, memory, the digits in the folder's name, progress.
fn lasting(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.contains(" · ETA "));
    lines
        .map(|line| match (line.find(" evaluated in "), line.find("results/quickstart-")) {
            (Some(at), _) => line[..at + " evaluated in ".len()].to_owned(),
            (_, Some(at)) => {
                let start = at + "results/quickstart-".len();
                format!("{}{}", &line[..start], line[start..].trim_start_matches(|c: char| c.is_ascii_hexdigit()))
            }
            _ => line.to_owned(),
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn update(shown: &str, now: &str) {
    let kept: Vec<&str> = now.lines().filter(|line| !line.contains(" · ETA ")).collect();
    let text = readme().replace(shown, &format!("{}\n", kept.join("\n")));
    let digits = |text: &str| {
        let (_, rest) = text.split_once("results/quickstart-")?;
        rest.get(..8).map(|digits| format!("quickstart-{digits}"))
    };
    let text = match (digits(shown), digits(now)) {
        (Some(old), Some(new)) => text.replace(&old, &new),
        _ => text,
    };
    fs::write(root().join("README.md"), text).unwrap();
}

#[test]
fn the_commands_run_and_print_what_is_shown() {
    let markdown = readme();
    let blocks = blocks(&markdown);
    let clone = Clone::new(&blocks);
    let mut runs = 0;
    for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        for line in block.text.lines() {
            let line = line.split('#').next().unwrap().trim();
            let output = clone.run(line);
            assert_eq!(output.status.code(), Some(0), "`{line}` said\n{}", printed(&output));
            if runs == 0 {
                let (shown, now) = (&blocks[at + 1].text, printed(&output));
                if std::env::var_os("OMEGA_README").is_some_and(|value| value == "update") {
                    update(shown, &now);
                } else {
                    let same = lasting(shown) == lasting(&now);
                    let hint = "OMEGA_README=update cargo test --test readme";
                    assert!(same, "README.md shows another output of `{line}`; `{hint}` puts in\n{now}");
                }
            }
            if line.ends_with("sweep grids/quickstart.yaml") && runs > 0 {
                assert!(printed(&output).contains("nothing to evaluate"), "a second start evaluates nothing");
            }
            runs += 1;
        }
    }
    assert!(runs > 10, "{runs} commands found");
    columns_are_those_of(&clone.quickstart().join("leaderboard.csv"), &markdown);
}

/// Every column is explained, and none that is not there.
fn columns_are_those_of(leaderboard: &Path, markdown: &str) {
    let mut file = csv::Reader::from_path(leaderboard).unwrap();
    let columns: BTreeSet<String> = file.headers().unwrap().iter().map(str::to_owned).collect();
    let explained = first_cells(section(markdown, "Reading a leaderboard"));
    let unexplained: Vec<&String> =
        columns.iter().filter(|name| !name.starts_with("param.") && !explained.contains(name)).collect();
    assert!(unexplained.is_empty(), "README.md does not explain {unexplained:?}");
    for name in explained.iter().filter(|name| *name != "param.") {
        assert!(columns.contains(name), "README.md explains `{name}`, which is no column");
    }
}

#[test]
fn the_grids_are_read() {
    let blocks = blocks(&readme());
    let clone = Clone::new(&blocks);
    assert!(clone.grids.len() >= 2);
    for grid in &clone.grids {
        let text = fs::read_to_string(clone.folder.path().join(grid)).unwrap();
        let command = if text.contains("\njobs:\n") { "batch" } else { "sweep" };
        let output = clone.omega_opt().args([command, grid, "--dry-run"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{grid}:\n{}", printed(&output));
    }
    let results = clone.folder.path().join("results");
    assert!(!results.exists(), "--dry-run wrote {}", results.display());
}

/// An unknown key is refused, so a grid that is read has known keys only; this one has all of design §6.
#[test]
fn the_reference_grid_has_every_key() {
    let blocks = blocks(&readme());
    let reference = blocks.iter().find(|block| block.name == "grids/everything.yaml").unwrap();
    let top = reference.text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let keys: Vec<&str> = top.map(|line| line.split(':').next().unwrap()).collect();
    let all = "name config seed parameters linked constraints search objective gates walk_forward limits output";
    assert_eq!(keys.join(" "), all);
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let markdown = readme();
    let rows = section(&markdown, "Runs").lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let codes: Vec<u16> = rows.filter_map(|cell| cell.parse().ok()).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_omega-opt")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.split("Exit codes:").nth(1).unwrap().split("Usage:").next().unwrap();
    let numbers: Vec<u16> =
        listed.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    assert_eq!(codes, numbers);
}

#[test]
fn the_check_of_a_change_is_what_ci_runs() {
    let script = fs::read_to_string(root().join(".ci/run")).unwrap();
    let blocks = blocks(&readme());
    let commands: Vec<&str> =
        blocks.iter().filter(|block| block.language == "bash").flat_map(|block| block.text.lines()).collect();
    assert!(commands.contains(&"cargo xtask test"));
    for command in commands {
        assert!(
            script.lines().any(|line| line.ends_with(&format!("step {command}"))),
            ".ci/run leaves out `{command}`"
        );
    }
}

/// The tests that tests/README.md names are there.
#[test]
fn the_list_of_proofs_names_what_exists() {
    let list = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let (mut names, mut code) = (BTreeSet::new(), String::new());
    let mut folders = ["tests", "engine/src", "engine/tests", "optimizer/src"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                names.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"));
                code.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    for name in list.split('`').skip(1).step_by(2) {
        if name.ends_with(".rs") {
            assert!(
                names.iter().any(|path| path == name || path.ends_with(&format!("/{name}"))),
                "tests/README.md: no file {name}"
            );
        } else if name.len() > 12 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            assert!(code.contains(&format!("fn {name}(")), "tests/README.md: no test {name}");
        }
    }
}
