//! The probe: a process of its own that loads a library before the daemon does, so that initialisers or an entry point that crash or hang
//! cost that process and nothing else.
//!
//! Owns: the process, from its start to its end. Fed by [`super::library`] with the private copy that the daemon is to load next. Both sides
//! are here: what the daemon starts and waits for, and what the command `tidegate load-native` does. What the process told and how it
//! ended is judged by a pure function. It deliberately makes no instance: `create` and calls need a handler, and stay the daemon's risk.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::error::NativeError;
use super::library::{LOAD_DEADLINE, in_time, open};
use super::process;

/// The command that the daemon runs.
const COMMAND: &str = "load-native";

/// The process is about to have the library loaded. The first line that it tells: without it, its end says nothing of the library.
const BEGINS: &str = "loading";
/// The initialisers have ended.
const INITIALISED: &str = "initialised";
/// The library is a plugin.
const LOADS: &str = "loads";
/// The library does not load within [`LOAD_DEADLINE`].
const HANGS: &str = "hangs";
/// The library is none that this version runs; the sentence follows.
const REFUSED: &str = "refused: ";
/// It cannot be told what the library is; the sentence follows.
const FAILED: &str = "failed: ";

/// Bytes read of what the process tells. A pipe holds as many, so that nobody need read while it runs.
const MAX_TOLD_BYTES: u64 = 4096;

/// How long a process that was killed may take to end. Past that, such as on a disk that does not answer, it is left to itself.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How long it may take until it begins. Its own deadline, which it tells of, begins there: on a busy machine it is the first one to pass.
const BEGIN_GRACE: Duration = Duration::from_secs(5);

/// Standard output.
const STDOUT: RawFd = 1;

/// What of a library ran last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the dynamic linker runs: constructors.
    Initialisers,
    /// `tidegate_plugin_v1`.
    EntryPoint,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Initialisers => "its initialisers",
            Part::EntryPoint => "its entry point",
        })
    }
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By itself, or by a signal.
    Status(ExitStatus),
    /// Somebody else was told how: SIGCHLD is ignored, or a plugin waits for all children.
    Unknown,
    /// It was killed at its deadline.
    TookTooLong,
}

/// Has a process of its own load the library at `path` and call its entry point. Blocks, for [`LOAD_DEADLINE`],
/// [`BEGIN_GRACE`] and [`KILL_GRACE`] at most.
///
/// # Errors
/// The library is no plugin of this version, ends the process or does not end; or there can be no such process.
pub(super) fn check(path: &Path) -> Result<(), NativeError> {
    let program = program().map_err(|error| NativeError::NotTried(format!("the program is not found: {error}")))?;
    let mut command = Command::new(program);
    command.arg0("tidegate").arg(COMMAND).arg(path);
    let (told, end) = run(&mut command, LOAD_DEADLINE + BEGIN_GRACE)?;
    judge(&told, end)
}

/// This program, also where its file has been replaced since it was started.
#[cfg(target_os = "linux")]
fn program() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// This program.
#[cfg(not(target_os = "linux"))]
fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Runs a process to its end, or to its deadline. What it told, and how it ended.
fn run(command: &mut Command, limit: Duration) -> Result<(String, End), NativeError> {
    // A group of its own: what it starts ends with it, and what a terminal sends to the daemon's group is not for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
    let mut child = command.spawn().map_err(|error| NativeError::NotTried(format!("it cannot be started: {error}")))?;
    let told = child.stdout.take().expect("is piped");
    let end = Waited::of(child)?.end(limit);
    let told = read(told).map_err(|error| NativeError::NotTried(format!("what it tells cannot be read: {error}")))?;
    Ok((told, end))
}

