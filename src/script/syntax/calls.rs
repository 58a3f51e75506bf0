//! The calls of a script, and what a module holds besides definitions.
use rhai::{AST, ASTFlags, ASTNode, Expr, Position, Stmt};

/// A call of a function.
pub(in crate::script) struct Call<'a> {
    pub name: &'a str,
    /// The modules before its name, outermost first.
    pub modules: Vec<&'a str>,
    pub arguments: usize,
    /// True when it is called as `object.name(…)`: the object is the function's first argument.
    pub is_method: bool,
    pub at: Position,
    /// Where the first of its modules stands.
    pub module_at: Position,
}

/// Calls `visit` with every call in a script and its functions; operators are none. A loop may show the same one more
/// than once.
pub(in crate::script) fn each_call(ast: &AST, visit: &mut dyn FnMut(Call<'_>)) {
    ast.walk(&mut |path| {
        let (call, at, is_method) = match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at))) => (call, *at, false),
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => (call, *at, true),
            _ => return true,
        };
        if call.op_token.is_none() {
            visit(Call {
                name: &call.name,
                modules: call.namespace.path.iter().map(|module| module.name.as_str()).collect(),
                arguments: call.args.len(),
                is_method,
                at,
                module_at: call.namespace.path.first().map_or(at, |module| module.pos),
            });
        }
        true
    });
}

/// Where statements stand that are neither functions nor constants.
pub(in crate::script) fn other_than_definitions(ast: &AST) -> Vec<Position> {
    let is_definition = |statement: &&Stmt| match statement {
        Stmt::Noop(_) => true,
        Stmt::Var(_, flags, _) => flags.contains(ASTFlags::CONSTANT),
        _ => false,
    };
    ast.statements().iter().filter(|statement| !is_definition(statement)).map(Stmt::position).collect()
}
