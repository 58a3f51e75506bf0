//! Steps that a YAML file declares: parameters with types, and a script that has them as `params`.
use std::{collections::BTreeMap, ops::Range, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::{
    config::{Component, parse_plain},
    diagnostic::{Diagnostic, Fault, SourceFile},
    script::{Condition, Mapping},
    spec::{Modules, Section, Site, decode},
    step::{Step, filter_by, map_by},
};

/// A file that declares a step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginFile {
    /// Name of the step: small letters, digits and `_`.
    pub step: String,
    /// What it does, in one sentence.
    pub summary: String,
    /// Its settings, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// YAML of a working section, as it stands under the step's name.
    #[serde(default)]
    pub example: String,
    /// Rhai script that makes the new payload. It has the settings as `params`.
    #[serde(default)]
    pub map: Option<String>,
    /// Rhai script that answers whether the message is kept. It has the settings as `params`.
    #[serde(default)]
    pub filter: Option<String>,
}

/// One setting.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it is for: the unit, and what happens at the limit.
    pub description: String,
    /// What it must be.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// When true, it must be given.
    #[serde(default)]
    pub required: bool,
    /// What it is when it is not given.
    #[serde(default)]
    pub default: Option<Json>,
    /// Smallest number.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest number.
    #[serde(default)]
    pub max: Option<f64>,
    /// The texts it may be.
    #[serde(default)]
    pub one_of: Option<Vec<String>>,
}

/// What a setting must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    Text,
    Integer,
    Number,
    Boolean,
    List,
    Map,
    Any,
}

/// A step that a plugin declares.
#[derive(Debug)]
pub struct PluginStep {
    pub name: String,
    pub summary: String,
    pub example: String,
    /// The file that declares it.
    pub file: String,
    /// That file's text.
    pub(super) text: String,
    pub(super) name_span: Range<usize>,
    parameters: BTreeMap<String, Parameter>,
    work: Work,
    site: Site,
}

#[derive(Debug)]
enum Work {
    Map(String),
    Filter(String),
}