/// What is in the pipe now: a process that outlives the one that was waited for may hold the other end open.
fn read(told: ChildStdout) -> io::Result<String> {
    rustix::io::ioctl_fionbio(&told, true)?;
    let mut bytes = Vec::new();
    match told.take(MAX_TOLD_BYTES).read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// A process that a thread waits for.
struct Waited {
    /// Until it is reaped: as long as it is there, its number is no other's.
    child: Arc<Mutex<Option<Child>>>,
    ended: mpsc::Receiver<End>,
}

impl Waited {
    /// Begins to wait.
    fn of(child: Child) -> Result<Waited, NativeError> {
        let pid = Pid::from_child(&child);
        let child = Arc::new(Mutex::new(Some(child)));
        let (tells, ended) = mpsc::sync_channel(1);
        let waited = Waited { child: Arc::clone(&child), ended };
        let wait = move || {
            // Not reaped here: whoever kills it must not meet another process with its number.
            let exited = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let is_there = rustix::io::retry_on_intr(exited).is_ok();
            let mut place = lock(&child);
            if is_there && let Some(child) = place.as_ref() {
                kill(child);
            }
            let status = place.take().map(|mut child| child.wait());
            // Nobody may be there any more to hear of it.
            let _ = tells.send(status.and_then(Result::ok).map_or(End::Unknown, End::Status));
        };
        match std::thread::Builder::new().name("native-probe".to_owned()).spawn(wait) {
            Ok(_) => Ok(waited),
            Err(error) => {
                if let Some(mut child) = lock(&waited.child).take() {
                    kill(&child);
                    let _ = child.wait();
                }
                Err(NativeError::NoThread(error.to_string()))
            }
        }
    }

    /// How it ended; past the limit it is killed.
    fn end(self, limit: Duration) -> End {
        if let Ok(end) = self.ended.recv_timeout(limit) {
            return end;
        }
        if let Some(child) = lock(&self.child).as_ref() {
            kill(child);
        }
        let _ = self.ended.recv_timeout(KILL_GRACE);
        End::TookTooLong
    }
}

/// A process that is there or not: whole in any case.
fn lock(child: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a process that is not reaped yet, and those that it has started.
fn kill(child: &Child) {
    // Fails only where none of them is left.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// What follows for the library from what a process that loaded it told, and from how it ended.
fn judge(told: &str, end: End) -> Result<(), NativeError> {
    let mut lines = told.lines();
    if lines.next() != Some(BEGINS) {
        return Err(NativeError::NotTried(match end {
            End::Status(status) => format!("it ended before it had begun, {}", how(status)),
            End::Unknown => "it ended before it had begun".to_owned(),
            End::TookTooLong => {
                format!("it did not begin within {}", humantime::format_duration(LOAD_DEADLINE + BEGIN_GRACE))
            }
        }));
    }
    let (mut part, mut verdict) = (Part::Initialisers, None);
    for line in lines {
        match line {
            INITIALISED => part = Part::EntryPoint,
            line => verdict = Some(line),
        }
    }
    let status = match end {
        End::TookTooLong if verdict == Some(LOADS) => {
            return Err(NativeError::NotTried("the library loads, and the process does not end".to_owned()));
        }
        End::TookTooLong => return Err(NativeError::TookTooLong { part }),
        End::Status(status) if status.signal().is_some_and(is_sent) => {
            return Err(NativeError::NotTried(format!("it was ended from outside, {}", how(status))));
        }
        End::Status(status) if status.signal().is_some() => return Err(NativeError::Ends { part, how: how(status) }),
        End::Status(status) => Some(status),
        End::Unknown => None,
    };
    match verdict {
        Some(LOADS) if status.is_none_or(|status| status.success()) => Ok(()),
        Some(HANGS) => Err(NativeError::TookTooLong { part }),
        Some(line) if let Some(sentence) = line.strip_prefix(REFUSED) => Err(NativeError::Tried(sentence.to_owned())),
        Some(line) if let Some(sentence) = line.strip_prefix(FAILED) => Err(NativeError::NotTried(sentence.to_owned())),
        _ => Err(match status {
            Some(status) => NativeError::Ends { part, how: how(status) },
            None => NativeError::NotTried("nobody knows how it ended".to_owned()),
        }),
    }
}

/// Whether a signal is one that others send: a service's stop, a terminal, a system whose memory runs out, or a limit on files or time.
fn is_sent(signal: i32) -> bool {
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::KILL, Signal::TERM, Signal::XFSZ, Signal::XCPU]
        .iter()
        .any(|sent| sent.as_raw() == signal)
}

/// The end of a process, for people.
fn how(status: ExitStatus) -> String {
    // In the words of the standard library, which knows the names of signals: `signal: 6 (SIGABRT) (core dumped)`.
    match status.code() {
        Some(code) => format!("with exit status {code}"),
        None => format!("by {}", status.to_string().replacen("signal: ", "signal ", 1)),
    }
}

/// Loads a library as the daemon does, tells on standard output how far that got, and ends this process: what `tidegate load-native` does.
pub fn load_native(library: &Path) -> ! {
    end_with_parent();
    // The dynamic linker looks for a name without a folder elsewhere.
    let library = std::path::absolute(library).unwrap_or_else(|_| library.to_owned());
    let status = match take_stdout() {
        Ok(told) => load(library, &Arc::new(told)),
        // Where it cannot be told, that it has not begun says it.
        Err(_) => 1,
    };
    // Without destructors: the daemon runs none of a library's before its own end, and then tells if one does not end.
    process::end(status)
}

/// Loads a library, tells how far that got, and gives the exit status.
fn load(library: PathBuf, told: &Arc<File>) -> u8 {
    let tell = |told: &File, line: &str| {
        // Where nobody is left to read it, nobody waits for the verdict either.
        let _ = (&*told).write_all(format!("{line}\n").as_bytes());
    };
    tell(told, BEGINS);
    let initialised = {
        let told = Arc::clone(told);
        move |loaded| {
            if loaded {
                tell(&told, INITIALISED);
            }
        }
    };
    // Its own deadline too: it holds where this process outlives the one that waits for it.
    let verdict = match in_time(move || open(&library, initialised)) {
        Ok(Some(Ok(Ok(_plugin)))) => LOADS.to_owned(),
        Ok(Some(Ok(Err(error)) | Err(error))) if error.blames_the_version() => format!("{REFUSED}{error}"),
        Ok(Some(Ok(Err(error)) | Err(error))) | Err(error) => format!("{FAILED}{error}"),
        Ok(None) => HANGS.to_owned(),
    };
    tell(told, &verdict);
    u8::from(verdict != LOADS)
}

/// Has the system end this process when the thread that started it ends.
#[cfg(target_os = "linux")]
fn end_with_parent() {
    // Where that thread has ended already, or the system cannot, this process ends at its own deadline.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
}

/// Elsewhere this process ends at its own deadline.
#[cfg(not(target_os = "linux"))]
fn end_with_parent() {}

/// Standard output for this alone. What a library writes there goes to standard error: it is neither a verdict, nor does it wait for
/// somebody to read it.
fn take_stdout() -> io::Result<File> {
    let told = rustix::io::fcntl_dupfd_cloexec(io::stdout(), STDOUT + 2)?;
    // SAFETY: std has seen to it that descriptor 1 is open, and as this is never dropped, it stays so for all others that use it.
    let mut stdout = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(STDOUT) });
    rustix::io::dup2(io::stderr(), &mut stdout)?;
    Ok(File::from(told))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const ABORT: i32 = 6;
    const SEGV: i32 = 11;

    fn exit(code: i32) -> End {
        End::Status(ExitStatus::from_raw(code << 8))
    }

    fn signal(signal: i32) -> End {
        End::Status(ExitStatus::from_raw(signal))
    }

    /// The sentence, and whether it is remembered against the version.
    #[track_caller]
    fn check(told: &str, end: End, expected: &str, blames: bool) {
        let error = judge(told, end).expect_err("does not load");
        assert_eq!((error.to_string().as_str(), error.blames_the_version()), (expected, blames));
    }

    #[test]
    fn who_loads_and_ends_well_is_a_plugin() {
        judge("loading\ninitialised\nloads\n", exit(0)).expect("loads");
        judge("loading\ninitialised\nloads\n", End::Unknown).expect("loads");
    }

    #[test]
    fn a_crash_is_told_with_the_part_that_ran_and_the_signals_name() {
        let words = |part: &str, how: &str| {
            format!(
                "cannot be loaded: {part} ended the process that tried it first, {how}; `tidegate load-native FILE` shows it"
            )
        };
        check("loading\n", signal(ABORT), &words("its initialisers", "by signal 6 (SIGABRT)"), true);
        check(
            "loading\n",
            signal(ABORT | 0x80),
            &words("its initialisers", "by signal 6 (SIGABRT) (core dumped)"),
            true,
        );
        let entry = "loading\ninitialised\n";
        check(entry, signal(SEGV), &words("its entry point", "by signal 11 (SIGSEGV)"), true);
        check("loading\n", exit(0), &words("its initialisers", "with exit status 0"), true);
        check(entry, exit(3), &words("its entry point", "with exit status 3"), true);
        // A thread of its own may end the process late.
        check("loading\ninitialised\nloads\n", signal(SEGV), &words("its entry point", "by signal 11 (SIGSEGV)"), true);
        check("loading\ninitialised\nloads\n", exit(3), &words("its entry point", "with exit status 3"), true);
    }

    #[test]
    fn what_hangs_is_told_with_the_part_that_does() {
        let words = |part: &str| {
            format!(
                "cannot be loaded: {part} did not end within 10s in the process that tried it first; `tidegate load-native FILE` shows it"
            )
        };
        check("loading\n", End::TookTooLong, &words("its initialisers"), true);
        check("loading\ninitialised\n", End::TookTooLong, &words("its entry point"), true);
        check("loading\nhangs\n", exit(1), &words("its initialisers"), true);
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let sentence = "is a shared library, but not a plugin";
        check(&format!("loading\ninitialised\nrefused: {sentence}\n"), exit(1), sentence, true);
        check(&format!("loading\nrefused: {sentence}\n"), End::Unknown, sentence, true);
    }

    #[test]
    fn what_is_not_the_librarys_fault_is_not_remembered_against_it() {
        let words = |why: &str| {
            format!(
                "cannot be tried in a process of its own: {why}; the daemon starts its own program for that, before it loads a native \
                 plugin; try again once that is possible"
            )
        };
        let sent = ["1 (SIGHUP)", "2 (SIGINT)", "3 (SIGQUIT)", "9 (SIGKILL)", "15 (SIGTERM)"];
        for (number, name) in [1, 2, 3, 9, 15].into_iter().zip(sent) {
            check("loading\n", signal(number), &words(&format!("it was ended from outside, by signal {name}")), false);
        }
        check("", exit(127), &words("it ended before it had begun, with exit status 127"), false);
        check("running 0 tests\n", exit(0), &words("it ended before it had begun, with exit status 0"), false);
        check("", End::TookTooLong, &words("it did not begin within 15s"), false);
        check("loading\nfailed: no thread\n", exit(1), &words("no thread"), false);
        check("loading\n", End::Unknown, &words("nobody knows how it ended"), false);
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn the_end_of_a_process_and_what_it_told_are_known() {
        let ran = |script: &str| run(&mut shell(script), PATIENCE).expect("is run");
        assert_eq!(ran("echo loading; exit 3"), ("loading\n".to_owned(), exit(3)));
        assert_eq!(ran("ulimit -c 0; kill -s ABRT $$"), (String::new(), signal(ABORT)));
    }

    /// Runs a script that has a pipe open as its descriptor 9. Returns once nobody has it open any more.
    #[track_caller]
    fn run_all(script: &str, limit: Duration) -> (String, End) {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
        let (tells, closed) = mpsc::channel();
        let script = format!("exec 9>{}; {script}", pipe.display());
        std::thread::spawn(move || tells.send(std::fs::read(pipe)));
        let begin = Instant::now();
        let ran = run(&mut shell(&script), limit).expect("is run");
        let read = closed.recv_timeout(PATIENCE).expect("what the process has started outlives it");
        assert!(read.is_ok_and(|read| read.is_empty()) && begin.elapsed() < PATIENCE);
        ran
    }

    #[test]
    fn a_process_and_what_it_has_started_end_at_the_deadline() {
        let ran = run_all("echo loading; sleep 600 & sleep 600", Duration::from_secs(5));
        assert_eq!(ran, ("loading\n".to_owned(), End::TookTooLong));
    }

    #[test]
    fn what_a_process_leaves_behind_is_not_waited_for_and_ends() {
        assert_eq!(run_all("sleep 600 & echo loading", PATIENCE), ("loading\n".to_owned(), exit(0)));
    }

    #[test]
    fn a_process_that_cannot_be_started_is_the_machines_fault() {
        let error = run(&mut Command::new("/nonexistent/tidegate"), PATIENCE).expect_err("is not there");
        let words =
            "cannot be tried in a process of its own: it cannot be started: No such file or directory (os error 2);";
        assert!(error.to_string().starts_with(words), "{error}");
        assert!(!error.blames_the_version());
    }
}
