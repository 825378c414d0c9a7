//! Finds what a build or a test needs, and installs it where that is permitted.
//!
//! Owns: every change to the machine that xtask makes: a target of the Rust toolchain, packages of a Debian system, and
//! programs of its own in `target/tools`. Each is announced before it is made.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell::{Program, cargo, cargo_of, find, is_ci, say, target_dir};

/// The target that handlers are built for.
pub const WASM_TARGET: &str = "wasm32-wasip2";

/// The version that is installed: a newer one may find new faults in an old tree.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// The version that is installed.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// The version that is installed: another one may check more.
const SCHEMATHESIS_VERSION: &str = "4.32.5";

/// The nightly toolchain that runs Miri: another one may find more.
const MIRI_TOOLCHAIN: &str = "nightly-2026-10-30";

/// Where brokers are installed outside `PATH`.
const BROKER_FOLDERS: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"];

/// Gets the standard library for handlers.
///
/// # Errors
/// It is missing and rustup cannot add it: with what to do.
pub fn ensure_wasm_target() -> Result<()> {
    if has_wasm_target() {
        return Ok(());
    }
    say!("adding the Rust target {WASM_TARGET}");
    let added = Program::new("rustup").args(["target", "add", WASM_TARGET]).run();
    if let Err(error) = added {
        bail!(
            "{error:#}\nThe handlers need Rust's standard library for {WASM_TARGET}. With rustup (https://rustup.rs) and a \
             network, run `rustup target add {WASM_TARGET}`; a Rust from the system's packages has it in a package of its own."
        );
    }
    Ok(())
}

/// Asks the compiler, not rustup: a Rust from the system's packages may have the target too.
fn has_wasm_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = Program::new(rustc).args(["--print", "target-libdir", "--target", WASM_TARGET]).read();
    libraries.is_ok_and(|folder| Path::new(&folder).is_dir())
}

/// What a Debian system has packages for, and the programs of them that are needed.
struct Package {
    name: &'static str,
    packages: &'static [&'static str],
    programs: &'static [&'static str],
}

const MOSQUITTO: Package = Package {
    name: "Eclipse Mosquitto and its clients",
    packages: &["mosquitto", "mosquitto-clients"],
    programs: &["mosquitto", "mosquitto_pub", "mosquitto_sub"],
};

const NATS: Package = Package { name: "the NATS server", packages: &["nats-server"], programs: &["nats-server"] };

/// Takes dead letters apart, as docs/dead-letters.md shows.
const JQ: Package = Package { name: "jq", packages: &["jq"], programs: &["jq"] };

/// Build native plugins in C, and see that their header is clean in C++ too. What rustc links with may be of a package of its own.
const COMPILERS: Package =
    Package { name: "a C and a C++ compiler", packages: &["gcc", "g++"], programs: &["cc", "c++"] };

/// Makes keys of kinds that the scenarios' own library cannot make.
const OPENSSL: Package = Package { name: "OpenSSL", packages: &["openssl"], programs: &["openssl"] };

/// Of the long set: it takes about ten seconds to start, and brings Erlang with it.
const RABBITMQ: Package =
    Package { name: "RabbitMQ", packages: &["rabbitmq-server"], programs: &["rabbitmq-server", "epmd"] };

impl Package {
    fn missing(&self) -> Vec<&'static str> {
        self.programs.iter().copied().filter(|program| find(program, BROKER_FOLDERS).is_none()).collect()
    }
}

/// Gets the broker that the benchmark runs against, and its clients.
///
/// # Errors
/// It is missing and cannot be installed: with what to do.
pub fn ensure_mosquitto() -> Result<()> {
    ensure(&[MOSQUITTO])
}

/// Gets what scenarios run against and with; with `long`, those of the long set too.
///
/// # Errors
/// One is missing and cannot be installed: with what to do.
pub fn ensure_for_scenarios(long: bool) -> Result<()> {
    let mut wanted = vec![MOSQUITTO, NATS, OPENSSL, JQ, COMPILERS];
    if long {
        wanted.push(RABBITMQ);
    }
    ensure(&wanted)
}

fn ensure(wanted: &[Package]) -> Result<()> {
    let missing = || wanted.iter().filter(|package| !package.missing().is_empty()).collect::<Vec<_>>();
    let lacking = missing();
    if lacking.is_empty() {
        return Ok(());
    }
    let programs = lacking.iter().flat_map(|package| package.missing()).collect::<Vec<_>>().join(", ");
    let packages = lacking.iter().flat_map(|package| package.packages).copied().collect::<Vec<_>>();
    let Some(apt_get) = apt_get() else {
        let names = lacking.iter().map(|package| package.name).collect::<Vec<_>>().join(", ");
        bail!(
            "{programs} missing: install {names}, on Debian with `sudo apt-get install {}`. What needs none of them: \
             `cargo xtask test --only fmt,clippy,doc,deny,miri`",
            packages.join(" ")
        );
    };
    say!("{programs} missing: installing the packages {}", packages.join(" "));
    let install = || apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&packages).run();
    if install().is_err() {
        apt_get().arg("update").run()?;
        install()?;
    }
    match missing().iter().flat_map(|package| package.missing()).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => Ok(()),
        still => bail!("{still} still missing after the installation"),
    }
}

