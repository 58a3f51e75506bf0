//! What went wrong with a request, and what may be done about it: the one table of ClickHouse error codes.
//!
//! The HTTP status says nothing reliable (the server answers bad data with 400 or 500, too many parts with 500), so the
//! code at the start of the answer decides.

use std::fmt;

use super::Class::{self, *};

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server's own answer.
    Server {
        code: u32,
        /// One line, without the server's version and stack trace.
        text: String,
    },
    /// No answer in time. The server may still have done what was asked.
    Timeout,
    /// The connection broke, or something that is not ClickHouse answered. The server may have done what was asked.
    Network(String),
}

/// Names of codes that need no advice or share it with their class; sorted by code.
/// Source: `SELECT errorCodeToName(n)`.
#[rustfmt::skip]
static CODES: &[(u32, Class)] = &[
    (3, Drift),           // UNEXPECTED_END_OF_FILE: of a body that broke off, or a type that changed
    (6, Row),             // CANNOT_PARSE_TEXT
    (10, Drift),          // NOT_FOUND_COLUMN_IN_BLOCK
    (16, Drift),          // NO_SUCH_COLUMN_IN_TABLE
    (20, Drift),          // NUMBER_OF_COLUMNS_DOESNT_MATCH
    (26, Row),            // CANNOT_PARSE_QUOTED_STRING
    (27, Row),            // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    (32, Drift),          // ATTEMPT_TO_READ_AFTER_EOF: like 3
    (33, Drift),          // CANNOT_READ_ALL_DATA: like 3
    (36, Config),         // BAD_ARGUMENTS
    (38, Row),            // CANNOT_PARSE_DATE
    (41, Row),            // CANNOT_PARSE_DATETIME
    (46, Config),         // UNKNOWN_FUNCTION
    (47, Drift),          // UNKNOWN_IDENTIFIER
    (48, Config),         // NOT_IMPLEMENTED
    (50, Config),         // UNKNOWN_TYPE
    (53, Drift),          // TYPE_MISMATCH
    (60, Config),         // UNKNOWN_TABLE
    (62, Config),         // SYNTAX_ERROR
    (69, Row),            // ARGUMENT_OUT_OF_BOUND
    (70, Row),            // CANNOT_CONVERT_TYPE
    (72, Row),            // CANNOT_PARSE_NUMBER
    (73, Config),         // UNKNOWN_FORMAT
    (80, Config),         // INCORRECT_QUERY
    (81, Config),         // UNKNOWN_DATABASE
    (115, Config),        // UNKNOWN_SETTING
    (117, Drift),         // INCORRECT_DATA; with a row named it is that row
    (128, Row),           // TOO_LARGE_ARRAY_SIZE
    (130, Row),           // CANNOT_READ_ARRAY_FROM_TEXT
    (131, Drift),         // TOO_LARGE_STRING_SIZE: what a text's length looks like when types have shifted
    (159, Transient),     // TIMEOUT_EXCEEDED
    (160, Transient),     // TOO_SLOW
    (164, Transient),     // READONLY
    (173, Transient),     // CANNOT_ALLOCATE_MEMORY
    (190, Row),           // SIZES_OF_ARRAYS_DONT_MATCH
    (192, Config),        // UNKNOWN_USER
    (193, Config),        // WRONG_PASSWORD
    (194, Config),        // REQUIRED_PASSWORD
    (195, Config),        // IP_ADDRESS_NOT_ALLOWED
    (198, Transient),     // DNS_ERROR
    (201, Backpressure),  // QUOTA_EXCEEDED
    (202, Transient),     // TOO_MANY_SIMULTANEOUS_QUERIES
    (203, Transient),     // NO_FREE_CONNECTION
    (209, Transient),     // SOCKET_TIMEOUT
    (210, Transient),     // NETWORK_ERROR
    (216, Transient),     // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING
    (218, Config),        // TABLE_IS_DROPPED
    (225, Transient),     // NO_ZOOKEEPER
    (236, Transient),     // ABORTED
    (241, Memory),        // MEMORY_LIMIT_EXCEEDED
    (242, Transient),     // TABLE_IS_READ_ONLY
    (243, Transient),     // NOT_ENOUGH_SPACE
    (244, Transient),     // UNEXPECTED_ZOOKEEPER_ERROR
    (252, Backpressure),  // TOO_MANY_PARTS; "too many partitions" shares the code, see `Failure::class`
    (254, Transient),     // NO_ACTIVE_REPLICAS
    (279, Transient),     // ALL_CONNECTION_TRIES_FAILED
    (285, Transient),     // TOO_FEW_LIVE_REPLICAS
    (286, Transient),     // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    (289, Transient),     // REPLICA_IS_NOT_IN_QUORUM
    (291, Config),        // DATABASE_ACCESS_DENIED
    (307, Backpressure),  // TOO_MANY_BYTES
    (319, Transient),     // UNKNOWN_STATUS_OF_INSERT
    (321, Row),           // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    (349, Row),           // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    (369, Transient),     // ALL_REPLICAS_ARE_STALE
    (373, Transient),     // SESSION_IS_LOCKED
    (376, Row),           // CANNOT_PARSE_UUID
    (394, Transient),     // QUERY_WAS_CANCELLED
    (395, Row),           // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    (396, Backpressure),  // TOO_MANY_ROWS_OR_BYTES
    (407, Row),           // DECIMAL_OVERFLOW
    (415, Transient),     // ALL_REPLICAS_LOST
    (416, Transient),     // REPLICA_STATUS_CHANGED
    (425, Transient),     // SYSTEM_ERROR
    (432, Config),        // UNKNOWN_CODEC
    (439, Transient),     // CANNOT_SCHEDULE_TASK
    (441, Row),           // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
    (452, Config),        // SETTING_CONSTRAINT_VIOLATION
    (457, Config),        // BAD_QUERY_PARAMETER
    (467, Row),           // CANNOT_PARSE_BOOL
    (469, Row),           // VIOLATED_CONSTRAINT
    (473, Transient),     // DEADLOCK_AVOIDED
    (497, Config),        // ACCESS_DENIED
    (499, Transient),     // S3_ERROR
    (516, Config),        // AUTHENTICATION_FAILED
    (519, Transient),     // NO_REMOTE_SHARD_AVAILABLE
    (574, Transient),     // DISTRIBUTED_TOO_MANY_PENDING_BYTES
    (620, Config),        // QUERY_NOT_ALLOWED
    (691, Row),           // UNKNOWN_ELEMENT_OF_ENUM
    (693, Transient),     // AWS_ERROR
    (700, Transient),     // USER_SESSION_LIMIT_EXCEEDED
    (733, Transient),     // TABLE_IS_BEING_RESTARTED
    (745, Transient),     // SERVER_OVERLOADED
    (999, Transient),     // KEEPER_EXCEPTION
    (1000, Transient),    // POCO_EXCEPTION
    (1001, Transient),    // STD_EXCEPTION
];

