-- The table that pipelines/kafka-to-clickhouse.yaml fills. Safe to run again: it changes nothing that exists.

CREATE DATABASE IF NOT EXISTS iot;

CREATE TABLE IF NOT EXISTS iot.telemetry
(
    device_id   String,
    ts          UInt32,                 -- device time, seconds since 1970
    lat         Float64,
    lon         Float64,
    battery     UInt8,                  -- percent
    -- Nested is three arrays of equal length: accel.x, accel.y, accel.z. One reading is an array of one.
    accel       Nested(x Float32, y Float32, z Float32),
    topic       String,                 -- the MQTT topic it came in on
    received_at UInt32                  -- when the bridge received it, seconds since 1970
)
ENGINE = MergeTree
-- Most questions are about one device over a span of time, and rows of one device compress well side by side.
ORDER BY (device_id, ts)
-- Exactly-once needs this. Every insert carries a token; after a crash it is sent again with the same token, and
-- ClickHouse drops it if it had arrived after all. It remembers the tokens of this many inserts. A plain MergeTree
-- remembers none by default, and then drops nothing and says nothing: the rows would be there twice.
SETTINGS non_replicated_deduplication_window = 10000;
