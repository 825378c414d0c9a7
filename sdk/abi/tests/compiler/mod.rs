//! Building C and C++ for tests, with every warning an error.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Clean means clean of these.
const WARNINGS: [&str; 7] =
    ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-fvisibility=hidden", "-Werror"];

/// A compiler of one language.
pub struct Compiler {
    variable: &'static str,
    program: &'static str,
    language: &'static str,
    standard: &'static str,
}

/// Of C11.
pub const C: Compiler = Compiler { variable: "CC", program: "cc", language: "c", standard: "-std=c11" };

/// Of C++17.
pub const CXX: Compiler = Compiler { variable: "CXX", program: "c++", language: "c++", standard: "-std=c++17" };

/// Where `tidegate.h` is.
pub fn header_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in sdk").join("c")
}

impl Compiler {
    /// Builds a source with these options, and gives where the result is.
    ///
    /// # Panics
    /// There is no compiler, or it has something to say.
    pub fn build(&self, name: &str, source: &str, options: &[&str]) -> PathBuf {
        self.build_all(name, &[(name, source)], options)
    }

    /// Builds several named sources into one, as [`Self::build`].
    pub fn build_all(&self, name: &str, sources: &[(&str, &str)], options: &[&str]) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi").join(self.language);
        fs::create_dir_all(&folder).expect("the target folder can be written to");
        let written = sources.iter().map(|(name, source)| {
            let file = folder.join(name).with_extension(self.language);
            fs::write(&file, source).expect("the target folder can be written to");
            file
        });
        let files = written.collect::<Vec<_>>();
        let built = folder.join(name);
        let program = std::env::var_os(self.variable).unwrap_or_else(|| OsString::from(self.program));
        let output = Command::new(&program)
            .args(["-x", self.language, self.standard])
            .args(WARNINGS)
            .arg("-I")
            .arg(header_folder())
            .args(options)
            .arg("-o")
            .arg(&built)
            .args(&files)
            .output();
        let output = output.unwrap_or_else(|error| {
            panic!(
                "cannot start the compiler {program:?} ({error}): install one, on Debian with `apt-get install gcc g++`, or name it in {}",
                self.variable
            )
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{files:?}:\n{said}");
        built
    }
}
