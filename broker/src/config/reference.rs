//! The reference page `docs/configuration.md`, made from the table; a test keeps the page equal.
//!
//! May not know: values.

use std::fmt::Write as _;

use super::setting::{Acts, Dynamic, Setting};
use super::table::GROUPS;
use super::topic_table::TOPIC_SETTINGS;

const HEAD: &str = "# Configuration\n\n\
Made from the table of settings in `broker/src/config`; do not edit (`OTTLA_WRITE_DOCS=1 cargo test -p ottla-broker reference` writes it).\n\n\
Every setting can be given in a file (`ottla start --config server.properties`), in the environment and on the command line\n\
(`--set name=value`, or `--name value`). A flag beats the environment, which beats the file, which beats the default.\n\
In the environment a name is written in capitals after `KAFKA_`, as the apache/kafka image does: `.` is `_`, `_` is `__`, `-` is `___`\n\
(`KAFKA_NUM_PARTITIONS`). Names that begin with `ottla.` begin with `OTTLA_` there (`OTTLA_ADMIN_LISTENER`).\n\n\
An unknown flag or `ottla.` setting is an error. Any other setting of Kafka is accepted; one that means nothing here is named in a warning.\n\
*Live* settings can be changed while nodes run (`kafka-configs`); the others are read at start.\n";

/// Text of the page.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(HEAD);
    for (heading, settings) in GROUPS {
        let _ = write!(page, "\n## {heading}\n");
        for setting in *settings {
            write_setting(&mut page, setting, "");
        }
    }
    page.push_str("\n## Topic configs\n\nGiven when a topic is created, changed with `kafka-configs --alter`. The node's setting in brackets supplies the default.\n");
    for entry in TOPIC_SETTINGS {
        let names: Vec<_> = entry.node_settings.iter().map(|(name, _)| format!("`{name}`")).collect();
        let supplied = if names.is_empty() { String::new() } else { format!(" [{}]", names.join(", ")) };
        write_setting(&mut page, &entry.setting, &supplied);
    }
    page
}

fn write_setting(page: &mut String, setting: &Setting, supplied: &str) {
    let default = match setting.default {
        None => "not set".to_owned(),
        Some("") => "empty".to_owned(),
        Some(default) => format!("`{default}`"),
    };
    let live = match setting.dynamic {
        Dynamic::No => "",
        Dynamic::PerNode => ", live (per node)",
        Dynamic::Cluster => ", live",
    };
    let _ = write!(
        page,
        "\n- **`{}`** ({}, {}, default {default}{live}){supplied}: {}",
        setting.name, setting.kind, setting.range, setting.doc
    );
    match setting.acts {
        Acts::In(place) => {
            let _ = write!(page, " Acts in: {place}.");
        }
        Acts::Nowhere(why) => {
            let _ = write!(page, " *Accepted without effect: {why}.*");
        }
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("OTTLA_WRITE_DOCS").is_some() {
            #[allow(clippy::disallowed_methods)]
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/configuration.md differs: OTTLA_WRITE_DOCS=1 cargo test -p ottla-broker reference"
        );
    }
}
