//! The sandbox that scripts run in: which functions exist, which limits hold.
//!
//! A raw engine with an allow-list of Rhai's packages: no files, no modules, no `eval`, no `sleep`, no `exit`, nothing
//! printed (`print` and `debug` go to the log at debug level). A script that runs away costs its limit and becomes the
//! failure of one message:
//!
//! | limit | value | counts |
//! |---|---|---|
//! | time | 100 ms a message | looked at every 256 operations, inside closures too; one native call is not interrupted |
//! | operations | 5 million a message | inside closures too, where Rhai's own count stops |
//! | strings | 16 MiB | all strings of one value together |
//! | arrays, maps | 1 million entries | nested ones included |
//! | calls in calls | 32 | |
//! | nested expressions | 64; 32 in functions | |
//! | variables | 256 | |
//! | functions of a script | 128 | |
//!
//! The limits on strings, arrays and maps are those of the largest message that is accepted, because Rhai applies them
//! to values that are only passed on, too.
mod number;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    time::{Duration, Instant},
};

use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FuncRegistration, Module, OptimizationLevel, ParseError, Scope, Shared,
    module_resolvers::DummyModuleResolver,
    packages::{
        ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
        BasicStringPackage, LogicPackage, MoreStringPackage, Package,
    },
};

pub(super) use number::BigNumber;

use super::{clock, functions, syntax::Untangled};
use crate::spec::Modules;

/// Longest time one message may take.
pub const TIME_MAX: Duration = Duration::from_millis(100);
/// Every so many operations the clock is looked at.
const LOOK: u32 = 256;
/// And every so many for ten times the limit: one operation may take 50 ms, where it waits for a variable that is never
/// set free. The limit itself is not held so closely, since the machine may be busy with something else.
const GLANCE: u32 = 32;
const OPERATIONS_MAX: u32 = 5_000_000;
const STRING_BYTES_MAX: usize = 16 << 20;
const ENTRIES_MAX: usize = 1 << 20;

/// Why a script was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The script called `drop()`.
    Drop,
    Time,
    Operations,
}

/// What belongs to the message that this thread is working on. A script runs on one thread from start to end.
struct Run {
    operations: Cell<u32>,
    /// Set at the first look at the clock, so that short scripts never look.
    started: Cell<Option<Instant>>,
}

thread_local! {
    static RUN: Run = const {
        Run { operations: Cell::new(0), started: Cell::new(None) }
    };
}

/// Starts the limits and the clock of the next message on this thread.
pub(super) fn begin() {
    RUN.with(|run| {
        run.operations.set(0);
        run.started.set(None);
    });
    clock::begin();
}

/// Counts one operation of the message at hand.
fn progress(_: u64) -> Option<Dynamic> {
    RUN.with(|run| {
        let operations = run.operations.get() + 1;
        run.operations.set(operations);
        if operations % GLANCE != 0 {
            return None;
        }
        let started = run.started.get().unwrap_or_else(|| {
            let now = Instant::now();
            run.started.set(Some(now));
            now
        });
        if operations > OPERATIONS_MAX {
            Some(Dynamic::from(Stop::Operations))
        } else if started.elapsed() > if operations % LOOK == 0 { TIME_MAX } else { TIME_MAX * 10 } {
            Some(Dynamic::from(Stop::Time))
        } else {
            None
        }
    })
}

fn stop(why: Stop) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(Dynamic::from(why), rhai::Position::NONE))
}

/// The functions, registered once for the process: an engine only points to them.
static LIBRARY: LazyLock<Vec<Shared<Module>>> = LazyLock::new(|| {
    let mut own = Module::new();
    functions::register(&mut own);
    number::register(&mut own);
    // The one function that gives no value.
    let drop = FuncRegistration::new("drop").with_volatility(true);
    drop.set_into_module(&mut own, || -> Result<Dynamic, Box<EvalAltResult>> { Err(stop(Stop::Drop)) });
    own.build_index();
    let mut all = packages();
    all.push(own.into());
    all
});

/// Rhai's functions.
fn packages() -> Vec<Shared<Module>> {
    vec![
        ArithmeticPackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
        BasicIteratorPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        BasicFnPackage::new().as_shared_module(),
    ]
}

/// Every function of `engine` by name, with the numbers of arguments it takes.
pub fn arities(engine: &Engine) -> BTreeMap<String, BTreeSet<usize>> {
    let mut known: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for signature in engine.gen_fn_signatures(true) {
        let Some((name, rest)) = signature.split_once('(') else { continue };
        let arguments = &rest[..rest.rfind(')').unwrap_or(rest.len())];
        let mut depth = 0;
        let mut count = usize::from(!arguments.trim().is_empty());
        for char in arguments.chars() {
            match char {
                '<' | '(' | '[' => depth += 1,
                '>' | ')' | ']' => depth -= 1,
                ',' if depth == 0 => count += 1,
                _ => {}
            }
        }
        known.entry(name.trim().to_owned()).or_default().insert(count);
    }
    known
}

