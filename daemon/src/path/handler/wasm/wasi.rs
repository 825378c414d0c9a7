//! WASI 0.2 for guests whose language's library imports it: a context that grants nothing.
//!
//! Clocks and random numbers work; stdout and stderr go to the handler's log. There is no environment, no argument, no
//! file, no network, no name lookup, and stdin is at its end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::console::{Console, Stream};
use super::imports::MAX_RANDOM_BYTES;

/// Bytes that a guest may write to a stream at once: in the worst case as many lines, whose logging no tick interrupts.
const WRITE_PERMIT: usize = 4 * 1024;

/// Streams, pollables and descriptors of an instance.
const MAX_RESOURCES: usize = 1024;

/// A context that grants nothing, and the table of its resources.
pub(super) fn context(console: &Arc<Console>) -> (WasiCtx, ResourceTable) {
    let output = |stream| Output { console: Arc::clone(console), stream };
    let mut table = ResourceTable::new();
    table.set_max_capacity(MAX_RESOURCES);
    let context = WasiCtx::builder()
        .stdout(output(Stream::Stdout))
        .stderr(output(Stream::Stderr))
        .max_random_size(u64::from(MAX_RANDOM_BYTES))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .socket_addr_check(|_, _| Box::pin(async { false }))
        .build();
    (context, table)
}

/// One of a guest's output streams.
#[derive(Clone)]
struct Output {
    console: Arc<Console>,
    stream: Stream,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    /// Always ready: writing to the log never waits.
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.console.write(self.stream, &bytes);
        Ok(())
    }

    /// Lines are logged when they end, not when they are flushed.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.console.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
