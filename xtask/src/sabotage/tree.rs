//! A copy of the sources that can be broken, and what is built from it.
//!
//! Owns: `target/sabotage`. Before each build the copy is made to be the sources with the edits, whatever it was before,
//! so that nothing of an earlier sabotage stays. A file that need not change is not written, so that cargo builds only what
//! an edit concerns; one that is taken back is written anew, so that cargo sees it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::promises::Edit;
use crate::shell::{cargo, root, target_dir};

/// The copy, and the folder that it is built in.
pub struct Tree {
    copy: PathBuf,
    target: PathBuf,
    /// The sources as they were at the beginning: whoever goes on working meanwhile breaks nothing here.
    sources: BTreeMap<PathBuf, Vec<u8>>,
}

impl Tree {
    /// Of the sources as they are, in this folder, which nothing else may use.
    ///
    /// # Errors
    /// The sources cannot be read.
    pub fn new(folder: PathBuf) -> Result<Tree> {
        let mut sources = BTreeMap::new();
        read_folder(Path::new(""), &mut sources)?;
        Ok(Tree { copy: folder.join("tree"), target: folder.join("target"), sources })
    }

    /// Builds the daemon with these edits; where it is. The next build replaces it.
    ///
    /// # Errors
    /// An edit does not fit its file, a file cannot be read or written, or the daemon does not build.
    pub fn build(&self, edits: &[Edit]) -> Result<PathBuf> {
        self.lay_out(edits)?;
        // As the scenarios' own daemon is built, with the features of all packages together.
        let build = cargo()
            .args(["build", "--locked", "--quiet", "--workspace", "--bin", "tidegate", "--manifest-path"])
            .arg(self.copy.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&self.target);
        let done = build.output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            let error = said.lines().position(|line| line.starts_with("error")).unwrap_or(0);
            let shown = said.lines().skip(error).take(12).collect::<Vec<_>>().join("\n");
            bail!("the daemon does not build: {shown}");
        }
        Ok(self.target.join("debug").join("tidegate"))
    }

    /// Makes the copy what the sources are with these edits.
    fn lay_out(&self, edits: &[Edit]) -> Result<()> {
        if let Some(edit) = edits.iter().find(|edit| !self.sources.contains_key(Path::new(edit.file))) {
            bail!("there is no file {} to edit", edit.file);
        }
        for (file, content) in &self.sources {
            let mut content = Cow::Borrowed(content);
            for edit in edits.iter().filter(|edit| Path::new(edit.file) == file) {
                let text = String::from_utf8_lossy(&content);
                content = Cow::Owned(edit.apply(&text)?.into_bytes());
            }
            let place = self.copy.join(file);
            if fs::read(&place).is_ok_and(|old| old == *content) {
                continue;
            }
            let write = || {
                fs::create_dir_all(place.parent().unwrap_or(&self.copy))?;
                fs::write(&place, &*content)
            };
            write().with_context(|| format!("cannot write {}", place.display()))?;
        }
        remove_others(&self.copy, Path::new(""), &self.sources)
    }
}

impl Edit {
    /// The text with the edit made.
    ///
    /// # Errors
    /// What it replaces is not there exactly once.
    pub fn apply(&self, text: &str) -> Result<String> {
        match text.matches(self.old).count() {
            1 => Ok(text.replacen(self.old, self.new, 1)),
            count => bail!("{} has {count} times what is to be replaced once: {}", self.file, self.old),
        }
    }
}

/// Reads the files in a folder of the working tree, committed or not, by their path from the top. Left out is what is built
/// and what git keeps.
fn read_folder(folder: &Path, sources: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let shown = root().join(folder);
    for entry in fs::read_dir(&shown).with_context(|| format!("cannot list {}", shown.display()))? {
        let entry = entry?;
        let (path, kind) = (folder.join(entry.file_name()), entry.file_type()?);
        let left_out = [".git", "target"].iter().any(|name| entry.file_name() == *name) || entry.path() == target_dir();
        if kind.is_dir() && !left_out {
            read_folder(&path, sources)?;
        } else if kind.is_file() && !left_out {
            let content = fs::read(entry.path()).with_context(|| format!("cannot read {}", path.display()))?;
            sources.insert(path, content);
        }
    }
    Ok(())
}

/// Removes from the copy what is no file of the project any more: cargo would find a module or a test that was renamed.
fn remove_others(copy: &Path, folder: &Path, sources: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let shown = copy.join(folder);
    for entry in fs::read_dir(&shown).with_context(|| format!("cannot list {}", shown.display()))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(copy, &path, sources)?;
        } else if !sources.contains_key(&path) {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_replaces_what_stands_there_once() {
        let edit = Edit { file: "a", old: "true", new: "false" };
        assert_eq!(edit.apply("let x = true;").expect("it fits"), "let x = false;");
        assert!(edit.apply("let x = 1;").is_err(), "nothing to replace");
        assert!(edit.apply("true, true").is_err(), "twice");
    }

    #[test]
    fn the_copy_is_the_sources_with_the_edits_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("tidegate-sabotage-{}", std::process::id()));
        let tree = Tree::new(folder.clone()).expect("the sources can be read");
        let edit = Edit { file: "LICENSE", old: "Version 2.0, January 2004", new: "broken" };
        let copied = || fs::read_to_string(tree.copy.join("LICENSE")).expect("it is copied");
        tree.lay_out(&[edit]).expect("it fits");
        assert!(copied().contains("broken"));
        assert!(tree.copy.join("daemon/src/main.rs").is_file() && !tree.copy.join("target").exists());

        let stray = tree.copy.join("daemon/src/stray.rs");
        fs::write(&stray, "").expect("the folder is ours");
        let written =
            |file: &str| fs::metadata(tree.copy.join(file)).and_then(|meta| meta.modified()).expect("is there");
        let before = (written("LICENSE"), written("README.md"));
        tree.lay_out(&[]).expect("there is nothing to fit");
        assert!(!copied().contains("broken"), "the edit is taken back");
        assert!(!stray.exists());
        assert!(written("LICENSE") > before.0, "cargo sees that it changed");
        assert_eq!(written("README.md"), before.1, "and that this did not");
        fs::remove_dir_all(folder).expect("the folder is ours");
    }
}
