//! The import graph of a crate's files, read from their text: `use` trees and paths from `crate` or `super`.
//!
//! A re-export (`pub use`) is resolved to the file that defines the name, so re-exports create no circles.
//!
//! May not know: macros, globs, and methods called without an import.

use std::collections::{BTreeMap, BTreeSet};

/// The modules of one crate: where each lies, what it holds, and which names it only hands on.
#[derive(Default)]
pub struct Modules {
    /// File and code by module path; test modules are left out.
    code: BTreeMap<Vec<String>, (String, String)>,
    /// What `pub use` hands on: (module, name) to the path as written there.
    handed_on: BTreeMap<(Vec<String>, String), Vec<String>>,
}

/// One imported path, whether it is handed on, and under which name.
struct Import {
    path: Vec<String>,
    name: String,
    handed_on: bool,
}

impl Modules {
    /// Follows `mod name;` from `lib.rs`; `read` gives a file below `src/`.
    #[must_use]
    pub fn of(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut modules = Self::default();
        let mut open = vec![(Vec::new(), "lib.rs".to_owned())];
        while let Some((module, file)) = open.pop() {
            let Some(text) = read(&file) else { continue };
            let code = without_tests_and_comments(&text);
            let folder = match file.strip_suffix("mod.rs").or(file.strip_suffix("lib.rs")) {
                Some(folder) => folder.to_owned(),
                None => format!("{}/", file.trim_end_matches(".rs")),
            };
            for line in code.lines() {
                let declared = line.trim().strip_suffix(';').and_then(|line| line.split_once("mod "));
                let Some((_, child)) = declared.filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
                else {
                    continue;
                };
                let mut path = module.clone();
                path.push(child.to_owned());
                let files = [format!("{folder}{child}.rs"), format!("{folder}{child}/mod.rs")];
                open.extend(files.into_iter().filter(|file| read(file).is_some()).map(|file| (path.clone(), file)));
            }
            modules.code.insert(module, (file, code));
        }
        for (module, (_, code)) in &modules.code {
            for import in imports(code).into_iter().filter(|import| import.handed_on) {
                modules.handed_on.insert((module.clone(), import.name), import.path);
            }
        }
        modules
    }

    /// The module that defines what `path`, written in `module`, names; `None` if it lies in another crate.
    fn definer(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let mut at = module.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()?),
            child => {
                at.push(child.to_owned());
                self.code.get(&at)?;
            }
        }
        rest = &rest[1..];
        while let Some(next) = rest.first() {
            let child: Vec<String> = at.iter().chain([next]).cloned().collect();
            if next == "super" {
                at.pop()?;
            } else if self.code.contains_key(&child) {
                at = child;
            } else {
                let further = self.handed_on.get(&(at.clone(), next.clone())).filter(|_| depth < 16);
                let defined = further.and_then(|further| self.definer(&at, further, depth + 1));
                return Some(defined.unwrap_or(at));
            }
            rest = &rest[1..];
        }
        Some(at)
    }

    /// Files that import each other in a circle, in the order of the imports.
    #[must_use]
    pub fn circle(&self) -> Option<Vec<String>> {
        let mut below: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
        for (module, (_, code)) in &self.code {
            let used = imports(code).into_iter().filter(|import| !import.handed_on);
            let definers = used.filter_map(|import| self.definer(module, &import.path, 0));
            below.insert(module, definers.filter(|definer| definer != module).collect());
        }
        // What imports nothing that is left goes, until nothing goes any more.
        while let Some(free) = below.iter().find(|(_, to)| !to.iter().any(|to| below.contains_key(to))) {
            let free = *free.0;
            below.remove(free);
        }
        let mut way = vec![(*below.keys().next()?).clone()];
        loop {
            let next = below[way.last()?].iter().find(|to| below.contains_key(to))?.clone();
            if let Some(begin) = way.iter().position(|module| *module == next) {
                return Some(way[begin..].iter().map(|module| self.code[module].0.clone()).collect());
            }
            way.push(next);
        }
    }
}

