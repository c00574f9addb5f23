//! The errors of a command, shown line by line on standard error.

use std::io;

use thiserror::Error;

use crate::client::ClientError;
use crate::client::http::HttpError;

/// Why a command failed; shown line by line.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// A request to the cluster failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A request to the admin port failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Standard output is closed or full.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// Some parts of the command failed; the rest is done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Partly(Vec<ClientError>),
    /// Any other error, as a message.
    #[error("{0}")]
    Said(String),
}

impl Failure {
    /// Success if nothing failed.
    pub(super) fn unless_none(failed: Vec<ClientError>) -> Result<(), Self> {
        if failed.is_empty() { Ok(()) } else { Err(Self::Partly(failed)) }
    }
}