/// Longest part of a server's text that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 400;

impl Failure {
    /// Reads an answer that is not a success. Without a code at its start it is not from ClickHouse (a proxy, a load
    /// balancer).
    pub fn from_answer(answer: &str) -> Self {
        let Some((code, rest)) = answer.trim_start().strip_prefix("Code: ").and_then(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            Some((rest[..digits].parse().ok()?, &rest[digits..]))
        }) else {
            return Self::Network(shorten(&one_line(answer), TEXT_BYTES_MAX));
        };
        let mut text = rest.split_once("Exception: ").map_or(rest, |(_, text)| text);
        // The server's own additions stand at the end, a user's value before them: cut at the last one.
        for end in [" (version ", ", e.what()", ", Stack trace", " Stack trace"] {
            text = text.rfind(end).map_or(text, |at| &text[..at]);
        }
        Self::Server { code, text: shorten(&one_line(text.trim_start_matches(['.', ',', ' '])), TEXT_BYTES_MAX) }
    }

    /// What may be done about it. A code that is not in the table is tried again, never given up.
    pub fn class(&self) -> Class {
        match self {
            Self::Server { code: 252, text } if text.contains("partitions") => Split,
            Self::Server { code: 117, .. } if self.row().is_some() => Row,
            Self::Server { code, .. } => {
                CODES.binary_search_by_key(code, |&(code, _)| code).map_or(Transient, |at| CODES[at].1)
            }
            Self::Timeout | Self::Network(_) => Transient,
        }
    }

    /// The row the server names as the culprit, counted from 0.
    pub fn row(&self) -> Option<usize> {
        let Self::Server { code, text } = self else { return None };
        // The text may quote a user's value: before the row when parsing failed, after it when a constraint did.
        let at = if *code == 469 { text.find(" at row ") } else { text.rfind("(at row ") }? + " at row ".len();
        let digits = text[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - at);
        text[at..at + digits].parse::<usize>().ok()?.checked_sub(1)
    }

    /// What the user can do about it, where that can be said.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Network(_) => "check `url` and that the server runs",
            Self::Timeout => "the server is slow or cannot be reached; `timeout_ms` is the limit",
            Self::Server { code, .. } => match code {
                164 => "the user or the server is read-only: give this output a user that may write",
                192 | 193 | 194 | 516 => "check `user` and `password`",
                195 => "the server does not let this user in from this address",
                60 | 81 | 218 => "create the table, or name a file with its CREATE statements in `create`",
                115 | 452 => "check the names and values under `settings`",
                201 => "the user's quota is used up until its interval ends",
                202 => "lower `in_flight_max`, or raise `max_concurrent_queries` on the server",
                241 => "lower `batch_messages_max` or `batch_bytes_max`, or give the server more memory",
                243 => "the server's disk is full",
                252 if self.class() == Split => {
                    "one message lies in more partitions than an insert may have: partition the table more coarsely"
                }
                252 => "merges are behind: raise `batch_messages_max` and `linger_ms`, so that inserts are fewer",
                291 | 497 => "grant the user INSERT and SELECT on the table",
                319 => "a replica answered too late to be sure; written again",
                _ => match self.class() {
                    Drift => "the table changed under the insert",
                    Config => "correct the settings of this output or the table",
                    _ => "tried again until it succeeds",
                },
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { code, text } => write!(f, "clickhouse-{code}: {text}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Network(text) => f.write_str(text),
        }
    }
}

