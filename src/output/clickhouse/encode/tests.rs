use super::*;

fn bytes_of(ty: &str, json: &str) -> Result<Vec<u8>, Misfit> {
    let mut out = Vec::new();
    encode(&Type::parse(ty).unwrap(), json, Surplus::Reject, &mut out).map(|()| out)
}

/// Types, values in JSON that they take, and the bytes.
pub(in crate::output::clickhouse) const TAKEN: &[(&str, &str, &[u8])] = &[
    ("UInt8", "255", &[255]),
    ("UInt8", "\"84\"", &[84]),
    ("UInt8", "84.0", &[84]),
    ("UInt8", "true", &[1]),
    ("Int8", "-128", &[0x80]),
    ("Int64", "-9223372036854775808", &i64::MIN.to_le_bytes()),
    ("UInt64", "18446744073709551615", &u64::MAX.to_le_bytes()),
    ("Float64", "0.1", &0.1_f64.to_le_bytes()),
    ("Float64", "\"-1e3\"", &(-1000.0_f64).to_le_bytes()),
    ("Float64", "123456789012345678", &123_456_789_012_345_678_f64.to_le_bytes()),
    ("Float32", "0.1", &0.1_f32.to_le_bytes()),
    ("BFloat16", "1.5", &[0xc0, 0x3f]),
    ("Bool", "true", &[1]),
    ("Bool", "0", &[0]),
    ("Bool", "\"false\"", &[0]),
    ("String", "\"\"", &[0]),
    ("String", "\"a\\n\\u00b0\"", b"\x04a\n\xc2\xb0"),
    ("String", "1.10", b"\x041.10"),
    ("String", "{\"a\": [1]}", b"\x0a{\"a\": [1]}"),
    ("FixedString(4)", "\"ab\"", b"ab\0\0"),
    ("Date", "\"1970-01-02\"", &[1, 0]),
    ("Date32", "\"1969-12-31\"", &[255; 4]),
    ("DateTime", "1", &[1, 0, 0, 0]),
    ("DateTime", "\"1970-01-01 00:00:01\"", &[1, 0, 0, 0]),
    ("DateTime64(3)", "\"1970-01-01T00:00:00.002Z\"", &[2, 0, 0, 0, 0, 0, 0, 0]),
    ("Time", "\"00:01:00\"", &[60, 0, 0, 0]),
    ("Decimal(9, 2)", "1.10", &[110, 0, 0, 0]),
    ("Decimal(18, 2)", "\"-0.01\"", &[255; 8]),
    (
        "UUID",
        "\"00112233-4455-6677-8899-aabbccddeeff\"",
        &[0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88],
    ),
    ("IPv4", "\"1.2.3.4\"", &[4, 3, 2, 1]),
    ("IPv6", "\"::1\"", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ("IPv6", "\"1.2.3.4\"", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4]),
    ("Enum8('a' = -1, 'b' = 2)", "\"a\"", &[255]),
    ("Enum16('a' = -1, 'b' = 2)", "2", &[2, 0]),
    ("Nullable(UInt8)", "null", &[1]),
    ("Nullable(UInt8)", "7", &[0, 7]),
    ("LowCardinality(Nullable(String))", "\"x\"", &[0, 1, b'x']),
    ("Array(UInt8)", "[]", &[0]),
    ("Array(Nullable(UInt8))", "[1, null ,3]", &[3, 0, 1, 1, 0, 3]),
    ("Array(Array(UInt8))", "[[1,2],[]]", &[2, 2, 1, 2, 0]),
    ("Tuple(UInt8, String)", "[1,\"x\"]", &[1, 1, b'x']),
    ("Tuple(a UInt8, b UInt8)", "{\"b\":2,\"a\":1}", &[1, 2]),
    ("Tuple(a UInt8, b UInt8)", "{\"b\":2}", &[0, 2]),
    ("Map(String, UInt8)", "{\"k\":1,\"l\":2}", &[2, 1, b'k', 1, 1, b'l', 2]),
    ("Map(UInt8, UInt8)", "{\"9\":1}", &[1, 9, 1]),
    ("Point", "[0, 0]", &[0; 16]),
    ("JSON", "{\"a\":1}", b"\x07{\"a\":1}"),
];

