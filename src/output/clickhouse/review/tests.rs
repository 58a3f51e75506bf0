use super::{
    super::{encode::tests::TAKEN, table::ListedColumn},
    *,
};

const STRICT: Rules = Rules { surplus: Surplus::Reject, wrap_scalars: true };

fn table(columns: &str) -> Table {
    let listed = columns.split("; ").map(|column| {
        let (name, ty) = column.split_once(' ').unwrap();
        let (type_text, default) = ty.split_once(" DEFAULT").map_or((ty, ""), |(ty, _)| (ty, "DEFAULT"));
        ListedColumn { name: name.into(), type_text: type_text.into(), default_kind: default.into() }
    });
    Table::new(listed.collect(), "UTC", true).unwrap()
}

fn map(known: &[(&str, Shape)]) -> Shape {
    let field = |(name, shape): &(&str, Shape)| Field {
        name: (*name).into(),
        shape: shape.clone(),
        certain: true,
        place: Place::default(),
    };
    Shape::one(Kind::Map(Fields { known: known.iter().map(field).collect(), ..Fields::default() }))
}

fn review(columns: &str, rules: Rules, payload: &Shape) -> Vec<String> {
    let name = TableName { database: "d".into(), table: "t".into() };
    let faults = Review::of(Arc::new(table(columns)), rules, &name, true).payload(payload);
    faults.into_iter().map(|f| format!("{:?} {}: {} ({})", f.severity, f.code, f.title, f.label)).collect()
}

#[track_caller]
fn check(columns: &str, payload: &[(&str, Shape)], expected: &[&str]) {
    assert_eq!(review(columns, STRICT, &map(payload)), expected, "{columns}");
}

fn kind_of(json: &str) -> Kind {
    match json.as_bytes()[0] {
        b'"' => Kind::Text,
        b'[' => Kind::List(Box::new(Shape::Any)),
        b'{' => Kind::Map(Fields { open: true, ..Fields::default() }),
        b't' | b'f' => Kind::Bool,
        b'n' => Kind::Exactly("null".into()),
        _ if json.contains(['.', 'e']) => Kind::Float,
        _ => Kind::Int,
    }
}

/// The samples cover every way in which a type takes a kind of value: otherwise lint would give a false alarm.
#[test]
fn what_the_encoder_takes_is_never_called_unfit() {
    for (ty, json, _) in TAKEN {
        let kind = kind_of(json);
        let list = Kind::List(Box::new(Shape::one(kind.clone())));
        for (ty, json, kind) in [
            ((*ty).to_owned(), (*json).to_owned(), kind.clone()),
            (format!("Nullable({ty})"), (*json).to_owned(), kind),
            (format!("Array({ty})"), format!("[{json}]"), list),
        ] {
            let columns = format!("c {ty}");
            if table(&columns).columns[0].ty.unsupported().is_some() {
                continue;
            }
            for shape in [Shape::exactly(json.as_str()), Shape::one(kind.clone())] {
                check(&columns, &[("c", shape)], &[]);
            }
            if matches!(kind, Kind::Int | Kind::Float) {
                check(&columns, &[("c", Shape::one(Kind::Number))], &[]);
            }
        }
    }
}

