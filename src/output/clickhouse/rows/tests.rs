use bytes::Bytes;

use super::*;
use crate::output::clickhouse::table::ListedColumn;

const TELEMETRY: &[(&str, &str, &str)] = &[
    ("id", "String", ""),
    ("battery", "UInt8", ""),
    ("accel.x", "Array(Float32)", ""),
    ("accel.y", "Array(Float32)", ""),
];

fn table(columns: &[(&str, &str, &str)]) -> Arc<Table> {
    let listed = columns.iter().map(|&(name, ty, kind)| ListedColumn {
        name: name.into(),
        type_text: ty.into(),
        default_kind: kind.into(),
    });
    Arc::new(Table::new(listed.collect(), "UTC", true).unwrap())
}

fn abilities(formats: &[&str]) -> Abilities {
    Abilities { formats: formats.iter().map(|&f| f.to_owned()).collect(), ..Abilities::default() }
}

const STRICT: Rules = Rules { surplus: Surplus::Reject, wrap_scalars: true };

fn encode_all(table: &Arc<Table>, rules: Rules, layout: Layout, abilities: &Abilities, messages: &[&str]) -> Encoded {
    let mut encoder = Encoder::new(table.clone(), layout, rules, 4, 100);
    for (index, message) in messages.iter().enumerate() {
        encoder.message(index as u32, message.as_bytes(), None);
    }
    encoder.finish(abilities)
}

/// The bytes of one message's row, or why it is none.
fn row(table: &Arc<Table>, rules: Rules, message: &str) -> Result<Vec<u8>, String> {
    let abilities = abilities(&["RowBinary"]);
    let encoded = encode_all(table, rules, Layout::all(table), &abilities, &[message]);
    match encoded.rejected.first() {
        Some(rejection) => Err(format!("{}: {}", rejection.code, rejection.reason)),
        None => Ok(encoded.blocks[0].body().to_vec()),
    }
}

fn telemetry(id: &str, battery: u8, x: &[f32], y: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(id.as_bytes(), &mut out);
    out.push(battery);
    for axis in [x, y] {
        put_len(axis.len(), &mut out);
        axis.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }
    out
}