#[test]
fn values_become_the_bytes_of_their_type() {
    for (ty, json, expected) in TAKEN {
        assert_eq!(bytes_of(ty, json).as_deref(), Ok(*expected), "{json} as {ty}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_refused_and_says_why() {
    let table = [
        ("UInt8", "300", "column-range", "`300` is out of range, 0 to 255"),
        ("UInt8", "-1", "column-range", "`-1` is out of range, 0 to 255"),
        ("Int16", "32768", "column-range", "`32768` is out of range, -32768 to 32767"),
        (
            "Int64",
            "9223372036854775808",
            "column-range",
            "`9223372036854775808` is out of range, -9223372036854775808 to 9223372036854775807",
        ),
        ("Int256", "1e77", "column-range", "`1e77` is out of range for Int256"),
        ("UInt8", "84.5", "column-type", "`84.5` is not a whole number"),
        ("UInt8", "\"84x\"", "column-type", "`\"84x\"` is not a whole number"),
        ("UInt8", "null", "column-type", "`null` is not allowed: the column is not Nullable"),
        ("UInt8", "[1]", "column-type", "`[1]` is not a whole number"),
        ("Float32", "1e39", "column-range", "`1e39` is out of range for Float32"),
        ("Float64", "1e309", "column-range", "`1e309` is out of range for Float64"),
        ("Float64", "\"NaN\"", "column-type", "`\"NaN\"` is not a number"),
        ("Float64", "\"inf\"", "column-type", "`\"inf\"` is not a number"),
        ("Float64", "true", "column-type", "`true` is not a number or text"),
        ("BFloat16", "3.4e38", "column-range", "`3.4e38` is out of range for BFloat16"),
        ("Bool", "2", "column-type", "`2` is not true, false, 1 or 0"),
        ("String", "\"\\ud800\"", "column-type", "`\"\\ud800\"` is not text: half a surrogate pair"),
        ("FixedString(2)", "\"abc\"", "column-range", "`\"abc\"` has 3 bytes, more than 2"),
        ("Decimal(4, 2)", "100", "column-range", "`100` has more than 2 digits before the point"),
        ("Decimal(4, 2)", "0.001", "column-range", "`0.001` has more than 2 digits after the point"),
        ("UUID", "\"x\"", "column-type", "`\"x\"` is not a UUID"),
        (
            "UUID",
            "\"0011223344556677-8899-aabb-ccddeeff\"",
            "column-type",
            "`\"0011223344556677-8899-aabb-ccddeeff\"` is not a UUID",
        ),
        ("IPv4", "\"1.2.3\"", "column-type", "`\"1.2.3\"` is not an IPv4 address"),
        ("Enum8('a' = 1)", "\"b\"", "column-range", "`\"b\"` is none of the enum's values"),
        ("Enum8('a' = 1)", "2", "column-range", "`2` is none of the enum's values"),
        ("Array(UInt8)", "1", "column-type", "`1` is not an array"),
        ("Array(UInt8)", "[1,300]", "column-range", "`300` is out of range, 0 to 255"),
        ("Tuple(UInt8, UInt8)", "[1]", "column-type", "`[1]` is not an array of 2"),
        ("Tuple(UInt8, UInt8)", "[1,2,3]", "column-type", "`[1,2,3]` is not an array of 2"),
        ("Tuple(UInt8, UInt8)", "{}", "column-type", "`{}` is not an array"),
        ("Tuple(a UInt8)", "{\"b\":1}", "unknown-field", "the tuple has no element `b`"),
        ("Map(UInt8, UInt8)", "{\"x\":1}", "column-type", "`\"x\"` is not a whole number"),
        ("JSON", "[1]", "column-type", "`[1]` is not an object"),
        (
            "DateTime('Europe/Berlin')",
            "\"2024-05-01 10:00:00\"",
            "column-type",
            "`\"2024-05-01 10:00:00\"` is not clear: the column's time zone is not UTC, so write an offset (`Z`, `+02:00`) or a Unix number",
        ),
        (
            "Date",
            "\"soon\"",
            "column-type",
            "`\"soon\"` is not a date or time: write `2024-05-01T10:00:00Z` or a Unix number",
        ),
    ];
    for (ty, json, code, what) in table {
        assert_eq!(bytes_of(ty, json), Err(Misfit { code, what: what.to_owned() }), "{json} as {ty}");
    }
    let long = bytes_of("UInt8", &format!("\"{}\"", "x".repeat(500))).unwrap_err();
    assert!(long.what.len() < 120, "{}", long.what);
}

#[test]
fn arrays_of_more_than_127_elements_are_counted() {
    let json = format!("[{}1]", "1,".repeat(299));
    let bytes = bytes_of("Array(UInt8)", &json).unwrap();
    assert_eq!((&bytes[..2], bytes.len()), (&[0xac, 2][..], 302));
}

#[test]
fn surplus_members_of_a_tuple_are_dropped_on_demand() {
    let mut out = Vec::new();
    let ty = Type::parse("Tuple(a UInt8)").unwrap();
    assert_eq!(encode(&ty, "{\"b\":1,\"a\":2}", Surplus::Drop, &mut out), Ok(()));
    assert_eq!(out, [2]);
}
