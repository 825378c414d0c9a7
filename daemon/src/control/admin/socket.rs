//! The Unix socket of the admin plane: whoever may open it may do everything.
//!
//! Owns: that it is never open to others, not even for a moment; that only one daemon serves it; that one left behind by a
//! dead daemon is replaced; that it goes with the daemon. Knows nothing of HTTP.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It is served already.
    #[error("another daemon serves it; stop that one, or give this one another state-dir or admin.socket")]
    Served,
    /// Something else has its name.
    #[error("there is something that is no socket; remove it, or set admin.socket to another path")]
    NoSocket,
    /// Its path does not fit into an address.
    #[error(
        "the path has {0} bytes, more than the address of a Unix socket can hold; set admin.socket to a shorter one"
    )]
    TooLong(usize),
    /// The system does not permit it.
    #[error("its folder must be one that the daemon can write to; make it so, or set admin.socket to another path")]
    System(#[from] io::Error),
}

/// A bound socket, which only its owner may open. Dropping it removes it.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Locked while the socket is ours. It stays behind: a daemon that removed it could take it from under the next one.
    _lock: File,
}

impl AdminSocket {
    /// Takes the path.
    ///
    /// # Errors
    /// It cannot be served, with what to do.
    pub async fn bind(path: &Path) -> Result<AdminSocket, SocketError> {
        if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
            return Err(SocketError::TooLong(path.as_os_str().len()));
        }
        let lock = lock(path)?;
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket),
            // Also one that does not answer at once: somebody is there.
            Ok(_) if !is_dead(UnixStream::connect(path).await.as_ref()) => return Err(SocketError::Served),
            Ok(_) | Err(_) => {}
        }
        Ok(AdminSocket { listener: private(path)?, path: path.to_owned(), _lock: lock })
    }

    /// Where clients come in.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the admin socket cannot be removed");
        }
    }
}

fn is_dead(answer: Result<&UnixStream, &io::Error>) -> bool {
    matches!(answer, Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
}

/// The lock beside the socket: it decides between two daemons that start at once.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path.with_file_name(name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::Served),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Binds in a folder that only we can enter and moves the socket to its place once it is private: between binding and
/// closing it nobody can come in, whatever the umask. A dead socket in its place is replaced in the same step.
fn private(path: &Path) -> Result<UnixListener, SocketError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut closed = tempfile::Builder::new();
    let closed = closed.prefix(".").rand_bytes(6).permissions(Permissions::from_mode(0o700)).tempdir_in(folder)?;
    let inside = closed.path().join("s");
    let listener = UnixListener::bind(&inside)?;
    std::fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
    std::fs::rename(&inside, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("is there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn it_is_private_and_goes_with_the_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).await.expect("binds");
        assert_eq!(mode(&path), 0o600);
        let (client, server) = tokio::join!(UnixStream::connect(&path), socket.listener().accept());
        assert!(client.is_ok() && server.is_ok());
        drop(socket);
        let left: Vec<_> =
            folder.path().read_dir().expect("is there").map(|one| one.expect("is there").file_name()).collect();
        assert_eq!(left, ["admin.sock.lock"], "neither the socket nor the folder that it was made in");
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_daemon_left_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists(), "the standard library leaves it behind");
        let _socket = AdminSocket::bind(&path).await.expect("replaces it");
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).await.expect("is served");
    }

    #[tokio::test]
    async fn what_is_in_use_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let check = async |expected: &str| {
            let refused = AdminSocket::bind(&path).await.expect_err(expected);
            assert!(refused.to_string().starts_with(expected), "{refused}");
        };
        // Another program's, which knows nothing of our lock.
        let strange = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        check("another daemon serves it").await;
        drop(strange);
        let ours = AdminSocket::bind(&path).await.expect("replaces it");
        check("another daemon serves it").await;
        UnixStream::connect(&path).await.expect("the first still serves");
        drop(ours);
        std::fs::write(&path, "text").expect("writes");
        check("there is something that is no socket").await;
        std::fs::remove_file(&path).expect("removes");
        let path = folder.path().join("no-such-folder/admin.sock");
        assert!(matches!(AdminSocket::bind(&path).await, Err(SocketError::System(_))));
        let path = folder.path().join("s".repeat(108));
        assert!(matches!(AdminSocket::bind(&path).await, Err(SocketError::TooLong(_))));
    }

    /// While one daemon starts, another cannot slip in between its look and its bind.
    #[tokio::test]
    async fn of_two_daemons_that_start_at_once_one_serves() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let held = lock(&path).expect("nobody has it");
        assert!(matches!(AdminSocket::bind(&path).await, Err(SocketError::Served)));
        drop(held);
        AdminSocket::bind(&path).await.expect("is free again");
    }
}
