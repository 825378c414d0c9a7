//! Builds the sample handlers, and the handlers that the scenario tests need.
//!
//! Owns: `target/plugins`. A file there is replaced as a whole, and only when it differs: a daemon may watch the folder. What is built how
//! follows from the folders: `plugins/native-*` natively, those without a Cargo.toml with a C compiler, all others for WebAssembly.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup::{WASM_TARGET, c_compiler, ensure_wasm_target};
use crate::shell::{Program, cargo, root, say, target_dir};

/// The profile of the workspace that handlers are built with.
const PROFILE: &str = "guest";

/// How the names of native samples begin.
const NATIVE: &str = "native-";

/// The packages of the test handlers, and the names of their libraries.
const MISBEHAVE: (&str, &str) = ("tidegate-test-guest", "misbehave");
const CONFORMANCE: (&str, &str) = ("tidegate-test-conformance", "conformance");

/// Where the plugins are.
pub fn plugins_dir() -> PathBuf {
    target_dir().join("plugins")
}

/// The packages that are built for WebAssembly: the samples, each named as its folder, and the test handlers.
///
/// # Errors
/// The folder of the samples cannot be read.
pub fn packages() -> Result<Vec<String>> {
    let mut packages = samples(Kind::Component)?;
    packages.extend([MISBEHAVE.0, CONFORMANCE.0].map(str::to_owned));
    Ok(packages)
}

/// How a sample is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By cargo, for WebAssembly.
    Component,
    /// By cargo, for this machine.
    Native,
    /// By a C compiler.
    C,
}

/// The names of the samples of this kind, sorted.
fn samples(wanted: Kind) -> Result<Vec<String>> {
    let folder = root().join("plugins");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let native = name.starts_with(NATIVE);
        let kind = match entry.path().join("Cargo.toml").is_file() {
            true if native => Kind::Native,
            true => Kind::Component,
            false if native => Kind::C,
            false => continue,
        };
        if kind == wanted {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Builds them all and gives the folder where they are: samples as `NAME.wasm` and `NAME.so`, the test handlers in `test/`.
///
/// # Errors
/// The WebAssembly target or a C compiler cannot be had, a handler does not compile, or its file cannot be put in place.
pub fn build() -> Result<PathBuf> {
    build_components()?;
    build_native()?;
    build_c()?;
    Ok(plugins_dir())
}

fn build_components() -> Result<()> {
    ensure_wasm_target()?;
    let packages = packages()?;
    let names = packages.iter().flat_map(|package| ["--package", package]);
    cargo().args(["build", "--profile", PROFILE, "--target", WASM_TARGET]).args(names).run()?;

    let built = target_dir().join(WASM_TARGET).join(PROFILE);
    for name in samples(Kind::Component)? {
        let file = format!("{name}.wasm");
        install(&built.join(&file), &plugins_dir().join(&file))?;
    }
    for (_, library) in [MISBEHAVE, CONFORMANCE] {
        let file = format!("{library}.wasm");
        install(&built.join(&file), &plugins_dir().join("test").join(&file))?;
    }
    Ok(())
}

fn build_native() -> Result<()> {
    let samples = samples(Kind::Native)?;
    let packages = samples.iter().map(String::as_str).chain([CONFORMANCE.0]);
    cargo().args(["build", "--profile", PROFILE]).args(packages.flat_map(|package| ["--package", package])).run()?;

    let built = target_dir().join(PROFILE);
    let library = |name: &str| built.join(format!("lib{}.so", name.replace('-', "_")));
    for name in samples {
        install(&library(&name), &plugins_dir().join(format!("{name}.so")))?;
    }
    install(&library(CONFORMANCE.1), &plugins_dir().join("test").join(format!("{}.so", CONFORMANCE.1)))
}

fn build_c() -> Result<()> {
    let built = target_dir().join("c");
    fs::create_dir_all(&built).with_context(|| format!("cannot make {}", built.display()))?;
    for name in samples(Kind::C)? {
        let file = format!("{name}.so");
        let source = Path::new("plugins").join(&name).join(format!("{name}.c"));
        Program::new(c_compiler()?)
            .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"])
            .args(["-I", "sdk/c", "-o"])
            .arg(built.join(&file))
            .arg(source)
            .run()?;
        install(&built.join(&file), &plugins_dir().join(&file))?;
    }
    Ok(())
}

/// Puts a copy in place by a rename, so that nobody ever reads half a file.
fn install(built: &Path, place: &Path) -> Result<()> {
    let plugin = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    let shown = place.strip_prefix(root()).unwrap_or(place).display();
    if fs::read(place).is_ok_and(|old| old == plugin) {
        say!("  {shown} is up to date");
        return Ok(());
    }
    let write = || {
        fs::create_dir_all(place.parent().unwrap_or(root()))?;
        let new = place.with_added_extension("new");
        fs::write(&new, &plugin)?;
        fs::rename(new, place)
    };
    write().with_context(|| format!("cannot write {shown}"))?;
    say!("  {shown}: {} KiB", plugin.len().div_ceil(1024));
    Ok(())
}