/// The code without line comments, without what is for tests only, and without the tests at its end.
fn without_tests_and_comments(text: &str) -> String {
    let mut code = Vec::new();
    let mut for_tests = false;
    for line in text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)) {
        let trimmed = line.trim();
        if trimmed.starts_with("#[") {
            for_tests |= trimmed.contains("cfg(test)") || trimmed.contains("cfg(all(test");
        } else if !std::mem::take(&mut for_tests) {
            code.push(line);
        } else if trimmed.starts_with("mod ") && trimmed.ends_with('{') {
            break;
        }
    }
    code.join("\n")
}

/// Everything that the code imports with `use`, or names by a path that begins with `crate` or `super`.
fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut statement: Option<(bool, String)> = None;
    for line in code.lines() {
        let trimmed = line.trim();
        if statement.is_none() {
            let (visible, used) = match trimmed.split_once("use ") {
                Some(("", used)) => (false, used),
                Some((before, used)) if before.starts_with("pub") && !before.contains(['{', '=']) => (true, used),
                _ => {
                    rest.push_str(line);
                    rest.push('\n');
                    continue;
                }
            };
            statement = Some((visible, used.to_owned()));
        } else if let Some((_, text)) = &mut statement {
            text.push_str(trimmed);
        }
        if trimmed.ends_with(';')
            && let Some((handed_on, text)) = statement.take()
        {
            flatten(&[], text.trim_end_matches(';'), handed_on, &mut found);
        }
    }
    for start in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(start) {
            // Within a longer path or name: found from its beginning, or not ours (`$crate`). `pub(in path)` is
            // visibility and imports nothing.
            if rest[..at].ends_with(|c: char| c.is_alphanumeric() || ":_$".contains(c)) || rest[..at].ends_with("(in ")
            {
                continue;
            }
            let end = rest[at..].find(|c: char| !c.is_alphanumeric() && c != ':' && c != '_');
            let path = &rest[at..end.map_or(rest.len(), |end| at + end)];
            flatten(&[], path.trim_end_matches(':'), false, &mut found);
        }
    }
    found
}

/// The paths of a `use` tree.
fn flatten(before: &[String], tree: &str, handed_on: bool, found: &mut Vec<Import>) {
    let tree = tree.trim();
    let (head, inner) = match tree.split_once('{') {
        Some((head, inner)) => (head, inner.rsplit_once('}').map(|(inner, _)| inner)),
        None => (tree, None),
    };
    let (head, alias) = head.split_once(" as ").map_or((head, None), |(head, alias)| (head, Some(alias.trim())));
    let mut path = before.to_vec();
    path.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    if let Some(inner) = inner {
        let mut depth = 0_i32;
        let parts = inner.split(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        for part in parts.filter(|part| !part.trim().is_empty()) {
            flatten(&path, part, handed_on, found);
        }
        return;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = alias.map(str::to_owned).or_else(|| path.last().cloned()) {
        found.push(Import { path, name, handed_on });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(files: &[(&str, &str)]) -> Option<Vec<String>> {
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
        Modules::of(&read).circle()
    }

    #[test]
    fn a_circle_is_found_through_trees_faces_and_bare_paths() {
        let top = ("lib.rs", "mod a;\npub(crate) mod b;\nmod c;\n");
        let face = ("b/mod.rs", "mod inner;\npub use inner::{Thing, Other as More};\n");
        let inner = ("b/inner.rs", "pub fn f() { super::super::c::g() }\n");
        let last = ("c.rs", "use std::{io, fmt};\nuse super::{\n    a::A,\n};\n");
        let circle = circle(&[top, ("a.rs", "use crate::b::{self, More};\n"), face, inner, last]);
        assert_eq!(circle.map(|files| files.len()), Some(3));
    }

    #[test]
    fn faces_tests_and_comments_make_no_circle() {
        let top = ("lib.rs", "mod a;\nmod b;\npub use a::A;\n#[cfg(test)]\nmod tests;\n");
        let a = (
            "a.rs",
            "pub struct A;\npub(in crate::b) struct Seen;\n// use crate::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n",
        );
        let tests = ("tests.rs", "use crate::a::A;\n");
        assert_eq!(circle(&[top, a, ("b.rs", "use crate::A;\n"), tests]), None);
    }
}