#[test]
fn what_never_fits_is_told_with_the_encoder_s_reason() {
    let one = Shape::one;
    for (ty, shape, expected) in [
        (
            "UInt8",
            Shape::exactly("300"),
            "`c` is `300`, which column `c` (UInt8) never takes (`300` is out of range, 0 to 255)",
        ),
        (
            "UInt8",
            Shape::null(),
            "`c` is `null`, which column `c` (UInt8) never takes (`null` is not allowed: the column is not Nullable)",
        ),
        (
            "UInt32",
            one(Kind::Like("\"2024-05-01T10:00:00.500Z\"")),
            "`c` is a text like `\"2024-05-01T10:00:00.500Z\"`, which column `c` (UInt32) never takes (every message with it is refused)",
        ),
        (
            "UUID",
            one(Kind::Int),
            "`c` is a whole number, which column `c` (UUID) never takes (every message with it is refused)",
        ),
        (
            "Bool",
            Shape::OneOf(vec![Kind::Float, Kind::List(Box::new(Shape::Any))]),
            "`c` is a number with a fraction or a list, which column `c` (Bool) never takes (every message with it is refused)",
        ),
        (
            "Array(UInt8)",
            one(Kind::Text),
            "`c` is a text, which column `c` (Array(UInt8)) never takes (every message with it is refused)",
        ),
        (
            "Enum8('a' = 1)",
            Shape::exactly("\"b\""),
            "`c` is `\"b\"`, which column `c` (Enum8('a' = 1)) never takes (`\"b\"` is none of the enum's values)",
        ),
    ] {
        check(&format!("c {ty}"), &[("c", shape)], &[&format!("Error unfit-value: {expected}")]);
    }
    let items = one(Kind::List(Box::new(Shape::exactly("\"x\""))));
    check(
        "c Array(UInt8)",
        &[("c", items)],
        &[
            "Warning unfit-value: `c[]` is `\"x\"`, which column `c` (Array(UInt8)) never takes (`\"x\"` is not a whole number)",
        ],
    );
    let default = one(Kind::Number).or(Shape::exactly("\"none\""));
    check(
        "c UInt8",
        &[("c", default)],
        &[
            "Warning unfit-value: `c` may be `\"none\"`, which column `c` (UInt8) never takes (`\"none\"` is not a whole number)",
        ],
    );
}

#[test]
fn fields_without_a_column_and_columns_without_a_field() {
    let any = Shape::Any;
    check(
        "battery UInt8; name String; at DateTime DEFAULT; note Nullable(String)",
        &[("batery", any.clone()), ("name", any.clone())],
        &["Error unknown-column: table `d.t` has no column `batery` (did you mean `battery`?)"],
    );
    check(
        "a UInt8; b UInt8; n.x Array(UInt8); n.y Array(UInt8)",
        &[("a", any.clone()), ("zzzzzz", any.clone())],
        &[
            "Error unknown-column: table `d.t` has no column `zzzzzz` (no such column)",
            "Warning unfilled-column: nothing fills columns `b`, `n` of table `d.t` (without `b`)",
        ],
    );
    let lenient = Rules { surplus: Surplus::Drop, ..STRICT };
    let fields = map(&[("batery", any.clone()), ("zzzzzz", any.clone())]);
    assert_eq!(
        review("battery UInt8", lenient, &fields),
        ["Warning unknown-column: table `d.t` has no column `batery` (did you mean `battery`?)"]
    );
    // Members of a Nested, in every form.
    let nested = "n.x Array(UInt8); n.y Array(UInt8)";
    check(nested, &[("n", map(&[("x", Shape::exactly("1"))]))], &[]);
    check(nested, &[("n.x", Shape::exactly("[1]"))], &[]);
    check(nested, &[("n", any.clone())], &[]);
    check(
        nested,
        &[("n", map(&[("x", Shape::exactly("\"a\"")), ("yyyy", any.clone())]))],
        &[
            "Error unfit-value: `n.x` is `\"a\"`, which column `n.x` (Array(UInt8)) never takes (`\"a\"` is not a whole number)",
            "Error unknown-column: table `d.t` has no place for `n.yyyy` (no such column)",
        ],
    );
    let list = Shape::one(Kind::List(Box::new(map(&[("z", any)]))));
    check(nested, &[("n", list)], &["Warning unknown-column: table `d.t` has no place for `n[].z` (no such column)"]);
}

#[test]
fn what_is_not_known_is_not_spoken_of() {
    let columns = "a UInt8; b Tuple(x UInt8, y UInt8)";
    assert_eq!(review(columns, STRICT, &Shape::Any), <[String; 0]>::default());
    assert_eq!(review(columns, STRICT, &Shape::NEVER), <[String; 0]>::default());
    let pair = Shape::one(Kind::List(Box::new(Shape::one(Kind::Int))));
    check(columns, &[("a", Shape::Any), ("b", pair)], &[]);
    let Shape::OneOf(mut kinds) = map(&[("b", Shape::Any)]) else { unreachable!() };
    let Some(Kind::Map(fields)) = kinds.first_mut() else { unreachable!() };
    fields.open = true;
    assert_eq!(review(columns, STRICT, &Shape::OneOf(kinds)), <[String; 0]>::default());
    let text = review(columns, STRICT, &Shape::one(Kind::Text));
    assert_eq!(text, ["Error unfit-value: the payload is a text, and a row of `d.t` is made of a map (not a map)"]);
}
