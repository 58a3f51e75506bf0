//! One compiled script, ready to be run for message after message.
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rhai::{
    AST, Array, Caches, Dynamic, Engine, EvalAltResult, GlobalRuntimeState, ImmutableString, Map, OptimizationLevel,
    Scope,
};

use super::{
    check, document,
    document::{Untouched, Unwritable, UnwritableKind},
    engine::{self, LoadedModule, Stop},
    infer,
    plan::{self, Plan, Refusal},
    review,
    syntax::{MetaNeed, Needs, PayloadNeed, Tree, Untangled},
};
use crate::{
    codec::json::{self, Content},
    diagnostic::{Fault, ScriptPlace},
    message::MessageRef,
    shape::Shape,
    spec::{Modules, Site},
};

/// Why a script failed for one message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ScriptError {
    /// Kebab-case name: `script-error`, `script-limit`, `not-utf8`, `nested-too-deep`, `not-a-number`, `not-json-value`
    /// or `not-a-condition`.
    pub code: &'static str,
    /// What went wrong, for a person.
    pub reason: String,
    /// `file:line:column`, when it happened at a place in the script.
    pub place: Option<String>,
}

/// A compiled script with all it needs to run: one lane's own.
pub(super) struct Program {
    engine: Engine,
    ast: AST,
    /// What is run: `ast`, or its like without closures that are in their own way.
    runs: AST,
    untangled: Untangled,
    /// The modules that it, or one of them, calls.
    modules: Vec<LoadedModule>,
    /// All modules that it may call.
    given: Arc<Modules>,
    scope: Scope<'static>,
    /// Kept from run to run: Rhai would look up every function again for every message.
    state: Option<(GlobalRuntimeState, Caches)>,
    needs: Needs,
    place: ScriptPlace,
    params: Option<Arc<serde_json::Value>>,
}

/// What a script answered.
pub(super) enum Answer<'a> {
    /// Its value, and the payload that `Untouched` stands for.
    Value(Dynamic, Option<&'a str>),
    /// It called `drop()`.
    Dropped,
}

/// The scope that scripts are compiled and run in. Its shape never changes: Rhai addresses variables by position.
fn scope(params: Option<&serde_json::Value>) -> Scope<'static> {
    let mut scope = Scope::new();
    // None of these is a constant: the optimiser would put its value at this moment into the script.
    for name in ["payload", "is_json", "text", "meta"] {
        scope.push_dynamic(name, Dynamic::UNIT);
    }
    if let Some(params) = params {
        let value = document::parse(&params.to_string()).unwrap_or_default();
        scope.push_constant_dynamic("params", value);
    }
    scope
}

impl Program {
    pub fn compile(source: &str, site: Site) -> Result<Self, Vec<Fault>> {
        let Site { place, modules: given, params } = site;
        let (engine, modules) = engine::with_modules(source, &given);
        let scope = scope(params.as_deref());
        let ast = engine
            .compile_with_scope(&scope, source)
            .map_err(|error| vec![check::syntax(source, &error, params.is_some())])?;
        let faults = check::calls(source, &ast, &modules);
        if !faults.is_empty() {
            return Err(faults);
        }
        let untangled = Untangled::of(source, &ast)?;
        let runs = match &untangled.text {
            None => ast.clone(),
            Some(text) => engine.compile_with_scope(&scope, text).map_err(|error| {
                let mut fault = check::syntax(text, &error, params.is_some());
                fault.at = fault.at.map(|at| untangled.original(at));
                vec![fault]
            })?,
        };
        let needs = Needs::of(&ast);
        Ok(Self { engine, ast, runs, untangled, modules, given, scope, state: None, needs, place, params })
    }

    /// The script as a plan, or the reason why there is none.
    pub fn plan(&self, source: &str) -> Result<Plan, Refusal> {
        let modules = self.modules.iter().map(|module| (module.name.as_str(), &module.ast));
        plan::compile(&Tree::of(&self.engine, source, &self.ast, modules), self.params.as_deref())
    }

    /// What the script makes of payloads like `payload`.
    pub fn infer(&self, source: &str, payload: &Shape) -> Shape {
        // As it is written: worked out ahead of time, a map no longer knows where its fields stand.
        let (mut engine, modules) = engine::with_modules(source, &self.given);
        engine.set_optimization_level(OptimizationLevel::None);
        let Ok(ast) = engine.compile_with_scope(&scope(self.params.as_deref()), source) else { return Shape::Any };
        let modules = modules.iter().map(|module| (module.name.as_str(), &module.ast));
        infer::infer(&Tree::of(&engine, source, &ast, modules), payload)
    }