/// The same for Rhai's functions alone.
#[cfg(test)]
pub fn arities_without_ours() -> BTreeMap<String, BTreeSet<usize>> {
    let mut engine = Engine::new_raw();
    packages().into_iter().for_each(|package| {
        engine.register_global_module(package);
    });
    arities(&engine)
}

/// An engine for one script. Cheap: functions are shared.
pub(super) fn new() -> Engine {
    let mut engine = Engine::new_raw();
    // The module registered last is searched first, so our own functions come before Rhai's.
    for module in LIBRARY.iter() {
        engine.register_global_module(module.clone());
    }
    engine.register_type_with_name::<BigNumber>("number beyond 64 bits");
    engine
        .set_module_resolver(DummyModuleResolver::new())
        .set_optimization_level(OptimizationLevel::Simple)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(false)
        .set_max_call_levels(32)
        .set_max_expr_depths(64, 32)
        .set_max_variables(256)
        .set_max_functions(128)
        .set_max_modules(0)
        .set_max_string_size(STRING_BYTES_MAX)
        .set_max_array_size(ENTRIES_MAX)
        .set_max_map_size(ENTRIES_MAX)
        // Strings are interned behind a lock; a lane has no use for it.
        .set_max_strings_interned(0)
        .on_progress(progress)
        .on_print(|text| tracing::debug!(text, "a script printed"))
        .on_debug(|text, _, position| tracing::debug!(text, %position, "a script printed"));
    for symbol in ["eval", "import", "export"] {
        engine.disable_symbol(symbol);
    }
    engine
}

/// A module of functions, compiled.
pub(super) struct LoadedModule {
    pub name: String,
    /// Its path, as it is shown.
    pub file: String,
    pub ast: AST,
    /// What its functions run as.
    pub untangled: Untangled,
}

/// An engine for a script that may call `modules`: those it names, and those that these name.
pub(super) fn with_modules(source: &str, modules: &Modules) -> (Engine, Vec<LoadedModule>) {
    let mut engine = new();
    let mut loaded: Vec<LoadedModule> = Vec::new();
    let mut sources = vec![source];
    while let Some(source) = sources.pop() {
        for module in &modules.0 {
            let is_named = source.contains(&format!("{}::", module.name));
            if !is_named || loaded.iter().any(|known| known.name == module.name) {
                continue;
            }
            // A module with faults is reported as such, once; to a script it is not there.
            let Ok(ast) = compile_module(module) else { continue };
            let Ok(untangled) = Untangled::of(&module.text, &ast) else { continue };
            loaded.push(LoadedModule { name: module.name.clone(), file: module.file.clone(), ast, untangled });
            sources.push(&module.text);
        }
    }
    stand_in(&mut engine, source);
    for module in &loaded {
        let run = match &module.untangled.text {
            None => Ok(module.ast.clone()),
            Some(text) => compile_module_text(text, &module.file),
        };
        // Nothing runs here but the definitions of constants.
        if let Ok(functions) =
            run.map_err(Into::into).and_then(|ast| Module::eval_ast_as_new(Scope::new(), &ast, &engine))
        {
            engine.register_static_module(&module.name, functions.into());
        }
    }
    (engine, loaded)
}

/// Compiles the functions of a module.
pub(super) fn compile_module(module: &crate::spec::Module) -> Result<AST, ParseError> {
    compile_module_text(&module.text, &module.file)
}

fn compile_module_text(text: &str, file: &str) -> Result<AST, ParseError> {
    let mut engine = new();
    stand_in(&mut engine, text);
    let mut ast = engine.compile(text)?;
    ast.set_source(file);
    Ok(ast)
}

/// Gives an engine empty modules for all that a script names. Rhai would stop at the first that it does not know; our own
/// check tells all of them, and what is known takes the place of its stand-in.
fn stand_in(engine: &mut Engine, source: &str) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in source.match_indices("::") {
        let before = &source[..at];
        let name = &before[before
            .rfind(|c| !is_name(c))
            .map_or(0, |end| end + before[end..].chars().next().map_or(1, char::len_utf8))..];
        // `global` is Rhai's own: the constants of the module itself.
        if !name.is_empty() && name != "global" {
            engine.register_static_module(name, Module::new().into());
        }
    }
}
