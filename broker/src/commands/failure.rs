//! Why a command did not do what it was asked to.

use std::io;

use thiserror::Error;

use crate::client::ClientError;
use crate::client::http::HttpError;

/// Why a command failed; shown line by line.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The cluster said no, or nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The admin port said nothing.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Standard output is closed or full.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// Some of what was asked for failed; the rest is done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Partly(Vec<ClientError>),
    /// Anything else, in words.
    #[error("{0}")]
    Said(String),
}

impl Failure {
    /// Success if nothing failed.
    pub(super) fn unless_none(failed: Vec<ClientError>) -> Result<(), Self> {
        if failed.is_empty() { Ok(()) } else { Err(Self::Partly(failed)) }
    }
}
