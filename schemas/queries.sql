-- Questions to iot.telemetry. Each one stands alone.

-- Messages per device, with the span of time they cover.
SELECT
    device_id,
    count() AS messages,
    toDateTime(min(ts)) AS first_seen,
    toDateTime(max(ts)) AS last_seen
FROM iot.telemetry
GROUP BY device_id
ORDER BY messages DESC, device_id;

-- Where each device was last: argMax takes the value from the row with the greatest ts. Latitude and longitude
-- come as one tuple, so that both are of the same row even when two rows share a second.
SELECT
    device_id,
    toDateTime(max(ts)) AS at,
    argMax((lat, lon), ts) AS place,
    tupleElement(place, 1) AS latitude,
    tupleElement(place, 2) AS longitude
FROM iot.telemetry
GROUP BY device_id
ORDER BY device_id;

-- Battery by the hour, and how it changed since the hour with messages before (0 for the first).
SELECT
    device_id,
    toStartOfHour(toDateTime(ts)) AS hour,
    round(avg(battery), 1) AS battery_avg,
    min(battery) AS battery_min,
    lagInFrame(battery_avg, 1, battery_avg) OVER (PARTITION BY device_id ORDER BY hour) AS hour_before,
    round(battery_avg - hour_before, 1) AS change
FROM iot.telemetry
GROUP BY device_id, hour
ORDER BY device_id, hour;

-- Devices that have said nothing for five minutes.
SELECT
    device_id,
    toDateTime(max(ts)) AS last_seen,
    dateDiff('second', last_seen, now()) AS silent_s
FROM iot.telemetry
GROUP BY device_id
HAVING silent_s > 300
ORDER BY silent_s DESC;

-- How far behind the device's own clock messages arrive (seconds, by minute). Devices may have wrong clocks.
SELECT
    toStartOfMinute(toDateTime(received_at)) AS minute,
    count() AS messages,
    quantiles(0.5, 0.99)(toInt64(received_at) - toInt64(ts)) AS delay_p50_p99
FROM iot.telemetry
GROUP BY minute
ORDER BY minute DESC
LIMIT 60;

-- The strongest shake of each device. ARRAY JOIN turns the nested readings into rows.
SELECT
    device_id,
    round(max(sqrt(pow(reading.x, 2) + pow(reading.y, 2) + pow(reading.z, 2))), 3) AS strongest
FROM iot.telemetry
ARRAY JOIN accel AS reading
GROUP BY device_id
ORDER BY strongest DESC;

-- Messages stored more than once: none, if all were delivered exactly once and no device repeats itself.
SELECT device_id, ts, lat, lon, count() AS copies
FROM iot.telemetry
GROUP BY device_id, ts, lat, lon, battery, accel.x, accel.y, accel.z, topic
HAVING copies > 1
ORDER BY copies DESC
LIMIT 20;
