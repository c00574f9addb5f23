-- Count and sum of the numbers of each key, as they are by now, in a compacted topic: a key whose sum can be divided by 7 is deleted from it,
-- and comes back with its next number. Statements end with a semicolon, which stands nowhere else. upserts.py fills in the words with a
-- dollar sign.
CREATE TABLE numbers (
    who STRING,
    amount BIGINT
) WITH (
    'connector' = 'kafka',
    'topic' = 'numbers',
    'properties.bootstrap.servers' = '$bootstrap',
    'properties.group.id' = 'totals',
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json'
);

-- 15 minutes are Kafka's default maximum, the connector's own default is above it.
CREATE TABLE totals (
    who STRING,
    numbers BIGINT,
    total BIGINT,
    PRIMARY KEY (who) NOT ENFORCED
) WITH (
    'connector' = 'upsert-kafka',
    'topic' = 'totals',
    'properties.bootstrap.servers' = '$bootstrap',
    'properties.transaction.timeout.ms' = '900000',
    'sink.delivery-guarantee' = 'exactly-once',
    'sink.transactional-id-prefix' = 'totals',
    'key.format' = 'raw',
    'value.format' = 'json',
    'value.fields-include' = 'EXCEPT_KEY'
);

INSERT INTO totals
SELECT who, COUNT(*), SUM(amount)
FROM numbers
GROUP BY who
HAVING MOD(SUM(amount), 7) <> 0;
