//! Architecture as a test: file sizes, heads, banned words, the order of the crates and of the floors in `broker/`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ottla_protocol::versions::SUPPORTED;
use ottla_tests::modules::Modules;

const FILE_LINES_MAX: usize = 600;

const FUNCTION_LINES_MAX: usize = 70;

/// Assertions in the code of a crate, tests left out: the least number. It only rises.
const ASSERTIONS_MIN: &[(&str, usize)] =
    &[("protocol", 2), ("storage/env", 3), ("storage", 28), ("raft", 13), ("broker/cli", 1), ("broker", 44)];

/// Words that say a thing is not finished; the code has none of them.
const BANNED: &[&str] = &["todo!", "unimplemented!", "dbg!", "FIXME", "XXX", "simplified for now"];

/// The crates of the product, lowest first.
const CRATES: &[&str] = &["protocol", "storage/env", "broker/cli", "storage", "raft", "broker"];

/// The folders and files of the broker's `src`, lowest first. The socket server lies below the handlers: it calls them
/// only through its trait `Dispatch`, and they use its plain types.
const BROKER_FLOORS: &[&str] = &[
    "checksum",
    "codec",
    "shared_map",
    "levels",
    "config",
    "limits",
    "log_levels",
    "metrics",
    "metadata",
    "replicated",
    "shard",
    "partition",
    "coordinator",
    "server",
    "handlers",
    "admin",
    "node",
];

/// The folders and files of storage's `src`, lowest first.
const STORAGE_FLOORS: &[&str] = &[
    "ids",
    "entry",
    "page_cache",
    "log",
    "space",
    "compact",
    "index",
    "read",
    "runs",
    "rewrite",
    "checkpoint",
    "data_dir",
];

/// The folders and files of raft's `src`, lowest first.
const RAFT_FLOORS: &[&str] = &[
    "options",
    "error",
    "damage",
    "failure_detector",
    "in_sync",
    "membership",
    "state_machine",
    "checksum_points",
    "proposal",
    "role",
    "runtime",
    "net",
    "state_parts",
    "openraft_types",
    "directory",
    "seeded_child",
    "resize",
    "applier",
    "log_store",
    "snapshot_download",
    "openraft_adapter",
    "append_pipeline",
    "transport",
    "group",
    "check_quorum",
    "handle",
    "leader_liveness",
    "snapshot_install",
    "state_check",
    "host",
    "split",
    "merge",
    "membership_change",
    "quorum",
    "repair",
    "failover",
    "unsafe_recovery",
    "leadership_transfer",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn rust_files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", "corpus", "artifacts"].contains(&name.as_str()) && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["protocol", "storage", "raft", "broker", "tests", "benches", "fuzz"] {
        if root().join(folder).is_dir() {
            rust_files(&root().join(folder), &mut found);
        }
    }
    found.sort();
    let read = |path: &PathBuf| {
        (path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
    };
    found.iter().map(read).collect()
}

/// Runs `check` on every source file and fails with all complaints at once.
fn every_file(check: impl Fn(&str, &str) -> Vec<String>) {
    let complaints: Vec<String> = sources().iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_file_fits_in_the_head() {
    every_file(|path, text| {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            vec![format!("{path}: {lines} lines, at most {FILE_LINES_MAX}")]
        } else {
            Vec::new()
        }
    });
}

/// Functions of a formatted file that are too long, by their first lines. A function ends at the brace that stands as
/// far to the right as its first line.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let before_name = code.split("fn ").next().unwrap();
        let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
        let is_function = code.contains("fn ") && before_name.split_whitespace().all(|word| words.contains(&word));
        if !is_function || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let brace = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[at..].iter().position(|line| *line == brace).map_or(0, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            found.push((at + 1, length));
        }
    }
    found
}

#[test]
fn every_function_fits_on_a_screen() {
    let of = |body: usize| format!("    pub(super) async fn f() {{\n{}    }}\n", "        g();\n".repeat(body));
    assert_eq!((long_functions(&of(68)), long_functions(&of(69))), (vec![], vec![(1, 71)]));
    every_file(|path, text| {
        let complain = |(line, length): (usize, usize)| {
            format!("{path}:{line}: a function of {length} lines, at most {FUNCTION_LINES_MAX}")
        };
        long_functions(text).into_iter().map(complain).collect()
    });
}

