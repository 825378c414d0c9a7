//! Builds the sample handlers, and the handler that the scenario tests need.
//!
//! Owns: `target/plugins`. A file there is replaced as a whole, and only when it differs: a daemon may watch the folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup::{WASM_TARGET, ensure_wasm_target};
use crate::shell::{cargo, root, say, target_dir};

/// The profile of the workspace that handlers are built with.
const PROFILE: &str = "guest";

/// The package of the test handler, and the name of its library.
const TEST_GUEST: (&str, &str) = ("tidegate-test-guest", "misbehave");

/// Where the plugins are.
pub fn plugins_dir() -> PathBuf {
    target_dir().join("plugins")
}

/// The packages that are built for WebAssembly: the samples, each named as its folder, and the test handler.
///
/// # Errors
/// The folder of the samples cannot be read.
pub fn packages() -> Result<Vec<String>> {
    let mut packages = samples()?;
    packages.push(TEST_GUEST.0.to_owned());
    Ok(packages)
}

fn samples() -> Result<Vec<String>> {
    let folder = root().join("plugins");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds them all and gives the folder where they are: samples as `NAME.wasm`, the test handler in `test/`.
///
/// # Errors
/// The WebAssembly target cannot be had, a handler does not compile, or its file cannot be put in place.
pub fn build() -> Result<PathBuf> {
    ensure_wasm_target()?;
    let packages = packages()?;
    let names = packages.iter().flat_map(|package| ["--package", package]);
    cargo().args(["build", "--profile", PROFILE, "--target", WASM_TARGET]).args(names).run()?;

    let built = target_dir().join(WASM_TARGET).join(PROFILE);
    let folder = plugins_dir();
    for name in samples()? {
        let file = format!("{name}.wasm");
        install(&built.join(&file), &folder.join(&file))?;
    }
    let file = format!("{}.wasm", TEST_GUEST.1);
    install(&built.join(&file), &folder.join("test").join(&file))?;
    Ok(folder)
}

/// Puts a copy in place by a rename, so that nobody ever reads half a file.
fn install(built: &Path, place: &Path) -> Result<()> {
    let component = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    let shown = place.strip_prefix(root()).unwrap_or(place).display();
    if fs::read(place).is_ok_and(|old| old == component) {
        say!("  {shown} is up to date");
        return Ok(());
    }
    let write = || {
        fs::create_dir_all(place.parent().unwrap_or(root()))?;
        let new = place.with_extension("wasm.new");
        fs::write(&new, &component)?;
        fs::rename(new, place)
    };
    write().with_context(|| format!("cannot write {shown}"))?;
    say!("  {shown}: {} KiB", component.len().div_ceil(1024));
    Ok(())
}
