//! Makes a new payload of each message with a Rhai script: the script's value, as JSON.
//!
//! A script that calls `drop()` filters its message. A message for which the script fails is a dead letter with the
//! script's line and column. A value `()` is `null`, a string is a JSON string.
use std::sync::Arc;

use super::{Failure, Step, StepReport, in_field, shape_in};
use crate::{
    diagnostic::Fault,
    message::{ArenaFull, Batch, Documents, Layout},
    script::{Emit, Mapping, ScriptError, ScriptText},
    shape::Shape,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Step> = Spec {
    name: "map",
    summary: "Makes a new payload of each message: the value of a Rhai script, as JSON.",
    example: "|\n  #{ topic: meta.topic, payload: if is_json { payload } else { #{ raw: text } } }\n",
    scripts: &[""],
    schema: schema_of::<ScriptText>,
    build,
};

struct Map {
    mapping: Mapping,
    /// The setting that names the script's file.
    field: Option<&'static str>,
}

fn build(section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
    let script = decode::<ScriptText>(section)?;
    let mapping = script.compile(section, Mapping::compile)?;
    Ok(Box::new(Map { mapping, field: script.field() }))
}

/// The step that makes new payloads with `mapping`.
pub fn map_by(mapping: Mapping) -> Box<dyn Step> {
    Box::new(Map { mapping, field: None })
}

/// Why no payload was written.
enum Unwritten {
    Dropped,
    Failed(ScriptError),
}

impl From<ArenaFull> for Unwritten {
    fn from(error: ArenaFull) -> Self {
        Self::Failed(ScriptError { code: "batch-too-large", reason: error.to_string(), place: None })
    }
}

impl Step for Map {
    fn apply(&mut self, mut batch: Batch, report: &mut StepReport) -> Batch {
        self.mapping.scan(&mut batch);
        let members = self.mapping.members().cloned();
        let mut documents = members.map(|members| Documents::with_capacity(members, batch.len()));
        let mut writer = batch.rewrite();
        for message in batch.iter() {
            let written = writer.push(message, |out| {
                let start = out.len();
                match self.mapping.run(message, out) {
                    Ok(Emit::Written) => {
                        if let Some(documents) = &mut documents {
                            self.mapping.index(&out[start..], documents);
                        }
                        Ok(())
                    }
                    Ok(Emit::Dropped) => Err(Unwritten::Dropped),
                    Err(error) => Err(Unwritten::Failed(error)),
                }
            });
            match written {
                Ok(()) => {}
                Err(Unwritten::Dropped) => report.filtered += 1,
                Err(Unwritten::Failed(error)) => report.failures.push(Failure::script(message, error)),
            }
            if let Some(documents) = &mut documents {
                // A payload that no longer fits into the batch was scanned all the same.
                documents.truncate(writer.len());
            }
        }
        if let Some(documents) = documents {
            writer.documents(documents);
        }
        report.interpreted += self.mapping.interpreted();
        writer.finish()
    }

    fn notes(&self) -> Vec<Fault> {
        self.mapping.notes().into_iter().map(|note| in_field(note, self.field)).collect()
    }

    fn shape(&self, before: &Shape) -> Shape {
        shape_in(self.mapping.shape(before), self.field.as_slice())
    }

    fn wants(&mut self, layout: &mut Layout) {
        self.mapping.wants(layout);
    }

    fn bind(&mut self, layout: &Arc<Layout>) {
        self.mapping.bind(layout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::tests::run;

    #[test]
    fn messages_are_mapped_dropped_or_failed() {
        let section = Section::from_yaml("|\n  if !is_json { drop() }\n  #{ half: payload.n / 2 }");
        let (mapped, report) = run(&SPEC, &section, &[b"{\"n\":4}", b"x", b"{}", b"{\"n\":6}"]);
        assert_eq!(mapped, ["{\"half\":2}", "{\"half\":3}"]);
        assert_eq!((report.filtered, report.failures.len()), (1, 1));
        let failure = &report.failures[0];
        assert_eq!(
            (failure.origin, failure.code.as_str(), failure.place.as_deref()),
            (2, "script-error", Some("test/test:2:20"))
        );
    }

    #[test]
    fn a_script_may_stand_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.rhai"), "let a = 1;\npayload.n +").unwrap();
        let mut section = Section::from_yaml("{ file: x.rhai }");
        section.folder = folder.path().to_owned();
        let fault = (SPEC.build)(&section).err().unwrap().remove(0);
        assert_eq!((fault.at, fault.to_string().split(':').next()), (Some((2, 12)), Some("`file`")), "{fault:?}");
        std::fs::write(folder.path().join("x.rhai"), "let a = 1;\npayload.n + a").unwrap();
        assert_eq!(run(&SPEC, &section, &[b"{\"n\":4}"]).0, ["5"]);
        section.value = serde_yaml::from_str("{ file: none.rhai }").unwrap();
        assert_eq!((SPEC.build)(&section).err().unwrap()[0].code, "unreadable-script");
    }
}