#[test]
fn a_nested_column_takes_every_shape() {
    let table = table(TELEMETRY);
    let one = telemetry("a", 7, &[1.5], &[-2.0]);
    let two = telemetry("a", 7, &[1.5, 3.0], &[-2.0, 4.0]);
    let cases = [
        (r#"{"id":"a","battery":7,"accel":{"x":1.5,"y":-2}}"#, &one),
        (r#"{"id":"a","battery":7,"accel":{"x":[1.5],"y":[-2]}}"#, &one),
        (r#"{"id":"a","battery":7,"accel":[{"x":1.5,"y":-2}]}"#, &one),
        (r#"{"id":"a","battery":7,"accel.x":1.5,"accel.y":[-2]}"#, &one),
        (r#" { "accel" : { "y" : -2 , "x" : "1.5" } , "battery" : "7" , "id" : "a" } "#, &one),
        (r#"{"id":"a","battery":7,"accel":{"x":[1.5,3],"y":[-2,4]}}"#, &two),
        (r#"{"id":"a","battery":7,"accel":[{"x":1.5,"y":-2},{"y":4,"x":3}]}"#, &two),
    ];
    for (message, expected) in cases {
        assert_eq!(row(&table, STRICT, message).as_ref(), Ok(expected), "{message}");
    }
    let filled = telemetry("", 0, &[1.0, 2.0], &[0.0, 0.0]);
    assert_eq!(row(&table, STRICT, r#"{"accel":{"x":[1,2]}}"#), Ok(filled), "missing members are filled up");
    let partly = telemetry("", 0, &[1.0, 0.0], &[0.0, 2.0]);
    assert_eq!(row(&table, STRICT, r#"{"accel":[{"x":1},{"y":2}]}"#), Ok(partly));
    assert_eq!(row(&table, STRICT, r#"{"accel":[]}"#), Ok(telemetry("", 0, &[], &[])));
    assert_eq!(row(&table, STRICT, "{}"), Ok(telemetry("", 0, &[], &[])));
}

#[test]
fn what_is_no_row_is_refused_and_names_the_column() {
    let table = table(TELEMETRY);
    let cases = [
        ("[1]", "not-an-object: the payload is no JSON object: `[1]`"),
        ("\"text\"", "not-an-object: the payload is no JSON object: `\"text\"`"),
        ("", "not-json: the payload is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{\"id\":", "not-json: the payload is not JSON: EOF while parsing a value at line 1 column 6"),
        ("{} x", "not-json: the payload is not JSON: trailing characters at line 1 column 4"),
        (r#"{"id":"a","batery":1}"#, "unknown-field: the table has no column for the field `batery`"),
        (r#"{"accel":{"w":1}}"#, "unknown-field: the table has no column for the field `accel.w`"),
        (r#"{"accel":[{"w":1}]}"#, "unknown-field: the table has no column for the field `accel.w`"),
        (r#"{"battery":300}"#, "column-range: column `battery` (UInt8): `300` is out of range, 0 to 255"),
        (
            r#"{"battery":null}"#,
            "column-type: column `battery` (UInt8): `null` is not allowed: the column is not Nullable",
        ),
        (
            r#"{"accel":{"x":[1,2],"y":[1]}}"#,
            "column-type: column `accel.y` has 1 elements and `accel.x` has 2; those of one Nested must be equal",
        ),
        (r#"{"accel":{"x":1},"accel.y":1}"#, "column-type: `accel` is given twice, as `accel` and as `accel.y`"),
        (r#"{"accel":[{"x":1,"x":2}]}"#, "column-type: `accel.x` is given twice in one element"),
        (r#"{"accel":5}"#, "column-type: column `accel` (Nested): `5` is not an object, or an array of objects"),
        (
            r#"{"accel":[5]}"#,
            "column-type: column `accel` (Nested): `5` is not an object, as an element of an array must be",
        ),
        (r#"{"accel":{"x":"much"}}"#, "column-type: column `accel.x` (Array(Float32)): `\"much\"` is not a number"),
    ];
    for (message, expected) in cases {
        assert_eq!(row(&table, STRICT, message), Err(expected.to_owned()), "{message}");
    }
    let flat = Rules { wrap_scalars: false, ..STRICT };
    assert_eq!(
        row(&table, flat, r#"{"accel":{"x":1}}"#).unwrap_err(),
        "column-type: column `accel.x` (Array(Float32)): `1` is not an array, and `nested_scalar_wrap` is off"
    );
    let mut encoder = Encoder::new(table.clone(), Layout::all(&table), STRICT, 1, 1);
    encoder.message(0, b"{\"id\":\"\xff\"}", None);
    assert_eq!(encoder.finish(&abilities(&[])).rejected[0].code, "not-json");
}

#[test]
fn unknown_fields_are_dropped_on_demand() {
    let table = table(TELEMETRY);
    let lax = Rules { surplus: Surplus::Drop, ..STRICT };
    let message = r#"{"x":{"deep":[1]},"battery":7,"accel":{"x":1,"w":2,"y":1},"z":null}"#;
    assert_eq!(row(&table, lax, message), Ok(telemetry("", 7, &[1.0], &[1.0])));
}

#[test]
fn a_field_given_twice_counts_as_the_last_one_and_names_may_be_escaped() {
    let table = table(&[("a", "UInt8", ""), ("b", "UInt8", "")]);
    assert_eq!(row(&table, STRICT, r#"{"a":1,"\u0062":2,"a":3}"#), Ok(vec![3, 2]));
}

#[test]
fn one_refused_message_does_not_touch_the_others() {
    let table = table(&[("a", "UInt8", ""), ("b", "String", "")]);
    let messages = [r#"{"a":1,"b":"x"}"#, r#"{"b":"long","a":256}"#, r#"{"b":"y","a":2}"#, "nonsense"];
    let encoded = encode_all(&table, STRICT, Layout::all(&table), &abilities(&["RowBinary"]), &messages);
    assert_eq!(encoded.blocks[0].body(), b"\x01\x01x\x02\x01y"[..]);
    assert_eq!(encoded.blocks[0].messages().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(encoded.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 3]);
    assert!(encoded.blames_the_table());
}

#[test]
fn columns_with_a_default_are_left_to_the_server() {
    let table = table(&[("a", "UInt8", ""), ("b", "UInt8", "DEFAULT")]);
    let new = abilities(&["RowBinary", "RowBinaryWithNamesAndTypes", "RowBinaryWithNamesAndTypesAndDefaults"]);
    let old = abilities(&["RowBinary"]);
    let layout = |columns: &[usize], flags| Layout { columns: columns.to_vec(), flags };
    let (with, without) = (r#"{"a":1,"b":2}"#, r#"{"a":3}"#);
    let all = Layout::all(&table);
    let cases: [(&[&str], &Abilities, Layout, &[u8]); 5] = [
        (&[with, with], &new, layout(&[0, 1], false), &[1, 2, 1, 2]),
        (&[without, without], &new, layout(&[0], false), &[3, 3]),
        (&[with, without], &new, layout(&[0, 1], true), &[0, 1, 0, 2, 0, 3, 1]),
        (&["{}", with], &new, layout(&[0, 1], true), &[1, 1, 0, 1, 0, 2]),
        (&[with, without], &old, layout(&[0, 1], false), &[1, 2, 3, 0]),
    ];
    for (messages, abilities, expected, body) in cases {
        let mut encoded = encode_all(&table, STRICT, all.clone(), abilities, messages);
        if let Some(better) = encoded.better.take() {
            encoded = encode_all(&table, STRICT, better, abilities, messages);
        }
        assert_eq!((encoded.better, encoded.layout), (None, expected), "{messages:?}");
        assert_eq!(encoded.blocks[0].body(), *body, "{messages:?}");
    }
    let flagged = encode_all(&table, STRICT, layout(&[0, 1], true), &new, &[with]);
    assert_eq!(flagged.better, None, "flags where none is needed are kept");
}

#[test]
fn a_row_of_nothing_but_defaults_can_be_written() {
    let table = table(&[("a", "UInt8", "DEFAULT")]);
    let new = abilities(&["RowBinary", "RowBinaryWithDefaults"]);
    let encoded = encode_all(&table, STRICT, Layout::all(&table), &new, &["{}"]);
    let better = encoded.better.unwrap();
    let encoded = encode_all(&table, STRICT, better, &new, &["{}"]);
    assert_eq!((encoded.better, encoded.blocks[0].body()), (None, Bytes::from_static(&[1])));
}

#[test]
fn a_refused_row_does_not_change_which_layout_fits() {
    // The only message that has `b` is refused for it: encoding without `b` must not let it pass.
    let table = table(&[("a", "UInt8", ""), ("b", "UInt8", "DEFAULT")]);
    let new = abilities(&["RowBinary", "RowBinaryWithDefaults"]);
    let messages = [r#"{"a":1}"#, r#"{"a":1,"b":999}"#];
    let mut layout = Layout { columns: vec![0], flags: false };
    for _ in 0..2 {
        let encoded = encode_all(&table, STRICT, layout.clone(), &new, &messages);
        match encoded.better {
            Some(better) => layout = better,
            None => {
                assert_eq!(encoded.rejected.len(), 1);
                return;
            }
        }
    }
    panic!("no layout fits");
}

#[test]
fn the_header_repeats_names_and_types() {
    let table = table(&[("a", "UInt8", ""), ("b", "Array(String)", "")]);
    assert_eq!(Layout::all(&table).header(&table), b"\x02\x01a\x01b\x05UInt8\x0dArray(String)");
}

#[test]
fn a_payload_that_comes_with_its_index_gives_the_same_row() {
    let table = table(TELEMETRY);
    let check = |message: &str, names: &[&str]| {
        let mut members = message::Layout::new();
        let nodes: Vec<_> = names.iter().map(|name| members.key(NodeId::ROOT, name)).collect();
        assert_eq!(nodes.len(), names.len());
        let members = Arc::new(members);
        let mut slots = vec![crate::message::Slot::default(); members.len()];
        crate::codec::json::scan(&members, message, &mut slots).unwrap();
        let scanned = crate::message::Scanned::Json { depth: 1, complete: true };
        let document = Document { layout: &members, slots: &slots, scanned };
        let mut encoder = Encoder::new(table.clone(), Layout::all(&table), STRICT, 4, 100);
        encoder.message(0, message.as_bytes(), Some(document));
        // A second one of the same layout, and one without.
        encoder.message(1, message.as_bytes(), Some(document));
        encoder.message(2, message.as_bytes(), None);
        let encoded = encoder.finish(&abilities(&["RowBinary"]));
        match encoded.rejected.as_slice() {
            [] => {
                let body = encoded.blocks[0].body();
                let third = body.len() / 3;
                assert_eq!(
                    (&body[..third], &body[..third]),
                    (&body[third..2 * third], &body[2 * third..]),
                    "{message}"
                );
            }
            [a, b, c] => assert_eq!((&a.reason, &a.code), (&c.reason, &c.code), "{message}, and {}", b.reason),
            some => panic!("{message}: {some:?}"),
        }
    };
    check(r#"{"accel":{"x":1.5,"y":[2,3.5]},"battery":300,"id":"a"}"#, &["accel", "battery", "id"]);
    check(r#"{"accel":[{"x":1,"y":2}],"battery":"7","id":"q\"°"}"#, &["accel", "battery", "id"]);
    check(r#"{"battery":7,"id":"a","other":1}"#, &["battery", "id", "other"]);
    check(r#"{"battery":7,"id":"a"}"#, &["battery", "id", "never"]);
    check(r#"{"accel.x":[1],"accel.y":[2],"battery":null,"id":5}"#, &["accel.x", "accel.y", "battery", "id"]);
}
