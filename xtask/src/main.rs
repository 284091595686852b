//! Checks of this repository that are more than one cargo command: `cargo xtask test`, `cargo xtask python`.
//!
//! Needs cargo and, for the Python part, a CPython from 3.10 on with `venv`. Everything else is fetched into a folder below
//! `target/`, fresh for every run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "\
cargo xtask test [--release]              all tests: `cargo test --workspace`, then those of the Python package
cargo xtask python [--release] [ARG…]     builds the wheel, installs it into a fresh virtual environment, checks it;
                                          ARGs go to pytest
PYTHON names the interpreter (default: python3, then python).";

/// What builds the wheel.
const MATURIN: &str = "maturin>=1.9,<2";

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", arguments.as_slice()),
    };
    let release = rest.iter().any(|argument| argument == "--release");
    let pytest: Vec<&String> = rest.iter().filter(|argument| *argument != "--release").collect();
    let outcome = match command {
        "test" if pytest.is_empty() => test(release),
        "python" => python(release, &pytest),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "talk goes to stderr")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

fn test(release: bool) -> Result<()> {
    // `--workspace`, although the default members are all there is to test: dependencies then have the same features as
    // for the wheel and are built once.
    let mut cargo = cargo(&["test", "--workspace"], release);
    run("cargo test --workspace", &mut cargo)?;
    python(release, &[])
}

fn cargo(arguments: &[&str], release: bool) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).args(release.then_some("--release")).current_dir(root());
    cargo
}

/// Builds the wheel and checks it, first with pytest alone beside it, then with everything it is compared with.
fn python(release: bool, pytest: &[&String]) -> Result<()> {
    let work = target().join("python");
    fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let interpreter = interpreter()?;

    let profile = if release { "release" } else { "debug" };
    run("command line", &mut cargo(&["build", "--workspace", "--bin", "omega-opt"], release))?;
    let omega_opt = target().join(profile).join(format!("omega-opt{}", env::consts::EXE_SUFFIX));

    let builder = Venv::new(&interpreter, &work.join("builder"))?;
    builder.install(&[MATURIN.into()])?;
    let wheels = work.join("wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).map_err(|error| format!("{}: {error}", wheels.display()))?;
    }
    let mut build = builder.module("maturin");
    build.args(["build", "--locked", "--out"]).arg(&wheels).args(release.then_some("--release"));
    build.current_dir(root().join("python"));
    run("wheel", &mut build)?;
    let wheel = only_wheel(&wheels)?;

    let venv = Venv::new(&interpreter, &work.join("venv"))?;
    venv.install(&[wheel.clone().into(), "pytest>=8".into()])?;
    let tests = |marker: &str| {
        let mut command = venv.module("pytest");
        command.args(["-m", marker]).args(pytest).env("OMEGA_OPT", &omega_opt);
        // Not in `python/`: there `bt` would be the sources and not the wheel.
        command.current_dir(root().join("python").join("tests"));
        command
    };
    run("pytest with the wheel alone", &mut tests("not extras"))?;

    let mut extras = wheel.into_os_string();
    extras.push("[numpy,test-extras]");
    venv.install(&[extras])?;
    run("pytest with numpy, pandas, polars, pyarrow, duckdb, TA-Lib", &mut tests("extras"))?;
    run("mypy", venv.module("mypy").args(["-p", "bt"]).arg("--config-file").arg(pyproject()).current_dir(&work))?;
    let mut stubs = venv.module("mypy.stubtest");
    stubs.args(["omega_bt", "bt", "--mypy-config-file"]).arg(pyproject()).current_dir(&work);
    stubs.arg("--allowlist").arg(root().join("python").join("stubtest-allowlist.txt"));
    run("stubtest", &mut stubs)
}

fn pyproject() -> PathBuf {
    root().join("python").join("pyproject.toml")
}

/// CPython from 3.10 on.
fn interpreter() -> Result<PathBuf> {
    let named = env::var_os("PYTHON").filter(|name| !name.is_empty());
    let candidates: Vec<OsString> = named.map_or_else(|| vec!["python3".into(), "python".into()], |name| vec![name]);
    for candidate in &candidates {
        let code = "import sys; assert sys.version_info >= (3, 10), sys.version; print(sys.executable)";
        let Ok(output) = Command::new(candidate).args(["-c", code]).output() else { continue };
        if output.status.success() {
            return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
    }
    let names: Vec<_> = candidates.iter().map(|name| name.to_string_lossy()).collect();
    Err(format!("no Python from 3.10 on among {}; PYTHON names another", names.join(", ")))
}

/// A virtual environment.
struct Venv {
    python: PathBuf,
}

impl Venv {
    fn new(interpreter: &Path, folder: &Path) -> Result<Self> {
        run("virtual environment", Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(folder))?;
        let python = if cfg!(windows) { folder.join("Scripts/python.exe") } else { folder.join("bin/python") };
        Ok(Self { python })
    }

    fn module(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-m", name]);
        command
    }

    fn install(&self, packages: &[OsString]) -> Result<()> {
        let mut pip = self.module("pip");
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
        run("pip install", &mut pip)
    }
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let wheel = |path: &PathBuf| path.extension() == Some(OsStr::new("whl"));
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(wheel)
        .ok_or_else(|| format!("{}: no wheel", folder.display()))
}

fn run(what: &str, command: &mut Command) -> Result<()> {
    say(&format!("--> {what}"));
    let started = Instant::now();
    let status = command.status().map_err(|error| format!("{what}: {}: {error}", command.get_program().display()))?;
    if !status.success() {
        return Err(format!("{what}: {status}"));
    }
    say(&format!("--> {what}: {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}