    /// What is most likely wrong in the script.
    pub fn review(&self, source: &str, purpose: review::Purpose) -> Vec<Fault> {
        let modules = self.modules.iter().map(|module| (module.name.as_str(), &module.ast));
        review::review(source, &Tree::of(&self.engine, source, &self.ast, modules), purpose)
    }

    /// Runs the script for one message.
    pub fn run<'a>(&mut self, message: MessageRef<'a>) -> Result<Answer<'a>, ScriptError> {
        engine::begin();
        let is_json = self.set_variables(message)?;
        // Rhai is careful, but a panic in it must cost one message, not the process.
        let result = catch_unwind(AssertUnwindSafe(|| self.evaluate()));
        self.scope.rewind(4 + usize::from(self.params.is_some()));
        let Ok(result) = result else {
            self.state = None;
            return Err(self.error(
                "script-error",
                "the script engine panicked; this is a fault of streamer".to_owned(),
                None,
            ));
        };
        match result {
            Ok(value) => {
                let payload = match self.needs.payload {
                    PayloadNeed::PassedOn => simdutf8::basic::from_utf8(message.payload()).ok(),
                    _ => None,
                };
                Ok(Answer::Value(value, payload))
            }
            Err(error) => {
                // Whatever it was in the middle of is not to be found there by the next message.
                self.state = None;
                self.explain(*error, is_json)
            }
        }
    }

    fn evaluate(&mut self) -> Result<Dynamic, Box<EvalAltResult>> {
        let (global, caches) = self.state.get_or_insert_with(|| {
            let mut global = self.engine.new_global_runtime_state();
            global.lib.push(self.runs.shared_lib().clone());
            (global, Caches::new())
        });
        #[expect(deprecated, reason = "the only way to keep the caches from run to run; the version of rhai is pinned")]
        self.engine.eval_statements_raw(global, caches, &mut self.scope, self.runs.statements())
    }

    /// Gives the script what it reads of `message`. Answers whether the payload is JSON, as far as that was looked at.
    fn set_variables(&mut self, message: MessageRef<'_>) -> Result<Option<bool>, ScriptError> {
        let needs = &self.needs;
        let (mut payload, mut is_json) = (Dynamic::UNIT, None);
        if needs.payload == PayloadNeed::Decoded {
            match simdutf8::basic::from_utf8(message.payload()).map(document::parse) {
                Ok(Ok(value)) => {
                    payload = value;
                    is_json = Some(true);
                }
                Ok(Err(error)) if error.too_deep => return Err(self.too_deep()),
                _ => is_json = Some(false),
            }
        } else if needs.payload == PayloadNeed::PassedOn || needs.is_json {
            match json::classify(message.payload()) {
                Content::Json(text) => {
                    if text.trim_ascii() != "null" {
                        payload = Dynamic::from(Untouched);
                    }
                    is_json = Some(true);
                }
                Content::TooDeep(_) => return Err(self.too_deep()),
                Content::Text(..) | Content::NotUtf8 => is_json = Some(false),
            }
        }
        let mut text = Dynamic::UNIT;
        if needs.text {
            let payload = simdutf8::basic::from_utf8(message.payload()).map_err(|_| {
                self.error(
                    "not-utf8",
                    "the payload is not UTF-8, so the script cannot have it as `text`".to_owned(),
                    None,
                )
            })?;
            text = ImmutableString::from(payload).into();
        }
        let meta = meta(&needs.meta, message);
        for (name, value) in
            [("payload", payload), ("is_json", is_json.unwrap_or(false).into()), ("text", text), ("meta", meta)]
        {
            *self.scope.get_mut(name).expect("the scope is made with these variables") = value;
        }
        Ok(is_json)
    }

    fn too_deep(&self) -> ScriptError {
        let reason = format!("the payload is JSON nested deeper than {} levels", json::DEPTH_MAX);
        self.error("nested-too-deep", reason, None)
    }

    fn explain<'a>(&self, error: EvalAltResult, is_json: Option<bool>) -> Result<Answer<'a>, ScriptError> {
        let mut error = error;
        // The place inside the function says more than that of its call. A module's functions name its file.
        let mut file = String::new();
        while let EvalAltResult::ErrorInFunctionCall(_, source, inner, _) = error {
            file = source;
            error = *inner;
        }
        let position = error.take_position();
        // Rhai stops some loops without saying where; then the start of the script at least names the script.
        let place = (position.line().unwrap_or(1), position.position().unwrap_or(1));
        let (code, reason) = match &error {
            EvalAltResult::ErrorTerminated(why, _) => match why.clone().try_cast::<Stop>() {
                Some(Stop::Drop) => return Ok(Answer::Dropped),
                Some(Stop::Time) => {
                    ("script-limit", format!("the script took longer than {} ms", engine::TIME_MAX.as_millis()))
                }
                _ => ("script-limit", "the script took too many operations".to_owned()),
            },
            EvalAltResult::ErrorTooManyOperations(_)
            | EvalAltResult::ErrorDataTooLarge(..)
            | EvalAltResult::ErrorStackOverflow(_) => ("script-limit", check::lower_first(&error.to_string())),
            EvalAltResult::ErrorRuntime(value, _) => ("script-error", thrown(value)),
            EvalAltResult::ErrorDataRace(..) => (
                "script-error",
                "a closure uses the variable that the chain it was given to starts with; give it a copy".to_owned(),
            ),
            _ => {
                let hint = if is_json == Some(false) { " (the payload is not JSON)" } else { "" };
                ("script-error", format!("{}{hint}", check::lower_first(&error.to_string())))
            }
        };
        Err(match self.modules.iter().find(|module| module.file == file) {
            Some(module) => {
                let (line, column) = module.untangled.original(place);
                ScriptError { code, reason, place: Some(format!("{}:{line}:{column}", module.file)) }
            }
            None => self.error(code, reason, Some(self.untangled.original(place))),
        })
    }

    pub fn error(&self, code: &'static str, reason: String, place: Option<(usize, usize)>) -> ScriptError {
        ScriptError { code, reason, place: place.map(|(line, column)| self.place.locate(line, column)) }
    }

    /// What to say of a result that JSON cannot hold.
    pub fn unwritable(&self, error: &Unwritable) -> ScriptError {
        let code = match error.kind {
            UnwritableKind::NotFinite(_) => "not-a-number",
            UnwritableKind::Type(_) | UnwritableKind::TooDeep => "not-json-value",
        };
        self.error(code, error.reason(), Some((1, 1)))
    }
}

