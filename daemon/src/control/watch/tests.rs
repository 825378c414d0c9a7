//! The watch on real files, with the system's events and without.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Longer than any test takes: what has to wait for it does not happen.
const NEVER: Duration = Duration::from_secs(3600);

/// Whatever happens, it happens soon.
const SOON: Terms = Terms {
    look: Duration::from_millis(50),
    closed: Duration::from_millis(50),
    unknown: Duration::from_millis(100),
    writing: Duration::from_millis(200),
    restless: NEVER,
    together: false,
};

/// Only what is said of a file makes it due.
const TOLD_ONLY: Terms = Terms { look: NEVER, closed: NEVER, unknown: NEVER, writing: NEVER, ..SOON };

/// No test waits longer.
const DEADLINE: Duration = Duration::from_secs(60);

struct Watched {
    _folder: TempDir,
    root: PathBuf,
    watch: Watch,
    sight: Sight,
}

/// Watches these files of a new folder, which `prepare` fills.
fn watched(names: &[&str], terms: Terms, events: bool, prepare: impl FnOnce(&Path)) -> Watched {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_owned();
    prepare(&root);
    let (watch, sight) = Watch::run("tests", terms, files(&root, names), events).expect("starts");
    Watched { _folder: folder, root, watch, sight }
}

fn files(root: &Path, names: &[&str]) -> Wanted {
    Wanted { files: names.iter().map(|name| root.join(name)).collect(), folders: Vec::new() }
}

impl Watched {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    async fn next(&mut self) -> Vec<Seen> {
        timeout(DEADLINE, self.sight.next()).await.expect("in time").expect("goes on")
    }

    /// Waits until a file is told with this content, or as gone. How many reports that took.
    async fn until(&mut self, name: &str, content: Option<&str>) -> usize {
        let path = self.path(name);
        let mut reports = 0;
        loop {
            for seen in self.next().await {
                reports += 1;
                let found = match &seen {
                    Seen::Settled(settled) => Some(fs::read_to_string(&settled.path).expect("is there")),
                    Seen::Gone(_) => None,
                };
                if seen.path() == path && found.as_deref() == content {
                    return reports;
                }
            }
        }
    }

    /// Waits until something is to be told of a file, and leaves it there.
    async fn waits(&self, name: &str) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !self.sight.reports.has(&self.path(name)) {
            assert!(tokio::time::Instant::now() < deadline, "nothing is told");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Puts a file the way that is recommended.
    fn put(&self, name: &str, content: &str) {
        fs::write(self.path(".new"), content).expect("is written");
        fs::rename(self.path(".new"), self.path(name)).expect("is renamed");
    }

    /// Waits until the watch has begun, so that the system tells what happens from now on.
    async fn begun(&mut self) {
        self.watch.want(files(&self.root, &["begun"]));
        // The name is new for it: no event is waited for.
        loop {
            self.put("begun", "");
            if let Ok(seen) = timeout(Duration::from_millis(200), self.sight.next()).await {
                assert_eq!(seen.expect("goes on")[0].path(), self.path("begun"));
                return;
            }
        }
    }
}

#[tokio::test]
async fn what_is_renamed_into_place_is_told_at_once() {
    let mut watched = watched(&[], TOLD_ONLY, true, |_| {});
    watched.begun().await;
    watched.watch.want(files(&watched.root, &["a.wasm", "b.wasm"]));
    for round in ["1", "2", "3"] {
        watched.put("a.wasm", round);
        watched.until("a.wasm", Some(round)).await;
    }
}

#[tokio::test]
async fn what_is_overwritten_in_place_is_told_once_it_is_closed() {
    let terms = Terms { closed: SOON.closed, ..TOLD_ONLY };
    let mut watched = watched(&[], terms, true, |_| {});
    watched.begun().await;
    watched.watch.want(files(&watched.root, &["a.wasm"]));
    for round in ["one", "two", "six"] {
        fs::write(watched.path("a.wasm"), round).expect("is written");
        watched.until("a.wasm", Some(round)).await;
    }
    fs::write(watched.path("other"), "the longest").expect("is written");
    fs::copy(watched.path("other"), watched.path("a.wasm")).expect("is copied");
    watched.until("a.wasm", Some("the longest")).await;
}

#[tokio::test]
async fn who_begins_anew_after_a_panic_watches_what_was_wanted_before() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.wasm"), "old").expect("is written");
    let (inbox, reports) = (Arc::new(Inbox::default()), Arc::new(Reports::default()));
    inbox.want(files(folder.path(), &["a.wasm"]));
    let looks = || Looks::new("tests", SOON, Arc::clone(&inbox), Arc::clone(&reports), true);
    // A panic takes along what was taken from the inbox.
    let panicked = looks();
    assert!(inbox.wait(std::time::Instant::now()).is_some_and(|news| news.wanted.is_some()));
    drop(panicked);
    let again = looks();
    let thread = std::thread::spawn(|| again.run());
    let seen = timeout(DEADLINE, reports.next()).await.expect("in time").expect("goes on");
    assert_eq!(seen.iter().map(Seen::path).collect::<Vec<_>>(), [folder.path().join("a.wasm")]);
    inbox.stop();
    thread.join().expect("ends");
}

