//! The file of results: what was run, on what, every row and every ratio by name. Written after each row, so that a run
//! can be resumed table by table.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::table::Row;

/// Everything that has been measured, and where it is kept.
pub(crate) struct Results {
    path: Option<PathBuf>,
    pub(crate) value: Value,
}

impl Results {
    /// Takes up a file that is there, or begins anew.
    pub(crate) fn open(path: Option<PathBuf>) -> Self {
        let text = path.as_ref().and_then(|p| std::fs::read_to_string(p).ok());
        let value = text.map_or(json!({"tables": {}, "ratios": {}}), |t| {
            serde_json::from_str(&t).unwrap_or_else(|e| panic!("the file of results: {e}"))
        });
        Self { path, value }
    }

    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.value[name] = value;
        self.save();
    }

    /// True if that table is whole.
    pub(crate) fn has(&self, table: &str) -> bool {
        self.value["tables"][table]["done"] == json!(true)
    }

    /// Begins a table; rows of an earlier attempt are dropped.
    pub(crate) fn begin(&mut self, table: &str, title: &str, about: &str, mode: &str) {
        let begun = json!({"title": title, "about": about, "mode": mode, "rows": [], "done": false});
        self.value["tables"][table] = begun;
        if let Some(ratios) = self.value["ratios"].as_object_mut() {
            ratios.retain(|name, _| !name.starts_with(&format!("{table}: ")));
        }
    }

    pub(crate) fn add(&mut self, table: &str, row: &Row, cores: f64) {
        if let Some(rows) = self.value["tables"][table]["rows"].as_array_mut() {
            rows.push(row.json(table, cores));
        }
        for (metric, ratio) in row.ratios() {
            self.value["ratios"][format!("{table}: {}: {metric}", row.name)] = json!(ratio);
        }
        self.save();
    }

    pub(crate) fn end(&mut self, table: &str, seconds: f64) {
        self.value["tables"][table]["done"] = json!(true);
        self.value["tables"][table]["seconds"] = json!(seconds.round());
        self.save();
    }

    pub(crate) fn fail(&mut self, table: &str, why: &str) {
        self.value["tables"][table]["failed"] = json!(why);
        self.save();
    }

    fn save(&self) {
        let Some(path) = &self.path else { return };
        let text = serde_json::to_string_pretty(&self.value).unwrap_or_default();
        let new = path.with_extension("new");
        let done = std::fs::write(&new, text + "\n").and_then(|()| std::fs::rename(&new, path));
        done.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
