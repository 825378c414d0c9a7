//! `tidegate brokers`: RouterOS' `/iot mqtt brokers`, `connect` and `disconnect`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Asking;
use super::broker_keys::{self, Broker};
use super::keys::{Settings, Unset};
use super::show;
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, table};
use crate::control::admin::resource;

/// The arguments of `brokers`.
#[derive(Args)]
pub struct Brokers {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the brokers and whether they are connected
    #[command(after_help = "RouterOS: /iot mqtt brokers print")]
    List(Named),
    /// Add a broker; it connects only by command or for a publish, unless --auto-connect is given
    #[command(
        mut_arg("address", |address| address.required(true)),
        after_help = "Example: tidegate brokers add plant --address mqtt.plant.example --client-id gw-1\n\
                      RouterOS: /iot mqtt brokers add name=plant address=mqtt.plant.example client-id=gw-1"
    )]
    Add(Add),
    /// Change settings of a broker
    #[command(after_help = "Example: tidegate brokers set plant --keep-alive 30 --unset username\n\
                      RouterOS: /iot mqtt brokers set plant keep-alive=30")]
    Set(Set),
    /// Remove a broker; one that something depends on, or for which messages wait, stays
    #[command(after_help = "RouterOS: /iot mqtt brokers remove plant")]
    Remove(Remove),
    /// Connect a broker, and say why it fails
    #[command(after_help = "RouterOS: /iot mqtt connect plant")]
    Connect(Name),
    /// Disconnect a broker, which stays so until it is connected by hand or by force
    #[command(after_help = "RouterOS: /iot mqtt disconnect plant")]
    Disconnect(Name),
    /// Let the broker forget the session: its subscriptions, and the messages that it holds for it
    ResetSession(Name),
}

#[derive(Args)]
struct Named {
    /// Show everything about this broker alone
    name: Option<String>,
}

#[derive(Args)]
struct Name {
    /// The broker's name
    name: String,
}

#[derive(Args)]
struct Add {
    /// Its name everywhere: letters, digits, - and _
    name: String,
    #[command(flatten)]
    settings: Settings<Broker>,
}

#[derive(Args)]
struct Set {
    /// The broker's name
    name: String,
    #[command(flatten)]
    settings: Settings<Broker>,
    #[command(flatten)]
    unset: Unset<Broker>,
}

#[derive(Args)]
struct Remove {
    /// The broker's name
    name: String,
    /// Drop the messages that wait to be published to it
    #[arg(long)]
    discard: bool,
}

impl Brokers {
    /// Does it.
    ///
    /// # Errors
    /// The options contradict each other, or the client's errors.
    pub async fn run(mut self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let request = self.command.request(console.input)?;
        let answer = client.send(request).await?;
        let look = console.look;
        let json = self.asking.json;
        match self.command {
            Command::List(Named { name: None }) => console.show(json, &answer, |brokers| list(look, brokers)),
            Command::List(_) => console.show(json, &answer, |broker: Value| show::details(&broker)),
            Command::Add(add) => console.done(json, &answer, format_args!("broker {} is added", add.name)),
            Command::Set(set) => console.done(json, &answer, format_args!("broker {} is changed", set.name)),
            Command::Remove(remove) => console.done(json, &answer, format_args!("broker {} is removed", remove.name)),
            Command::Connect(broker) => {
                console.done(json, &answer, format_args!("broker {} is connected", broker.name))
            }
            Command::Disconnect(_) => console.show(json, &answer, |broker: resource::Broker| disconnected(&broker)),
            Command::ResetSession(broker) => {
                console.done(json, &answer, format_args!("broker {} has forgotten the session", broker.name))
            }
        }
    }
}

impl Command {
    fn request(&mut self, input: &mut dyn std::io::Read) -> Result<Request, Failure> {
        Ok(match self {
            Command::List(Named { name: None }) => Request::get(&["brokers"]),
            Command::List(Named { name: Some(name) }) => Request::get(&["brokers", name]),
            Command::Add(Add { name, settings }) => {
                let mut keys = broker_keys::settle(std::mem::take(&mut settings.keys), true, input)?;
                keys.put(&["name"], name.as_str());
                // RouterOS' default; in the file it is on.
                keys.put_default(&["auto-connect"], false);
                Request::post(&["brokers"], Some(keys.into_json()))
            }
            Command::Set(Set { name, settings, unset }) => {
                let mut keys = broker_keys::settle(std::mem::take(&mut settings.keys), false, input)?;
                unset.clear(&mut keys)?;
                if keys.is_empty() {
                    return Err(show::nothing_to_set("--keep-alive 30"));
                }
                Request::patch(&["brokers", name], keys.into_json())
            }
            Command::Remove(Remove { name, discard }) => {
                Request::delete(&["brokers", name]).query("discard", discard.then_some("true"))
            }
            Command::Connect(Name { name }) => Request::post(&["brokers", name, "connect"], None),
            Command::Disconnect(Name { name }) => Request::post(&["brokers", name, "disconnect"], None),
            Command::ResetSession(Name { name }) => Request::post(&["brokers", name, "reset-session"], None),
        })
    }
}

/// What is told of a broker that was disconnected.
fn disconnected(broker: &resource::Broker) -> String {
    let name = &broker.name;
    match resource::what_waits(broker.outbox.messages, broker.outbox.waiting) {
        None => format!("broker {name} is disconnected"),
        Some(waits) => format!(
            "broker {name} is disconnected, and {waits}, until it is connected or something new is published to it"
        ),
    }
}

fn list(look: Look, brokers: Vec<resource::Broker>) -> String {
    let header = ["NAME", "ADDRESS", "PORT", "TLS", "AUTO-CONNECT", "KEEP-ALIVE", "OUTBOX", "CONNECTED", "ORIGIN"];
    let rows = brokers.into_iter().map(|broker| {
        let connected = show::connected(broker.state, broker.reason.as_deref(), broker.retry_in);
        [
            broker.name,
            broker.address,
            broker.port.to_string(),
            show::yes_no(broker.tls.is_some()),
            show::yes_no(broker.auto_connect),
            broker.keep_alive.to_string(),
            format!("{} of {}", broker.outbox.messages, broker.outbox.max_messages),
            connected,
            show::origin(&broker.origin),
        ]
    });
    table(look, header, rows)
}