#[tokio::test]
async fn what_somebody_else_wants_to_know_of_is_told_again() {
    for events in [true, false] {
        let mut watched = watched(&["a"], SOON, events, |root| fs::write(root.join("a"), "same").expect("is written"));
        for _ in 0..3 {
            watched.until("a", Some("same")).await;
            watched.watch.tell_again([watched.path("a"), watched.path("other")].into());
        }
        watched.until("a", Some("same")).await;
        for _ in 0..2 {
            fs::remove_file(watched.path("a")).or_else(absent).expect("goes");
            watched.watch.tell_again([watched.path("a")].into());
            watched.until("a", None).await;
        }
    }
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[tokio::test]
async fn what_goes_and_comes_again_is_told() {
    for events in [true, false] {
        let mut watched =
            watched(&["a.wasm"], SOON, events, |root| fs::write(root.join("a.wasm"), "old").expect("is written"));
        watched.until("a.wasm", Some("old")).await;
        fs::remove_file(watched.path("a.wasm")).expect("goes");
        watched.until("a.wasm", None).await;
        fs::write(watched.path("a.wasm"), "new").expect("is written");
        watched.until("a.wasm", Some("new")).await;
        fs::rename(watched.path("a.wasm"), watched.path("b.wasm")).expect("goes");
        watched.until("a.wasm", None).await;
    }
}

#[tokio::test]
async fn a_directory_may_come_later_go_and_come_again() {
    for events in [true, false] {
        let mut watched = watched(&["plugins/a.wasm"], SOON, events, |_| {});
        watched.until("plugins/a.wasm", None).await;
        for round in ["1", "2", "3"] {
            fs::create_dir(watched.path("plugins")).expect("is made");
            fs::write(watched.path("plugins/a.wasm"), round).expect("is written");
            watched.until("plugins/a.wasm", Some(round)).await;
            // Its successor may have the same inode.
            fs::remove_dir_all(watched.path("plugins")).expect("goes");
            if round != "2" {
                watched.until("plugins/a.wasm", None).await;
            }
        }
    }
}

#[tokio::test]
async fn the_system_tells_of_a_directory_that_took_the_place_of_another() {
    let terms = Terms { look: SOON.look, ..TOLD_ONLY };
    let mut watched =
        watched(&["plugins/a"], terms, true, |root| fs::create_dir(root.join("plugins")).expect("is made"));
    for round in ["1", "2", "3"] {
        fs::remove_dir_all(watched.path("plugins")).expect("goes");
        fs::create_dir(watched.path("plugins")).expect("is made");
        // Nothing but the event of a rename makes a file due, and it comes once the new directory is watched.
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "is not watched");
            watched.put("plugins/a", round);
            if timeout(Duration::from_millis(200), watched.until("plugins/a", Some(round))).await.is_ok() {
                break;
            }
        }
    }
}

/// Has a link lead elsewhere, at once.
fn switch(link: &Path, target: &str) {
    let beside = link.with_file_name(".switch");
    symlink(target, &beside).expect("is linked");
    fs::rename(beside, link).expect("is renamed");
}

/// A folder with one file.
fn release(root: &Path, name: &str, file: &str, content: &str) {
    fs::create_dir(root.join(name)).expect("is made");
    fs::write(root.join(name).join(file), content).expect("is written");
}

