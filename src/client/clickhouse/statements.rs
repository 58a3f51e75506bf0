//! SQL texts: quoting names and texts, splitting a file into statements.

/// A name in backticks.
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', r"\\").replace('`', r"\`"))
}

/// A text in single quotes.
pub fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Splits SQL at the semicolons that stand outside quotes and comments. Statements that are only comments are left out.
pub fn split(sql: &str) -> Vec<String> {
    let bytes = sql.as_bytes();
    let mut statements = Vec::new();
    let (mut start, mut at, mut says_something) = (0, 0, false);
    while at < bytes.len() {
        let rest = &sql[at..];
        at += match bytes[at] {
            b';' => {
                if says_something {
                    statements.push(sql[start..at].trim().to_owned());
                }
                (start, says_something) = (at + 1, false);
                1
            }
            quote @ (b'\'' | b'"' | b'`') => {
                says_something = true;
                quoted_len(&bytes[at..], quote)
            }
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'#' if rest.starts_with("# ") || rest.starts_with("#!") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            _ => {
                let c = rest.chars().next().expect("`at` lies before the end, on a character");
                says_something |= !c.is_whitespace();
                c.len_utf8()
            }
        };
    }
    if says_something {
        statements.push(sql[start..].trim().to_owned());
    }
    statements
}

/// Length of a quoted text with both quotes. A doubled quote reads as two texts side by side, which ends the same.
fn quoted_len(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        let table: [(&str, &[&str]); 8] = [
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1;\n SELECT 2 ;", &["SELECT 1", "SELECT 2"]),
            (
                "SELECT ';', 'it''s;', 'a\\';b'; SELECT `x;y`, \"z;\"",
                &["SELECT ';', 'it''s;', 'a\\';b'", "SELECT `x;y`, \"z;\""],
            ),
            ("-- one; two\nSELECT 1 -- a;b\n;", &["-- one; two\nSELECT 1 -- a;b"]),
            ("/* a; b */ SELECT /* ; */ 1;", &["/* a; b */ SELECT /* ; */ 1"]),
            ("-- only a comment;\n;;  ;", &[]),
            ("# shell style; comment\nSELECT '°C';", &["# shell style; comment\nSELECT '°C'"]),
            ("SELECT 'unclosed ; ", &["SELECT 'unclosed ;"]),
        ];
        for (sql, expected) in table {
            assert_eq!(split(sql), expected, "{sql}");
        }
        assert_eq!(split("SELECT 1 /* open ;"), ["SELECT 1 /* open ;"]);
        assert_eq!(split("SELECT 'open \\"), ["SELECT 'open \\"]);
    }

    #[test]
    fn names_and_texts_cannot_break_out_of_their_quotes() {
        assert_eq!(quote_name("a`b\\"), r"`a\`b\\`");
        assert_eq!(quote_text("a'b\\"), r"'a\'b\\'");
    }
}