impl From<clickhouse::error::Error> for Failure {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match error {
            Error::BadResponse(answer) => Self::from_answer(&answer),
            Error::TimedOut => Self::Timeout,
            other => {
                // The outer texts say no more than "client error"; the cause is at the bottom.
                let mut text = other.to_string();
                let mut cause = std::error::Error::source(&other);
                while let Some(deeper) = cause {
                    let deeper_text = deeper.to_string();
                    if !text.contains(&deeper_text) {
                        text = format!("{text}: {deeper_text}");
                    }
                    cause = deeper.source();
                }
                Self::Network(text)
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `bytes_max` bytes of `text`, and `…` where something is missing.
pub fn shorten(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(answer: &str) -> Failure {
        Failure::from_answer(answer)
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn answers_of_new_and_old_servers_are_read() {
        let table = [
            (
                "Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE) (version 26.7.2.1)",
                "clickhouse-60: Table a.b does not exist. (UNKNOWN_TABLE)",
                Config,
            ),
            (
                "Code: 60, e.displayText() = DB::Exception: Table a.b doesn't exist., e.what() = DB::Exception\n",
                "clickhouse-60: Table a.b doesn't exist.",
                Config,
            ),
            (
                "Code: 252. DB::Exception: Too many parts (3000).",
                "clickhouse-252: Too many parts (3000).",
                Backpressure,
            ),
            (
                "Code: 252. DB::Exception: Too many partitions for single INSERT block",
                "clickhouse-252: Too many partitions for single INSERT block",
                Split,
            ),
            (
                "Code: 117. DB::Exception: Type of 'b' must be UInt8, not UInt16: (while reading header)",
                "clickhouse-117: Type of 'b' must be UInt8, not UInt16: (while reading header)",
                Drift,
            ),
            (
                "Code: 117. DB::Exception: Cannot insert data into JSON column: (at row 1)\n: While executing",
                "clickhouse-117: Cannot insert data into JSON column: (at row 1) : While executing",
                Row,
            ),
            ("Code: 241. DB::Exception: Memory limit exceeded", "clickhouse-241: Memory limit exceeded", Memory),
            ("Code: 98765. DB::Exception: Something new", "clickhouse-98765: Something new", Transient),
            ("Code: 516", "clickhouse-516: ", Config),
            ("502 Bad Gateway", "502 Bad Gateway", Transient),
            ("<html>\n<h1>busy</h1>", "<html> <h1>busy</h1>", Transient),
            ("Code: x", "Code: x", Transient),
        ];
        for (answer, text, class) in table {
            let failure = failure(answer);
            assert_eq!((failure.to_string().as_str(), failure.class()), (text, class), "{answer}");
        }
        assert_eq!(Failure::Timeout.class(), Transient);
    }

    #[test]
    fn the_row_named_by_the_server_is_found_and_a_users_value_is_not() {
        let table = [
            ("Code: 469. DB::Exception: Constraint `k` is violated at row 3. Column values: s = ' at row 9'", Some(2)),
            ("Code: 117. DB::Exception: cannot parse \"(at row 9)\": (at row 70001)\n: While", Some(70_000)),
            ("Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero at row x", None),
            ("Code: 33. DB::Exception: Cannot read all data (at row 0)", None),
            ("Code: 60. DB::Exception: Table", None),
        ];
        for (answer, row) in table {
            assert_eq!(failure(answer).row(), row, "{answer}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten("a°°", 2), "a…");
        let Failure::Server { text, .. } = failure(&format!("Code: 1. DB::Exception: {}", "x".repeat(9_999))) else {
            panic!("it has a code")
        };
        assert_eq!(text.chars().count(), TEXT_BYTES_MAX + 1);
    }
}