impl PluginStep {
    /// Reads a file and checks all that can be checked without settings.
    /// Beside the step stands what is most likely wrong with its script.
    pub(super) fn read(
        file: &Arc<SourceFile>,
        modules: &Arc<Modules>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (root, faults) = parse_plain(file);
        let Some(root) = root.filter(|_| faults.is_empty()) else { return Err(faults) };
        let section = Section {
            pipeline: file.path.as_str().into(),
            label: "plugin".into(),
            folder: ".".into(),
            value: root.to_value(),
            scripts: Component::script_places(file, &root, &["map", "filter"]),
            modules: modules.clone(),
            texts: Arc::default(),
        };
        let component = Component::of_file(file, &root, section);
        let diagnose = |faults: Vec<Fault>| faults.iter().map(|fault| component.diagnose(fault)).collect::<Vec<_>>();
        let declared: PluginFile = decode(&component.section).map_err(diagnose)?;

        let mut faults = Vec::new();
        let is_name = declared.step.starts_with(|c: char| c.is_ascii_lowercase())
            && declared.step.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_name {
            let title = format!("`{}` cannot be the name of a step", declared.step);
            faults.push(Fault::new("bad-name", "step", title).label("use small letters, digits and `_`"));
        }
        for (name, parameter) in &declared.parameters {
            let at = |code, setting: &str, title: String| {
                Fault::new(code, "", title).within(setting).within(name).within("parameters")
            };
            if parameter.required && parameter.default.is_some() {
                let title = format!("`{name}` is required, so its default is never used");
                faults
                    .push(at("useless-default", "default", title).label("never used").help("take one of the two away"));
            }
            if parameter.default.as_ref().is_some_and(|default| !parameter.kind.fits(default)) {
                let title = format!("the default of `{name}` is not of type `{}`", parameter.kind.word());
                faults
                    .push(at("wrong-type", "default", title).label(format!("not of type `{}`", parameter.kind.word())));
            }
        }
        let (field, work) = match (declared.map, declared.filter) {
            (Some(map), None) => ("map", Work::Map(map)),
            (None, Some(filter)) => ("filter", Work::Filter(filter)),
            _ => {
                let title = "a step does one thing: `map` or `filter`".to_owned();
                faults.push(Fault::new("one-script", "step", title).label("give it one script"));
                return Err(diagnose(faults));
            }
        };
        let site = component.section.script(field);
        let step = Self {
            name: declared.step,
            summary: declared.summary,
            example: declared.example,
            file: file.path.clone(),
            text: file.text.clone(),
            name_span: root.entry("step").map_or(0..0, |entry| entry.value.span.clone()),
            parameters: declared.parameters,
            work,
            site,
        };
        // With settings that say nothing the script's own faults show.
        let notes = match step.compile(&Json::Object(Map::new())) {
            Ok(step) => step.notes(),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| fault.within(field)));
                Vec::new()
            }
        };
        if faults.is_empty() && !step.example.is_empty() {
            let value = serde_yaml::from_str(&step.example).unwrap_or_default();
            let section = Section { value, ..component.section.clone() };
            if let Err(found) = step.build(&section) {
                let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                faults.push(
                    Fault::new("bad-example", "example", format!("the example does not work: {text}")).label("here"),
                );
            }
        }
        if !faults.is_empty() {
            return Err(diagnose(faults));
        }
        // Whether a script is compiled may depend on the settings: that is for the pipelines to say.
        let notes = notes.into_iter().filter(|note| note.code != "interpreted").map(|note| note.within(field));
        Ok((step, diagnose(notes.collect())))
    }

    /// The JSON Schema of its section.
    pub fn schema(&self) -> Json {
        let mut properties = Map::new();
        for (name, parameter) in &self.parameters {
            let mut schema = json!({ "description": parameter.description });
            let mut put = |key: &str, value: Option<Json>| {
                if let Some(value) = value {
                    schema[key] = value;
                }
            };
            put("type", parameter.kind.schema());
            put("default", parameter.default.clone());
            put("minimum", parameter.min.map(Json::from));
            put("maximum", parameter.max.map(Json::from));
            put("enum", parameter.one_of.clone().map(Json::from));
            properties.insert(name.clone(), schema);
        }
        let required: Vec<&String> = self.parameters.iter().filter(|(_, p)| p.required).map(|(name, _)| name).collect();
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": properties,
            "required": required,
        })
    }

    /// Makes the step with the settings of `section`.
    ///
    /// # Errors
    /// Settings that do not fit. Lint reports these by the schema first; this is the last check.
    pub fn build(&self, section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
        let mut given: Json = match &section.value {
            serde_yaml::Value::Null => json!({}),
            value => serde_json::to_value(value).map_err(|error| {
                vec![Fault::new("invalid-value", "", format!("the settings cannot be read: {error}"))]
            })?,
        };
        let Some(settings) = given.as_object_mut() else {
            return Err(vec![
                Fault::new("wrong-type", "", format!("`{}` takes settings", self.name)).label("not settings"),
            ]);
        };
        let mut faults = Vec::new();
        for name in settings.keys().filter(|name| !self.parameters.contains_key(*name)) {
            faults.push(
                Fault::new("unknown-field", "", format!("step `{}` has no field `{name}`", self.name)).within(name),
            );
        }
        for (name, parameter) in &self.parameters {
            match settings.get(name) {
                None if parameter.required => {
                    let title = format!("step `{}` needs the field `{name}`", self.name);
                    faults.push(Fault::new("missing-field", "", title).label(format!("`{name}` is missing")));
                }
                None => {
                    settings.insert(name.clone(), parameter.default.clone().unwrap_or(Json::Null));
                }
                Some(value) => faults.extend(parameter.misfit(name, value).map(|fault| fault.within(name))),
            }
        }
        if faults.is_empty() { self.compile(&given) } else { Err(faults) }
    }

    fn compile(&self, params: &Json) -> Result<Box<dyn Step>, Vec<Fault>> {
        let site = Site { params: Some(Arc::new(params.clone())), ..self.site.clone() };
        Ok(match &self.work {
            Work::Map(script) => map_by(Mapping::compile(script, site)?),
            Work::Filter(script) => filter_by(Condition::compile(script, site)?),
        })
    }
}

impl Parameter {
    fn misfit(&self, name: &str, value: &Json) -> Option<Fault> {
        if !self.kind.fits(value) {
            let title = format!("`{name}` must be of type `{}`", self.kind.word());
            return Some(Fault::new("wrong-type", "", title).label(format!("not of type `{}`", self.kind.word())));
        }
        let number = value.as_f64();
        if number.is_some_and(|n| self.min.is_some_and(|min| n < min) || self.max.is_some_and(|max| n > max)) {
            return Some(Fault::new("out-of-range", "", format!("`{name}` is out of range")).label("out of range"));
        }
        let allowed =
            self.one_of.as_ref().filter(|allowed| !value.as_str().is_some_and(|v| allowed.iter().any(|a| a == v)));
        allowed.map(|allowed| {
            Fault::new("unknown-value", "", format!("`{name}` must be one of `{}`", allowed.join("`, `")))
                .label("none of them")
        })
    }
}

impl ParameterType {
    fn fits(self, value: &Json) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Map => value.is_object(),
            Self::Any => true,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::List => "list",
            Self::Map => "map",
            Self::Any => "any",
        }
    }

    fn schema(self) -> Option<Json> {
        Some(match self {
            Self::Text => "string".into(),
            Self::Integer => "integer".into(),
            Self::Number => "number".into(),
            Self::Boolean => "boolean".into(),
            Self::List => "array".into(),
            Self::Map => "object".into(),
            Self::Any => return None,
        })
    }
}
