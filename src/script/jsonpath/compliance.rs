//! RFC 9535's compliance suite, case by case: `tests/fixtures/jsonpath`.
use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Found, JsonPaths, Lookup, LookupError, js_path_process, parse_json_path};
use crate::message::{Batch, SourceBuilder};

#[derive(Deserialize)]
struct Suite {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    selector: String,
    #[serde(default)]
    invalid_selector: bool,
    #[serde(default)]
    document: Value,
    result: Option<Vec<Value>>,
    /// Where the order of an object's members leaves several.
    #[serde(default)]
    results: Vec<Vec<Value>>,
}

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jsonpath").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a step `jsonpath` finds, as a list; and whether the scanner found it, not the library.
fn found(case: &Case) -> Result<(Vec<Value>, bool), String> {
    let mut paths = JsonPaths::default();
    paths.add(&case.selector).map_err(|fault| fault.title)?;
    let many = matches!(&paths.lookups[0], Lookup::Query { many: true, .. });
    let mut source = SourceBuilder::new("test");
    source.push(case.document.to_string().as_bytes(), |_, _| Ok(())).unwrap();
    let mut batch = Batch::new(source.finish());
    paths.scan(&mut batch);
    let mut all = Vec::new();
    paths
        .find(batch.get(0), |_, found| {
            let value = match found {
                Found::Nothing => return Ok(()),
                Found::Value(_, json) => serde_json::from_str(json).unwrap(),
                Found::Made(json) => serde_json::from_str(&json).unwrap(),
            };
            match value {
                Value::Array(items) if many => all = items,
                value => all.push(value),
            }
            Ok::<_, LookupError>(())
        })
        .map_err(|error| error.to_string())?;
    Ok((all, matches!(&paths.lookups[0], Lookup::Fixed(..))))
}

/// What the library alone finds.
fn by_library(case: &Case) -> Result<Vec<Value>, String> {
    let query = parse_json_path(&case.selector).map_err(|error| error.to_string())?;
    let found = js_path_process(&query, &case.document).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|found| found.val.clone()).collect())
}

/// What is wrong with the answer to a case; none when it is right.
fn fault(case: &Case, answer: &Result<Vec<Value>, String>) -> Option<String> {
    match answer {
        Ok(_) if case.invalid_selector => Some("accepts what is no path".to_owned()),
        Err(_) if case.invalid_selector => None,
        Err(error) => Some(format!("refuses a path: {error}")),
        Ok(values) if case.result.iter().chain(&case.results).any(|expected| expected == values) => None,
        Ok(values) => Some(format!("finds {}", Value::from(values.clone()))),
    }
}

/// `departures.json` says by name which cases the library answers otherwise, and how. A case that newly departs fails the
/// test, and so does one that departs no more.
#[test]
fn every_case_of_the_suite_is_answered_as_the_rfc_says_or_is_listed() {
    let suite: Suite = serde_json::from_str(&fixture("cts.json")).unwrap();
    let listed: BTreeMap<String, String> = serde_json::from_str(&fixture("departures.json")).unwrap();
    let (mut departures, mut scanned) = (BTreeMap::new(), 0);
    for case in &suite.tests {
        let answer = found(case);
        let by_scanner = matches!(answer, Ok((_, true)));
        let wrong = fault(case, &answer.map(|(values, _)| values));
        if by_scanner {
            scanned += 1;
            assert_eq!(wrong, None, "{}: `{}`", case.name, case.selector);
        }
        let by_library = fault(case, &by_library(case));
        if let Some(fault) = wrong.or(by_library) {
            departures.insert(case.name.clone(), format!("`{}`: {fault}", case.selector));
        }
    }
    assert!(suite.tests.len() > 700 && scanned > 70, "{scanned} of {} cases were scanned", suite.tests.len());
    assert_eq!(departures, listed, "tests/fixtures/jsonpath/departures.json lists them");
}
