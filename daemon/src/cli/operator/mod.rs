//! What an operator asks of the running daemon: RouterOS' `/iot mqtt` menu and more, a file a group of commands.
//!
//! Each command makes requests, which the client sends, and shows the answers. What can be decided is decided by the daemon;
//! only what is wrong in any case is refused here (exit code 2), so that nothing is sent.

mod broker_keys;
mod brokers;
mod config;
mod dead_letters;
mod follow;
mod handlers;
mod keys;
mod kv;
mod outbox;
mod payload;
mod publish;
mod received;
mod reload;
mod schedules;
mod show;
mod status;
mod subscriptions;
#[cfg(test)]
mod testing;
mod trace;
mod trace_line;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{Client, Connection, Failure};
use super::console::Console;

/// The commands that need the daemon.
#[derive(Subcommand)]
pub enum Operator {
    /// Show everything at a glance: messages, brokers, handlers
    Status(status::Status),
    /// Follow the way of each message live: subscription, handler, publishes
    Trace(trace::Trace),
    /// List and change brokers, connect and disconnect them
    Brokers(brokers::Brokers),
    /// Publish a message, and wait until the broker has it
    Publish(publish::Publish),
    /// Subscribe to a topic at once, without a reconnect
    Subscribe(subscriptions::Subscribe),
    /// End a subscription at once
    Unsubscribe(subscriptions::Unsubscribe),
    /// List and change subscriptions
    Subscriptions(subscriptions::Subscriptions),
    /// List, change, pause and resume handlers
    Handlers(handlers::Handlers),
    /// List schedules, and run one at once
    Schedules(schedules::Schedules),
    /// Show and drop what waits to be published
    Outbox(outbox::OutboxArgs),
    /// Show, handle again or forget messages that failed for good
    DeadLetters(dead_letters::DeadLetters),
    /// Show and change what handlers remember
    Kv(kv::Kv),
    /// Show, follow and record received messages
    Recv(received::Recv),
    /// Show the merged configuration
    Config(config::Config),
    /// Read the configuration's files again, as SIGHUP does
    Reload(reload::Reload),
}

/// Options of all these commands.
#[derive(Args, Clone, Debug, Default)]
pub struct Asking {
    /// Print JSON, as the HTTP API gives it, with nothing cut short
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    #[command(flatten)]
    pub connection: Connection,
}

impl Operator {
    /// Asks the daemon and shows its answer.
    pub fn run(self) -> ExitCode {
        ExitCode::from(Console::of_process(|console| self.run_on(console)))
    }

    /// As [`Operator::run`], with any streams. Gives the exit code.
    fn run_on(self, console: &mut Console<'_>) -> u8 {
        let Asking { json, connection } = self.asking();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return console.failure(false, &Failure::No(format!("no runtime: {error}"))),
        };
        let client = Client::new(connection, console.environment);
        let done = runtime.block_on(self.ask(&client, console));
        // A name that is still being looked up must not hold up the end.
        runtime.shutdown_background();
        done.unwrap_or_else(|failure| console.failure(json, &failure))
    }

    fn asking(&self) -> Asking {
        let asking = match self {
            Operator::Status(command) => &command.asking,
            Operator::Trace(command) => &command.asking,
            Operator::Brokers(command) => &command.asking,
            Operator::Publish(command) => &command.asking,
            Operator::Subscribe(command) => &command.asking,
            Operator::Unsubscribe(command) => &command.asking,
            Operator::Subscriptions(command) => &command.asking,
            Operator::Handlers(command) => &command.asking,
            Operator::Schedules(command) => &command.asking,
            Operator::Outbox(command) => &command.asking,
            Operator::DeadLetters(command) => &command.asking,
            Operator::Kv(command) => &command.asking,
            Operator::Recv(command) => &command.asking,
            Operator::Config(command) => &command.asking,
            Operator::Reload(command) => &command.asking,
        };
        asking.clone()
    }

    async fn ask(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        match self {
            Operator::Status(command) => command.run(client, console).await,
            Operator::Trace(command) => command.run(client, console).await,
            Operator::Brokers(command) => command.run(client, console).await,
            Operator::Publish(command) => command.run(client, console).await,
            Operator::Subscribe(command) => command.run(client, console).await,
            Operator::Unsubscribe(command) => command.run(client, console).await,
            Operator::Subscriptions(command) => command.run(client, console).await,
            Operator::Handlers(command) => command.run(client, console).await,
            Operator::Schedules(command) => command.run(client, console).await,
            Operator::Outbox(command) => command.run(client, console).await,
            Operator::DeadLetters(command) => command.run(client, console).await,
            Operator::Kv(command) => command.run(client, console).await,
            Operator::Recv(command) => command.run(client, console).await,
            Operator::Config(command) => command.run(client, console).await,
            Operator::Reload(command) => command.run(client, console).await,
        }
    }
}