#[test]
fn the_number_of_assertions_never_falls() {
    let is_product =
        |inside: &str| !["tests", "fuzzing", "samples", "/sim"].iter().any(|beside| inside.contains(beside));
    let sources = sources();
    for (name, least) in ASSERTIONS_MIN {
        let of_file = |(path, text): &(String, String)| {
            path.strip_prefix(&format!("{name}/src/")).filter(|inside| is_product(inside))?;
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let asserts = ["assert!(", "assert_eq!(", "assert_ne!("].map(|word| code.matches(word).count());
            Some(asserts.iter().sum::<usize>())
        };
        let found: usize = sources.iter().filter_map(of_file).sum();
        assert!(found >= *least, "{name}: {found} assertions, there were {least}");
    }
}

/// Short tests stand in the file, in `mod tests`; longer ones in `tests.rs` beside the `mod.rs` of what they test, several
/// files of them in `tests/`. Those of another build, and models, have a name of their own.
fn out_of_place(path: &str, text: &str) -> Vec<String> {
    let stem = path.rsplit('/').next().unwrap().trim_end_matches(".rs");
    let mut found = Vec::new();
    if stem.ends_with("_tests") && !["shuttle_tests", "model_tests"].contains(&stem) {
        found.push(format!("{path}: tests stand in mod tests, tests.rs or tests/"));
    }
    let moved = text.lines().filter(|line| line.trim_start().starts_with("#[path") && !line.contains("fuzz/corpus.rs"));
    found.extend(moved.map(|line| format!("{path}: {line}: a module lies where its name says")));
    found
}

#[test]
fn tests_stand_where_one_looks_for_them() {
    assert_eq!(out_of_place("a/src/b_tests.rs", "").len(), 1);
    assert_eq!(out_of_place("a/src/b.rs", "#[path = \"b_t.rs\"]\nmod tests;").len(), 1);
    assert_eq!(out_of_place("a/src/b/shuttle_tests.rs", "#[path = \"../../fuzz/corpus.rs\"]"), Vec::<String>::new());
    every_file(|path, text| if path.contains("/src/") { out_of_place(path, text) } else { Vec::new() });
}

#[test]
fn a_module_with_a_folder_is_its_mod_rs() {
    let sources = sources();
    let is_folder = |stem: &str| sources.iter().any(|(path, _)| path.starts_with(&format!("{stem}/")));
    let split = sources.iter().filter(|(path, _)| path.contains("/src/"));
    let split: Vec<_> = split.filter(|(path, _)| path.strip_suffix(".rs").is_some_and(is_folder)).collect();
    assert!(split.is_empty(), "{:?}", split.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn every_file_says_what_it_is_for() {
    every_file(|path, text| {
        let starts = text.starts_with("//!");
        if starts { Vec::new() } else { vec![format!("{path}: does not open with a `//!` head")] }
    });
}

#[test]
fn no_word_says_that_a_thing_is_not_finished() {
    every_file(|path, text| {
        if path.ends_with("tidy.rs") {
            return Vec::new();
        }
        let found = BANNED.iter().filter(|word| text.contains(**word));
        found.map(|word| format!("{path}: contains `{word}`")).collect()
    });
}

#[test]
fn every_select_is_biased() {
    every_file(|path, text| {
        let mut complaints = Vec::new();
        for (at, _) in text.match_indices("select! {") {
            let rest = text[at + "select! {".len()..].trim_start();
            if !rest.starts_with("biased;") && !path.ends_with("tidy.rs") {
                complaints.push(format!("{path}: an unbiased select! (its order is random)"));
            }
        }
        complaints
    });
}

#[test]
fn unsafe_code_lives_in_named_modules_and_says_why_it_is_sound() {
    every_file(|path, text| {
        if path.ends_with("tidy.rs") {
            return Vec::new();
        }
        let mut complaints = Vec::new();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            let near = &lines[number.saturating_sub(6)..=number];
            if !near.iter().any(|l| l.to_lowercase().contains("safety")) {
                complaints.push(format!("{path}:{}: unsafe without a safety comment", number + 1));
            }
        }
        complaints
    });
}

/// The number behind each "design section" of a text.
fn cited_sections(text: &str) -> Vec<&str> {
    let number = |rest: &'_ str| rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    text.split("design section ").skip(1).map(|rest| &rest[..number(rest)]).filter(|found| !found.is_empty()).collect()
}

#[test]
fn every_cited_section_of_the_design_exists() {
    let design = fs::read_to_string(root().join("docs/design.md")).unwrap();
    let headings: Vec<&str> =
        design.lines().filter_map(|line| Some(line.strip_prefix("## ")?.split_once('.')?.0)).collect();
    assert_eq!(cited_sections("(design section 4, and design section 12)"), ["4", "12"]);
    every_file(|path, text| {
        let unknown = cited_sections(text).into_iter().filter(|section| !headings.contains(section));
        unknown
            .filter(|_| !path.ends_with("tidy.rs"))
            .map(|section| format!("{path}: design section {section}"))
            .collect()
    });
}

/// Paths of this repository as a page names them: from a top folder to a file with an ending.
fn cited_files(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"/_.-".contains(c));
    let of_a_folder = |word: &str| {
        ["broker/", "storage/", "raft/", "protocol/", "tests/", "benches/"].iter().any(|top| word.starts_with(top))
    };
    words.map(|word| word.trim_end_matches('.')).filter(|word| of_a_folder(word) && word.ends_with(".rs")).collect()
}