#[tokio::test]
async fn a_link_that_all_files_lead_through_is_switched_at_once() {
    let mut watched = watched(&[], TOLD_ONLY, true, |root| {
        release(root, "..1", "a.toml", "one");
        release(root, "..2", "a.toml", "two");
        switch(&root.join("..data"), "..1");
        symlink("..data/a.toml", root.join("a.toml")).expect("is linked");
    });
    watched.begun().await;
    watched.watch.want(files(&watched.root, &["a.toml"]));
    for (target, content) in [("..2", "two"), ("..1", "one")] {
        switch(&watched.path("..data"), target);
        watched.until("a.toml", Some(content)).await;
    }
}

#[tokio::test]
async fn a_directory_behind_a_link_is_followed() {
    for events in [true, false] {
        let mut watched = watched(&["plugins/a.wasm"], SOON, events, |root| {
            release(root, "1", "a.wasm", "one");
            release(root, "2", "a.wasm", "two");
            switch(&root.join("plugins"), "1");
        });
        watched.until("plugins/a.wasm", Some("one")).await;
        switch(&watched.path("plugins"), "2");
        watched.until("plugins/a.wasm", Some("two")).await;
        watched.put("2/a.wasm", "three");
        watched.until("plugins/a.wasm", Some("three")).await;
    }
}

#[tokio::test]
async fn a_link_to_a_file_elsewhere_is_followed_by_looking() {
    let mut watched = watched(&["a.wasm"], SOON, true, |root| {
        release(root, "elsewhere", "a.wasm", "one");
        symlink("elsewhere/a.wasm", root.join("a.wasm")).expect("is linked");
    });
    watched.until("a.wasm", Some("one")).await;
    watched.put("elsewhere/a.wasm", "two");
    watched.until("a.wasm", Some("two")).await;
}

/// Writes a file in pieces, opened anew for each or not. The longest pause between two.
fn copy_slowly(path: &Path, piece: &str, pieces: usize, reopen: bool) -> Duration {
    let mut file = File::create(path).expect("is made");
    let mut longest = Duration::ZERO;
    let mut before = std::time::Instant::now();
    for _ in 0..pieces {
        // The pace of what is tested, not a condition.
        std::thread::sleep(Duration::from_millis(20));
        if reopen {
            file = File::options().append(true).open(path).expect("is there");
        }
        file.write_all(piece.as_bytes()).expect("is written");
        longest = longest.max(before.elapsed());
        before = std::time::Instant::now();
    }
    longest
}

#[tokio::test]
async fn a_slow_copy_is_never_told_before_its_end() {
    let rest = Duration::from_secs(1);
    let patient = Terms { closed: rest, unknown: rest, writing: NEVER, ..SOON };
    for (events, reopen) in [(true, false), (true, true), (false, false), (false, true)] {
        // A machine that stops the writer for longer shows nothing; it does not do so again and again.
        let mut conclusive = false;
        for attempt in 0..5 {
            let mut watched = watched(&["a.wasm"], patient, events, |_| {});
            let (path, piece) = (watched.path("a.wasm"), format!("piece {attempt};"));
            let whole = piece.repeat(40);
            let writer = {
                let piece = piece.clone();
                std::thread::spawn(move || copy_slowly(&path, &piece, 40, reopen))
            };
            let reports = watched.until("a.wasm", Some(&whole)).await;
            if writer.join().expect("writes") < rest / 2 {
                assert_eq!(reports, 1, "told before its end");
                conclusive = true;
                break;
            }
        }
        assert!(conclusive, "the machine is too busy");
    }
}

#[tokio::test]
async fn a_thousand_quick_writes_are_told_as_few() {
    for events in [true, false] {
        let terms = Terms { closed: Duration::from_millis(500), unknown: Duration::from_millis(500), ..SOON };
        let mut watched = watched(&["a.wasm"], terms, events, |_| {});
        let path = watched.path("a.wasm");
        let writer = std::thread::spawn(move || {
            for round in 0..1000 {
                fs::write(&path, format!("{round:04}")).expect("is written");
            }
        });
        let reports = watched.until("a.wasm", Some("0999")).await;
        assert!(reports <= 10, "{reports} reports");
        writer.join().expect("writes");
    }
}

