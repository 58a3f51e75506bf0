//! What every code means, in a Markdown file for each: `streamer lint --explain` shows it, the reference has it as a
//! page, and a test lints its examples.

use super::Severity;

/// A code and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Kebab-case name of the fault.
    pub code: &'static str,
    /// How bad it is at worst.
    pub level: Severity,
    /// Markdown: what is checked, why it matters, an example, and what to write instead.
    pub text: &'static str,
}

macro_rules! rules {
    ($($code:literal $level:ident)*) => {
        /// Every code that a diagnostic may have, sorted.
        pub static RULES: &[Rule] =
            &[$(Rule {
                code: $code,
                level: Severity::$level,
                text: include_str!(concat!("rules/", $code, ".md")),
            }),*];
    };
}

rules! {
    "absent-table" Error
    "absent-topic" Error
    "always-false" Warning
    "bad-address" Error
    "bad-example" Error
    "bad-jsonpath" Error
    "bad-label" Error
    "bad-name" Error
    "bad-option" Error
    "bad-template" Error
    "bad-topic" Error
    "bad-variable" Error
    "broker-limit" Error
    "clean-start" Warning
    "closure-in-the-way" Error
    "compacted-topic" Error
    "conflicting-fields" Error
    "contradiction" Error
    "dead-letter-loop" Warning
    "delivery-impossible" Error
    "duplicate" Error
    "duplicate-key" Error
    "empty-name" Error
    "file-not-found" Error
    "foreign-member" Warning
    "idle-member" Note
    "integer-division" Note
    "interpreted" Note
    "invalid-topic" Error
    "invalid-topic-filter" Error
    "invalid-url" Error
    "invalid-value" Error
    "message-limit" Warning
    "missing-dead-letter" Warning
    "missing-field" Error
    "missing-group" Error
    "missing-question-mark" Warning
    "missing-right" Error
    "missing-topic" Error
    "name-taken" Error
    "never-matches" Warning
    "no-archive" Error
    "no-deduplication" Error
    "no-fields" Error
    "no-path" Error
    "no-value" Warning
    "not-a-definition" Error
    "not-checked" Warning
    "nothing-to-set" Error
    "one-component" Error
    "one-partition" Note
    "one-script" Error
    "out-of-range" Error
    "overlapping-filters" Warning
    "plain-secret" Warning
    "refused-option" Error
    "refused-sign-in" Error
    "refused-subscription" Error
    "same-client-id" Error
    "same-group" Warning
    "same-name" Error
    "script-syntax" Error
    "setting-not-allowed" Error
    "shared-subscription" Warning
    "small-window" Warning
    "spool-useless" Error
    "topic-loop" Warning
    "topic-unavailable" Error
    "unfilled-column" Warning
    "unfit-table" Error
    "unfit-value" Error
    "unknown-column" Error
    "unknown-field" Error
    "unknown-function" Error
    "unknown-input" Error
    "unknown-label" Error
    "unknown-module" Error
    "unknown-output" Error
    "unknown-step" Error
    "unknown-value" Error
    "unknown-variable" Error
    "unreachable-server" Error
    "unreachable-step" Warning
    "unreadable-file" Error
    "unreadable-script" Error
    "unset-variable" Error
    "unused-variable" Warning
    "useless-default" Error
    "wrong-arguments" Error
    "wrong-type" Error
    "yaml-limit" Error
    "yaml-syntax" Error
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