#[test]
fn every_source_file_that_a_page_names_exists() {
    assert_eq!(cited_files("see `raft/src/lib.rs`, broker/src."), ["raft/src/lib.rs"]);
    let pages = ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/design.md", "docs/glossary.md", "docs/invariants.md"];
    let missing = pages.into_iter().flat_map(|page| {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let missing = cited_files(&text).into_iter().filter(|file| !root().join(file).is_file());
        missing.map(|file| format!("{page}: {file}")).collect::<Vec<_>>()
    });
    let missing: Vec<String> = missing.collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn the_crates_depend_downwards_only() {
    for (level, folder) in CRATES.iter().enumerate() {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for above in &CRATES[level + 1..] {
            let name = above.rsplit('/').next().unwrap();
            assert!(!manifest.contains(&format!("ottla-{name}")), "{folder} depends on {name}");
        }
    }
}

#[test]
fn the_files_of_a_crate_import_each_other_without_circles() {
    for name in CRATES {
        let read = |path: &str| fs::read_to_string(root().join(name).join("src").join(path)).ok();
        let circle = Modules::of(&read).circle();
        assert_eq!(circle, None, "files of {name} that import each other in a circle");
    }
}

/// The names at the root of its crate that a file's code begins a path with; `inside` is its path below `src`.
fn names_at_root(inside: &str, code: &str) -> Vec<String> {
    let module = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    let up = "super::".repeat(module.split('/').count());
    let ends_path = |c: char| !(c.is_alphanumeric() || c == '_');
    let mut names = Vec::new();
    for from_root in ["crate::", up.as_str()] {
        for (at, _) in code.match_indices(from_root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c == ':' || !ends_path(c)) {
                continue;
            }
            let rest = &code[at + from_root.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                names.extend(rest.split(ends_path).next().map(str::to_owned));
                continue;
            };
            let mut depth = 0;
            let mut outer = String::new();
            for c in group.chars() {
                depth += i32::from(c == '{') - i32::from(c == '}');
                if depth < 0 {
                    break;
                }
                outer.push(if depth == 0 { c } else { ' ' });
            }
            let first = |path: &str| path.trim().split(ends_path).next().map(str::to_owned);
            names.extend(outer.split(',').filter_map(first));
        }
    }
    names
}

