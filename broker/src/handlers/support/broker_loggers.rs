//! Resources of type BROKER_LOGGER in the config APIs: the log levels of this node, one by one (KIP-412). They are no part of the
//! metadata: a node answers for itself alone, and forgets them when it stops.
//!
//! May not know: how requests name resources, what a level filters.

use super::config_resource::node;
use crate::config::describe::Described;
use crate::handlers::context::Context;
use crate::log_levels::{LogLevel, LogLevelError};
use crate::metadata::{ConfigOp, MetadataError, check_names};

/// DescribeConfigs' number for a level of a logger.
const SOURCE: i8 = 6;
/// DescribeConfigs' number of no type: Kafka says none of a level.
const NO_TYPE: i8 = 0;

/// All loggers of this node, which is named by its id, with their levels.
pub(in crate::handlers) fn describe(ctx: &Context, name: &str) -> Result<Vec<Described>, MetadataError> {
    check_node(ctx, name)?;
    let shown = |(logger, level): (&'static str, LogLevel)| Described {
        name: logger.into(),
        value: Some(level.name().to_owned()),
        source: SOURCE,
        read_only: false,
        sensitive: false,
        kind: NO_TYPE,
        documentation: String::new(),
        synonyms: Vec::new(),
    };
    Ok(ctx.log_levels.all().into_iter().map(shown).collect())
}

/// Changes levels, all of them or none.
pub(in crate::handlers) fn alter(
    ctx: &Context,
    name: &str,
    ops: Vec<(String, ConfigOp)>,
    validate_only: bool,
) -> Result<(), MetadataError> {
    check_node(ctx, name)?;
    check_names(&ops)?;
    let change = |(logger, op)| match op {
        ConfigOp::Set(level) => Ok((logger, Some(level))),
        ConfigOp::Delete => Ok((logger, None)),
        ConfigOp::Append(_) => Err(not_for_loggers("APPEND")),
        ConfigOp::Subtract(_) => Err(not_for_loggers("SUBTRACT")),
    };
    let changes = ops.into_iter().map(change).collect::<Result<Vec<_>, _>>()?;
    ctx.log_levels.change(&changes, validate_only).map_err(|error| match error {
        LogLevelError::UnknownLogger(_) | LogLevelError::UnknownLevel(..) => {
            MetadataError::InvalidConfig(error.to_string())
        }
        LogLevelError::RootStays => MetadataError::InvalidRequest(error.to_string()),
    })
}

fn not_for_loggers(op: &str) -> MetadataError {
    MetadataError::InvalidRequest(format!("{op} operation is not allowed for the BROKER_LOGGER resource"))
}

fn check_node(ctx: &Context, name: &str) -> Result<(), MetadataError> {
    if name.is_empty() {
        return Err(MetadataError::InvalidRequest("Broker id must not be empty".to_owned()));
    }
    let (own, meant) = (ctx.config.node_id, node(name)?);
    if meant == own {
        return Ok(());
    }
    let (own, meant) = (own.0, meant.0);
    Err(MetadataError::InvalidRequest(format!("Unexpected broker id, expected {own}, but received {meant}")))
}