/// What a script threw, as text.
fn thrown(value: &Dynamic) -> String {
    if let Ok(text) = value.as_immutable_string_ref() {
        return text.to_string();
    }
    let mut out = Vec::new();
    match document::write(value, None, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(error) => error.reason(),
    }
}

/// `meta`, with the fields that are needed. A field that the message does not have is not there, so it reads as `()`.
fn meta(need: &MetaNeed, message: MessageRef<'_>) -> Dynamic {
    if matches!(need, MetaNeed::Fields(fields) if fields.is_empty()) {
        return Dynamic::UNIT;
    }
    let origin = message.origin();
    let mut meta = Map::new();
    let mut put = |name: &str, value: Option<Dynamic>| {
        if let Some(value) = value {
            meta.insert(name.into(), value);
        }
    };
    let text = |bytes: &[u8]| simdutf8::basic::from_utf8(bytes).ok().map(|t| ImmutableString::from(t).into());
    // Names of the user's first, so that none of them hides a field of ours.
    for (name, value) in message.all_named() {
        if need.has(name) {
            put(name, text(value));
        }
    }
    let topic = message.topic();
    if need.has("topic") && !topic.is_empty() {
        put("topic", text(topic.as_bytes()));
    }
    if need.has("levels") {
        let levels = topic.split('/').filter(|_| !topic.is_empty());
        put("levels", Some(Dynamic::from_array(levels.map(Into::into).collect::<Array>())));
    }
    if need.has("key") {
        put("key", message.key().and_then(text));
    }
    if need.has("headers") {
        let headers = message.headers().filter_map(|(name, value)| Some((name.into(), text(value)?)));
        put("headers", Some(Dynamic::from_map(headers.collect())));
    }
    for (name, value) in [
        ("partition", (origin.partition >= 0).then(|| i64::from(origin.partition))),
        ("offset", (origin.offset >= 0).then_some(origin.offset)),
        ("timestamp_ms", origin.timestamp_ms),
        ("received_at", Some(origin.received_at_ms.div_euclid(1000))),
        ("received_at_ms", Some(origin.received_at_ms)),
        ("qos", Some(origin.qos.into())),
        ("part", message.part().map(i64::from)),
    ] {
        if need.has(name) {
            put(name, value.map(Into::into));
        }
    }
    if need.has("retain") {
        put("retain", Some(origin.retain.into()));
    }
    Dynamic::from_map(meta)
}

#[cfg(test)]
pub(super) fn compile_for_tests(source: &str) -> AST {
    engine::new().compile_with_scope(&scope(None), source).unwrap()
}
