//! What `lint --connect` asks of the outside world. A component brings its own questions, beside `connect`; this is what
//! their answers have in common.
use futures_util::future::BoxFuture;

use crate::diagnostic::Fault;

/// The questions of one component, to be awaited. Nothing is sent before that, nothing is written anywhere, and whatever
/// was opened is closed at the end or when it is dropped.
pub type Probe = BoxFuture<'static, Vec<Fault>>;

/// Nobody answers at the address in `field`.
pub fn unreachable(field: &str, what: &str, reason: &str) -> Fault {
    Fault::new("unreachable-server", field, format!("{what} cannot be reached: {reason}"))
        .label("no answer from here")
        .help(format!("check that it runs, that this machine may connect to it, and `{field}`"))
}

/// The server does not let this user in.
pub fn refused_sign_in(field: &str, what: &str, reason: &str) -> Fault {
    Fault::new("refused-sign-in", field, format!("{what} refuses the sign-in: {reason}")).label("not let in with this")
}

/// The server answers, but not to this question, so that something is not known.
pub fn not_checked(field: &str, what: &str, reason: &str) -> Fault {
    Fault::new("not-checked", field, format!("{what} could not be checked: {reason}")).label("not known").into_warning()
}
