//! The functions behind the fuzz targets: one for each decoder of the broker's own formats, with seed inputs. Never
//! part of a release build. A function panics where a decoder does, or where a decoded value does not encode to the
//! same bytes.

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

use crate::coordinator::lag::fuzzing as lag;
use crate::metadata::fuzzing as metadata;
use crate::replicated::fuzzing as shard;
use crate::replicated::group::fuzzing as group;
use crate::shard::fuzzing as node;

/// The name of a target, its function, and seed inputs.
pub type Case = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// A target for each decoder.
pub const CASES: &[Case] = &[
    ("metadata_commands", metadata::commands, metadata::commands_seeds),
    ("metadata_record", metadata::record, metadata::record_seeds),
    ("metadata_question", metadata::request, metadata::request_seeds),
    ("metadata_answer", metadata::response, metadata::response_seeds),
    ("desk_question", metadata::bootstrap_request, metadata::bootstrap_request_seeds),
    ("desk_answer", metadata::bootstrap_response, metadata::bootstrap_response_seeds),
    ("group_creation", metadata::creation, metadata::creation_seeds),
    ("shard_command", shard::command, shard::command_seeds),
    ("shard_state", shard::state, shard::state_seeds),
    ("node_request", node::request, node::request_seeds),
    ("node_response", node::response, node::response_seeds),
    ("lag_request", lag::request, lag::request_seeds),
    ("lag_answer", lag::answer, lag::answer_seeds),
    ("coordinator_record", group::record, group::record_seeds),
    ("coordinator_guard", group::guard, group::guard_seeds),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input that was kept for its target is accepted.
    #[test]
    fn every_target_accepts_its_corpus() {
        for (name, run, _) in CASES {
            corpus::kept(name).iter().for_each(|input| run(input));
        }
    }

    /// The seeds have every tag of every format: what a node writes is, byte for byte, what `testdata/<target>.hex` has,
    /// one value a line. `OTTLA_BLESS=1` writes the files; a line that changes is a format that changed.
    #[test]
    #[allow(clippy::disallowed_methods, clippy::format_collect)]
    fn the_bytes_of_every_format_do_not_change() {
        for (name, _, seeds) in CASES {
            let line = |seed: Vec<u8>| seed.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
            let written: String = seeds().into_iter().map(line).collect();
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.hex"));
            if std::env::var_os("OTTLA_BLESS").is_some() {
                std::fs::write(&path, &written).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "{name}");
        }
    }

    /// Every target has seeds, and accepts them whole, truncated, and with any byte changed.
    #[test]
    fn every_target_takes_its_seeds_and_what_becomes_of_them() {
        for (name, run, seeds) in CASES {
            let seeds = seeds();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                run(&seed);
                for at in 0..seed.len() {
                    run(&seed[..at]);
                    for bit in [1, 128] {
                        let mut changed = seed.clone();
                        changed[at] ^= bit;
                        run(&changed);
                    }
                }
            }
        }
    }
}
