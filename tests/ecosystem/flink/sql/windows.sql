-- Count and sum of the numbers of each key in windows of event time, from one topic into another, exactly once. The times are those of
-- scenario.py, which fills in the word with a dollar sign. Statements end with a semicolon, which stands nowhere else.
CREATE TABLE numbers (
    who STRING,
    amount BIGINT,
    written TIMESTAMP_LTZ(3) METADATA FROM 'timestamp',
    WATERMARK FOR written AS written - INTERVAL '2' SECOND
) WITH (
    'connector' = 'kafka',
    'topic' = 'numbers',
    'properties.bootstrap.servers' = '$bootstrap',
    'properties.group.id' = 'sql',
    'properties.isolation.level' = 'read_committed',
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json'
);

-- 15 minutes are Kafka's default maximum, the connector's own default is above it.
CREATE TABLE results (
    which STRING,
    total STRING
) WITH (
    'connector' = 'kafka',
    'topic' = 'results',
    'properties.bootstrap.servers' = '$bootstrap',
    'properties.transaction.timeout.ms' = '900000',
    'sink.delivery-guarantee' = 'exactly-once',
    'sink.transactional-id-prefix' = 'sql',
    'key.format' = 'raw',
    'key.fields' = 'which',
    'value.format' = 'raw',
    'value.fields-include' = 'EXCEPT_KEY'
);

INSERT INTO results
SELECT
    CONCAT(who, '@', DATE_FORMAT(window_start, 'yyyy-MM-dd HH:mm:ss')),
    CONCAT(CAST(COUNT(*) AS STRING), ' ', CAST(SUM(amount) AS STRING))
FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(written), INTERVAL '5' SECOND))
GROUP BY who, window_start, window_end;