/// Fails if a file of the crate names a floor above its own, or stands on no floor. A test, a fuzz target and the root
/// may look at any floor.
fn floors_call_downwards(name: &str, floors: &[&str]) {
    every_file(|path, text| {
        let Some(inside) = path.strip_prefix(&format!("{name}/src/")) else { return Vec::new() };
        if ["lib.rs", "main.rs"].contains(&inside) || inside.contains("tests") || inside.contains("fuzzing") {
            return Vec::new();
        }
        let own = inside.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(level) = floors.iter().position(|floor| *floor == own) else {
            return vec![format!("{path}: `{own}` is not among the floors")];
        };
        let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let names = names_at_root(inside, &code);
        let above = floors[level + 1..].iter().filter(|floor| names.iter().any(|used| used == *floor));
        above.map(|floor| format!("{path}: calls up to `{floor}`")).collect()
    });
}

#[test]
fn a_path_from_the_root_is_found_however_it_is_written() {
    let code = "use crate::{a::{x, b}, c};\nuse super::super::d::Y;\nuse super::e;\nfn f() { crate::g::h(); other_crate::i(); }";
    assert_eq!(names_at_root("floor/file.rs", code), ["a", "c", "g", "d"]);
    assert_eq!(names_at_root("floor/mod.rs", "use super::e;"), ["e"]);
    assert_eq!(names_at_root("file.rs", "use super::e;"), ["e"]);
}

#[test]
fn the_floors_of_storage_call_downwards_only() {
    floors_call_downwards("storage", STORAGE_FLOORS);
}

#[test]
fn the_floors_of_raft_call_downwards_only() {
    floors_call_downwards("raft", RAFT_FLOORS);
}

#[test]
fn the_floors_of_the_broker_call_downwards_only() {
    floors_call_downwards("broker", BROKER_FLOORS);
}

#[test]
fn only_the_handlers_and_the_node_use_the_socket_server() {
    every_file(|path, text| {
        let Some(inside) = path.strip_prefix("broker/src/") else { return Vec::new() };
        let may = ["server/", "handlers/", "node/"].iter().any(|folder| inside.starts_with(folder));
        if may || !uses(text, "server") { Vec::new() } else { vec![format!("{path}: uses `server`")] }
    });
}

/// What the handlers have beside the APIs.
const BESIDE_APIS: &[&str] = &["mod", "authorization", "context", "kafka_dispatch", "support"];

#[test]
fn every_file_of_the_handlers_is_one_api_and_every_api_has_one() {
    let snake = |name: &str| {
        let letters = name.char_indices().flat_map(|(at, letter)| {
            let gap = (at > 0 && letter.is_uppercase()).then_some('_');
            gap.into_iter().chain(letter.to_lowercase())
        });
        letters.collect::<String>()
    };
    let apis: BTreeSet<String> = SUPPORTED.iter().map(|row| snake(row.name)).collect();
    let entries = fs::read_dir(root().join("broker/src/handlers")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned());
    let handlers: BTreeSet<String> = names.filter(|name| !BESIDE_APIS.contains(&name.as_str())).collect();
    assert_eq!(handlers, apis);
}

/// A range of versions as Kafka writes it.
fn versions(min: i16, max: i16) -> String {
    if min == max { min.to_string() } else { format!("{min}-{max}") }
}

#[test]
fn the_page_of_differences_names_each_api_with_its_versions() {
    let page = fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ")).map(|line| line.split(" | ").collect::<Vec<_>>());
    let said: BTreeSet<(String, String)> = rows
        .filter(|cells| cells.len() == 5 && cells[0][2..].parse::<i16>().is_ok() && cells[2] != "-")
        .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
        .collect();
    let served = SUPPORTED.iter().map(|api| (api.name.to_owned(), versions(api.min, api.max))).collect();
    assert_eq!(said, served, "docs/compatibility.md, API by API");
}

#[test]
fn the_broker_uses_the_command_line_in_its_health_check_only() {
    every_file(|path, text| {
        let Some(inside) = path.strip_prefix("broker/src/") else { return Vec::new() };
        // A node's health is asked for from outside too.
        let may = ["main.rs", "admin/check.rs"].contains(&inside);
        if may || !text.contains("ottla_cli") { Vec::new() } else { vec![format!("{path}: uses `ottla_cli`")] }
    });
}

fn uses(code: &str, floor: &str) -> bool {
    code.contains(&format!("crate::{floor}::"))
}
