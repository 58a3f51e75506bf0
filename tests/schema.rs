//! The JSON Schema in the repository is the one that the code makes.
use std::{fs, path::Path};

use streamer::registry::{Registry, pipeline_schema};

/// `UPDATE=1 cargo test --test schema` writes it anew.
#[test]
fn the_schema_file_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pipeline.schema.json");
    let now = serde_json::to_string_pretty(&pipeline_schema(&Registry::built_in())).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == now, "schemas/pipeline.schema.json is stale; run: UPDATE=1 cargo test --test schema");
}
