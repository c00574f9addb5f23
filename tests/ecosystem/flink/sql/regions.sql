-- What totals.sql keeps, read as a changelog and added up by region, into another compacted topic. A key that is deleted, or whose total
-- changes, has to be taken from its region's sum. Statements end with a semicolon, which stands nowhere else. upserts.py fills in the words
-- with a dollar sign.
CREATE TABLE totals (
    who STRING,
    numbers BIGINT,
    total BIGINT,
    PRIMARY KEY (who) NOT ENFORCED
) WITH (
    'connector' = 'upsert-kafka',
    'topic' = 'totals',
    'properties.bootstrap.servers' = '$bootstrap',
    'properties.group.id' = '$output',
    'properties.isolation.level' = 'read_committed',
    'key.format' = 'raw',
    'value.format' = 'json',
    'value.fields-include' = 'EXCEPT_KEY'
);

CREATE TABLE regions (
    region STRING,
    members BIGINT,
    numbers BIGINT,
    total BIGINT,
    PRIMARY KEY (region) NOT ENFORCED
) WITH (
    'connector' = 'upsert-kafka',
    'topic' = '$output',
    'properties.bootstrap.servers' = '$bootstrap',
    'properties.transaction.timeout.ms' = '900000',
    'sink.delivery-guarantee' = 'exactly-once',
    'sink.transactional-id-prefix' = '$output',
    'key.format' = 'raw',
    'value.format' = 'json',
    'value.fields-include' = 'EXCEPT_KEY'
);

INSERT INTO regions
SELECT SUBSTRING(who FROM 1 FOR 6), COUNT(*), SUM(numbers), SUM(total)
FROM totals
GROUP BY SUBSTRING(who FROM 1 FOR 6);
