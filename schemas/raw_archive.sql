-- The table that `archive: clickhouse` fills: every message of a pipeline as it was received. Several pipelines may share
-- it. Safe to run again: it changes nothing that exists.

CREATE DATABASE IF NOT EXISTS iot;

CREATE TABLE IF NOT EXISTS iot.raw_archive
(
    pipeline    LowCardinality(String),                              -- name of the pipeline
    input       LowCardinality(String),                              -- kind of input: mqtt, kafka, …
    topic       String CODEC(ZSTD(1)),                               -- empty where the input has none
    key         Nullable(String) CODEC(ZSTD(1)),                     -- Kafka key, any bytes
    partition   Nullable(Int32),                                     -- place in Kafka
    offset      Nullable(Int64) CODEC(Delta(8), ZSTD(1)),            -- place in Kafka; alone: line of a file
    timestamp   Nullable(DateTime64(3, 'UTC')) CODEC(Delta(8), ZSTD(1)),  -- when its sender or broker says it was made
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),       -- when streamer read it
    headers     Array(Tuple(name String, value String)) CODEC(ZSTD(1)),
    qos         UInt8,                                               -- MQTT
    retain      Bool,                                                -- MQTT
    payload     String CODEC(ZSTD(3))                                -- the bytes, whatever they are
)
ENGINE = MergeTree
-- A day is what is asked for, deleted and moved as a whole.
PARTITION BY toDate(received_at)
-- Audits ask for one topic over a span of time, and messages of one topic compress well side by side.
ORDER BY (pipeline, topic, received_at)
-- To keep days for so long only, put this in front of SETTINGS:
--   TTL toDateTime(received_at) + INTERVAL 90 DAY DELETE
-- Days are dropped as a whole then, not row by row.
SETTINGS ttl_only_drop_parts = 1;
