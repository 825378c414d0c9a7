//! Servers that are no brokers, for what the daemon says of them.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// A port on 127.0.0.1 whose connections `serve` gets one after another, for as long as the process runs.
pub fn serve(serve: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that has gone is no concern of the next one.
            drop(serve(stream));
        }
    });
    port
}

/// As [`serve`]: answers whatever comes first with these bytes, and closes.
pub fn answer_with(bytes: &'static [u8]) -> u16 {
    serve(|mut stream| {
        // First, since closing with something unread would reset the connection.
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(bytes)
    })
}