/// apt-get as one who may install: as root, or by a sudo that does not ask. It starts no service of what it installs: the
/// scenarios start their own, and systemd is told to leave the rest alone.
fn apt_get() -> Option<fn() -> Program> {
    const SETTINGS: [&str; 3] = ["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1", "apt-get"];
    find("apt-get", &[])?;
    if Program::new("id").arg("-u").read().is_ok_and(|user| user == "0") {
        return Some(|| Program::new("env").args(SETTINGS));
    }
    let may = Program::new("sudo").args(["--non-interactive", "true"]).succeeds();
    may.then_some(|| Program::new("sudo").args(["--non-interactive", "env"]).args(SETTINGS))
}

/// The C compiler that builds native plugins: what CC names, or `cc`.
///
/// # Errors
/// There is none: with what to do.
pub fn c_compiler() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CC").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    find("cc", &[]).context(
        "cc is missing: the native sample in C needs a C compiler; install one, on Debian with `sudo apt-get install gcc`, or name \
         it in CC",
    )
}

/// Cargo as it runs Miri: as found, or on a build server installed by rustup. None where neither can be: it has said why.
pub fn miri() -> Option<Program> {
    // With a standard library of its own: what was built with one that another toolchain has since replaced fits no more.
    let folder = target_dir().join("miri").join(MIRI_TOOLCHAIN);
    let miri = || cargo_of(MIRI_TOOLCHAIN).env("CARGO_TARGET_DIR", &folder).env("XDG_CACHE_HOME", &folder).arg("miri");
    if miri().arg("--version").succeeds() {
        return Some(miri());
    }
    let install = ["toolchain", "install", MIRI_TOOLCHAIN, "--profile", "minimal", "--component", "miri,rust-src"];
    if !is_ci() {
        say!("skipped: Miri is not installed (rustup {}); build servers run this step", install.join(" "));
        return None;
    }
    say!("installing Miri with the toolchain {MIRI_TOOLCHAIN}");
    match Program::new("rustup").args(install).run() {
        Ok(()) => Some(miri()),
        Err(error) => {
            say!("skipped: Miri cannot be installed: {error:#}");
            None
        }
    }
}

/// cargo-deny: as found, or on a build server installed into `target/tools`. None where neither is so.
///
/// # Errors
/// It cannot be installed.
pub fn cargo_deny() -> Result<Option<PathBuf>> {
    let tools = target_dir().join("tools");
    let own = tools.join("bin").join("cargo-deny");
    if own.is_file() {
        return Ok(Some(own));
    }
    if let Some(found) = find("cargo-deny", &[]) {
        return Ok(Some(found));
    }
    if !is_ci() {
        return Ok(None);
    }
    install("cargo-deny", CARGO_DENY_VERSION).map(Some)
}

/// cargo-fuzz: as found, or installed into `target/tools`.
///
/// # Errors
/// It cannot be installed.
pub fn cargo_fuzz() -> Result<PathBuf> {
    let own = target_dir().join("tools").join("bin").join("cargo-fuzz");
    if own.is_file() {
        Ok(own)
    } else {
        find("cargo-fuzz", &[]).map_or_else(|| install("cargo-fuzz", CARGO_FUZZ_VERSION), Ok)
    }
}

/// schemathesis, in a Python environment of its own in `target/tools`.
///
/// # Errors
/// Python is missing or too old, or it cannot be installed: with what to do.
pub fn schemathesis() -> Result<PathBuf> {
    let folder = target_dir().join("tools").join(format!("schemathesis-{SCHEMATHESIS_VERSION}"));
    let program = folder.join("bin").join("st");
    // The last that is installed: an interrupted installation has none, and is begun anew.
    if program.is_file() {
        return Ok(program);
    }
    say!("installing schemathesis {SCHEMATHESIS_VERSION} into {}", folder.display());
    let made = Program::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).run();
    made.context("schemathesis needs Python 3.10 or newer with venv, on Debian the package python3-venv")?;
    let requirement = format!("schemathesis=={SCHEMATHESIS_VERSION}");
    Program::new(folder.join("bin").join("python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .arg(requirement)
        .run()?;
    Ok(program)
}

/// Builds a program of cargo's registry into `target/tools`.
fn install(program: &str, version: &str) -> Result<PathBuf> {
    let tools = target_dir().join("tools");
    say!("installing {program} {version} into {}: some minutes, once", tools.display());
    // Unoptimised: it runs for seconds and compiles in a third of the time. A build folder of its own, so that an
    // interrupted installation goes on where it stopped.
    let build = tools.join("build");
    cargo()
        .args(["install", program, "--locked", "--debug", "--version", version, "--root"])
        .arg(&tools)
        .env("CARGO_TARGET_DIR", &build)
        .run()?;
    std::fs::remove_dir_all(build)?;
    Ok(tools.join("bin").join(program))
}
