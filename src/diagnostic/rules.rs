//! What every code means, in a Markdown file for each: `streamer lint --explain` shows it, the reference has it as a
//! page, and a test lints its examples.

/// A code and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Kebab-case name of the fault.
    pub code: &'static str,
    /// Markdown: what is checked, why it matters, an example, and what to write instead.
    pub text: &'static str,
}

macro_rules! rules {
    ($($code:literal)*) => {
        /// Every code that a diagnostic may have, sorted.
        pub static RULES: &[Rule] =
            &[$(Rule { code: $code, text: include_str!(concat!("rules/", $code, ".md")) }),*];
    };
}

rules! {
    "absent-table"
    "absent-topic"
    "always-false"
    "bad-address"
    "bad-example"
    "bad-jsonpath"
    "bad-label"
    "bad-name"
    "bad-option"
    "bad-template"
    "bad-topic"
    "bad-variable"
    "broker-limit"
    "clean-start"
    "closure-in-the-way"
    "compacted-topic"
    "conflicting-fields"
    "contradiction"
    "dead-letter-loop"
    "delivery-impossible"
    "duplicate"
    "duplicate-key"
    "empty-name"
    "file-not-found"
    "integer-division"
    "interpreted"
    "invalid-topic"
    "invalid-topic-filter"
    "invalid-url"
    "invalid-value"
    "message-limit"
    "missing-dead-letter"
    "missing-field"
    "missing-group"
    "missing-question-mark"
    "missing-right"
    "missing-topic"
    "name-taken"
    "never-matches"
    "no-archive"
    "no-deduplication"
    "no-fields"
    "no-path"
    "no-value"
    "not-a-definition"
    "not-checked"
    "nothing-to-set"
    "one-component"
    "one-script"
    "out-of-range"
    "overlapping-filters"
    "plain-secret"
    "refused-option"
    "refused-sign-in"
    "refused-subscription"
    "same-client-id"
    "same-group"
    "same-name"
    "script-syntax"
    "setting-not-allowed"
    "shared-subscription"
    "small-window"
    "spool-useless"
    "topic-loop"
    "topic-unavailable"
    "unfit-table"
    "unknown-field"
    "unknown-function"
    "unknown-input"
    "unknown-label"
    "unknown-module"
    "unknown-output"
    "unknown-step"
    "unknown-value"
    "unknown-variable"
    "unreachable-server"
    "unreachable-step"
    "unreadable-file"
    "unreadable-script"
    "unset-variable"
    "unused-variable"
    "useless-default"
    "wrong-arguments"
    "wrong-type"
    "yaml-limit"
    "yaml-syntax"
}

/// What a code means.
pub fn rule(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code == code)
}

impl Rule {
    /// What is checked, in one paragraph on one line.
    pub fn summary(&self) -> String {
        let paragraph = self.text.split("\n\n").nth(1).unwrap_or_default();
        paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