#[tokio::test]
async fn who_is_slow_to_take_gets_the_last_state_alone() {
    let mut watched = watched(&[], TOLD_ONLY, true, |_| {});
    watched.begun().await;
    watched.watch.want(files(&watched.root, &["a", "b"]));
    for round in 0..100 {
        watched.put("a", &round.to_string());
    }
    watched.put("b", "last");
    watched.waits("b").await;
    let reports = watched.next().await;
    let a: Vec<&Seen> = reports.iter().filter(|seen| seen.path() == watched.path("a")).collect();
    let [Seen::Settled(settled)] = a[..] else { panic!("{reports:?}") };
    assert!(settled.holds());
    watched.put("a", "other");
    assert!(!settled.holds());
}

#[tokio::test]
async fn what_changes_again_before_it_was_taken_is_taken_back() {
    let mut watched = watched(&[], TOLD_ONLY, true, |_| {});
    watched.begun().await;
    watched.watch.want(files(&watched.root, &["a", "b"]));
    watched.put("a", "whole");
    watched.waits("a").await;
    let mut writer = File::options().append(true).open(watched.path("a")).expect("is there");
    writer.write_all(b" and half").expect("is written");
    watched.put("b", "later");
    watched.waits("b").await;
    let reports = watched.next().await;
    assert_eq!(reports.iter().map(Seen::path).collect::<Vec<_>>(), [watched.path("b")]);
}

#[tokio::test]
async fn nobody_is_told_of_who_reads_and_of_what_is_not_wanted() {
    let mut watched = watched(&["a.wasm", "z.wasm"], SOON, true, |root| {
        ["a.wasm", "z.wasm"].iter().for_each(|name| fs::write(root.join(name), "old").expect("is written"));
    });
    watched.waits("a.wasm").await;
    watched.waits("z.wasm").await;
    assert_eq!(watched.next().await.len(), 2);
    for _ in 0..100 {
        fs::read(watched.path("a.wasm")).expect("is read");
        for name in ["a.wasm~", ".a.wasm.swp", "a.wasm.tmp"] {
            fs::write(watched.path(name), "x").expect("is written");
        }
    }
    // Due after whatever was due before.
    fs::write(watched.path("z.wasm"), "new").expect("is written");
    assert_eq!(watched.until("z.wasm", Some("new")).await, 1);
}

#[tokio::test]
async fn files_of_a_folder_are_found_and_told_together() {
    for events in [true, false] {
        let terms = Terms { together: true, ..SOON };
        let mut watched =
            watched(&[], terms, events, |root| fs::write(root.join("main.toml"), "main").expect("is written"));
        let folders = vec![(watched.path("conf.d"), "toml")];
        watched.watch.want(Wanted { folders, ..files(&watched.root, &["main.toml"]) });
        assert_eq!(watched.until("main.toml", Some("main")).await, 1);
        fs::create_dir(watched.path("conf.d")).expect("is made");
        for name in ["a.txt", "b.toml~", "c.toml"] {
            fs::write(watched.path("conf.d").join(name), "x").expect("is written");
        }
        assert_eq!(watched.until("conf.d/c.toml", Some("x")).await, 1);
        fs::remove_file(watched.path("conf.d/c.toml")).expect("goes");
        assert_eq!(watched.until("conf.d/c.toml", None).await, 1);
    }
}

#[tokio::test]
async fn a_relative_path_is_watched_and_told_as_it_was_given() {
    // In the folder that tests run in; the working directory belongs to all tests.
    let folder = tempfile::Builder::new().prefix("watch-").tempdir_in("../target").expect("a folder");
    let relative = Path::new("../target").join(folder.path().file_name().expect("has a name"));
    let terms = Terms { look: SOON.look, ..TOLD_ONLY };
    let (watch, mut sight) = Watch::start("tests", terms, files(&relative, &["./a.wasm"])).expect("starts");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let seen = loop {
        assert!(tokio::time::Instant::now() < deadline, "is not told");
        fs::write(relative.join("new"), "x").expect("is written");
        fs::rename(relative.join("new"), relative.join("a.wasm")).expect("is renamed");
        if let Ok(seen) = timeout(Duration::from_millis(200), sight.next()).await {
            break seen.expect("goes on");
        }
    };
    assert_eq!(seen[0].path(), relative.join("a.wasm"));
    drop(watch);
    assert_eq!(timeout(DEADLINE, sight.next()).await.expect("in time"), None);
}
