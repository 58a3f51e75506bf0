//! The schemas for editors are made from the config types; `make docs` writes them.
use std::path::Path;

use streamer::{
    plugin::PluginFile,
    registry::{Registry, pipeline_schema},
};

fn check(file: &str, now: &serde_json::Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
    let now = serde_json::to_string_pretty(now).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == now, "{} is stale; write it with `make docs`", path.display());
}

#[test]
fn the_schema_of_pipeline_files_is_fresh() {
    check("pipeline.schema.json", &pipeline_schema(&Registry::built_in()));
}

#[test]
fn the_schema_of_plugin_files_is_fresh() {
    check("plugin.schema.json", schemars::schema_for!(PluginFile).as_value());
}
