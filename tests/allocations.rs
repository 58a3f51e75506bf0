//! What costs nothing for a message: steps allocate for a batch, never for each message in it. A batch of 1,010 messages
//! is held against one of 10: whatever grows with messages would show a hundredfold.
use streamer::{
    message::{Batch, SourceBuilder},
    spec::Section,
    step::{STEPS, StepReport},
};

const FEW: u32 = 10;
const MANY: u32 = 1010;
/// Buffers of a batch grow by doubling: some ten times more for the large one, each of a few buffers.
const GROWTH: u64 = 60;

fn batch(messages: u32) -> Batch {
    let mut source = SourceBuilder::new("test");
    for n in 0..messages {
        let payload = format!(
            "{{\"device_id\":\"phone-{n}\",\"ts\":1767225600.{n},\"note\":\"a \\\"quoted\\\" °C\",\"battery\":{},\
             \"accel\":{{\"x\":0.5,\"y\":{n}}},\"list\":[1,2,{n}]}}",
            n % 101
        );
        source.push(payload.as_bytes(), |_, _| Ok(())).unwrap();
    }
    Batch::new(source.finish())
}

/// How often a step allocates for a batch, after it has warmed up; and how many messages leave it.
fn allocations(step: &str, settings: &str, messages: u32) -> (u64, usize) {
    let spec = STEPS.iter().find(|spec| spec.name == step).unwrap();
    let mut step = (spec.build)(&Section::from_yaml(settings)).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert!(step.notes().is_empty(), "it is compiled: {:?}", step.notes());
    let mut left = 0;
    let mut count = 0;
    for _ in 0..2 {
        let batch = batch(messages);
        let mut report = StepReport::default();
        let measured = allocation_counter::measure(|| {
            let batch = step.apply(batch, &mut report);
            left = batch.len();
        });
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(report.interpreted, streamer::script::Interpreted::default());
        count = measured.count_total;
    }
    (count, left)
}

fn check(step: &str, settings: &str, share_left: u32) {
    let (few, _) = allocations(step, settings, FEW);
    let (many, left) = allocations(step, settings, MANY);
    assert_eq!(left as u32, MANY / share_left, "{step}");
    assert!(many <= few + GROWTH, "{step}: {few} allocations for {FEW} messages, {many} for {MANY}");
}

#[test]
fn steps_allocate_nothing_for_a_message() {
    check(
        "map",
        "|\n  let a = payload?.accel;\n  if payload.battery > 200 { drop() }\n  #{ id: payload.device_id ?? \"x\", t: num(payload.ts, 0) * 1000.0, \
         n: `${payload.note}: ${payload.battery}`, all: payload, s: a.x + a.y, l: payload.list.map(|i| i * 2), \
         h: xxh3(payload.device_id), r: round(payload.ts, 1), now: now() }",
        1,
    );
    check("map", "|\n  payload.extra = payload.battery / 2.0;\n  payload", 1);
    check(
        "filter",
        "payload.battery >= 0 && payload.note.contains(\"quoted\") && payload.device_id.starts_with(\"phone\")",
        1,
    );
    check("jsonpath", "{ id: $.device_id, x: $.accel.x, none: { path: $.none, default: 0 } }", 1);
    check("set", "{ key: payload.device_id, headers: { battery: payload.battery } }", 1);
}

/// The measure itself: an interpreted script allocates for each message.
#[test]
fn what_is_interpreted_is_seen() {
    let spec = STEPS.iter().find(|spec| spec.name == "map").unwrap();
    let script = "|\n  let n = 0;\n  while n < 2 { n += 1 }\n  #{ n: n, id: payload.device_id }";
    let mut step = (spec.build)(&Section::from_yaml(script)).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(step.notes().len(), 1);
    let batch = batch(MANY);
    let mut report = StepReport::default();
    let measured = allocation_counter::measure(|| drop(step.apply(batch, &mut report)));
    assert!(measured.count_total > u64::from(MANY), "{}", measured.count_total);
}
