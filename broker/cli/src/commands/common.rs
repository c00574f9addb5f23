//! Arguments that most commands share: the cluster's address and the output format.
//!
//! Doc comments of arguments are the help text of the command line.

use clap::{Args, ValueEnum};

use crate::client::{Address, Cluster};

/// Where the cluster is.
#[derive(Debug, Args)]
pub(super) struct Bootstrap {
    /// Brokers to ask, host:port; several by comma, or the flag several times. The first that answers tells of the others
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        value_name = "ADDRESS",
        env = "KAFKA_BOOTSTRAP_SERVERS",
        value_delimiter = ',',
        default_value = "127.0.0.1:9092",
        value_parser = Address::parse
    )]
    addresses: Vec<Address>,
}

impl Bootstrap {
    /// The cluster at these addresses; no connection is open yet.
    pub(super) fn cluster(&self) -> Cluster {
        Cluster::at(self.addresses.clone())
    }
}

/// Which admin port is asked.
#[derive(Debug, Args)]
pub(super) struct Admin {
    /// Admin port of a node
    #[arg(long = "admin", value_name = "URL", default_value = "http://127.0.0.1:9644")]
    pub(super) url: String,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// How the answer is shown.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// A table for people, or JSON for programs
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) format: Format,
}

/// Reads NAME=VALUE.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}
