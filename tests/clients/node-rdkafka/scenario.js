// node-rdkafka (librdkafka): the scenario that every client runs against a broker.
//
// Usage: node scenario.js BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
'use strict'

const assert = require('node:assert')
const { promisify } = require('node:util')
const Kafka = require('node-rdkafka')
const { version } = require('node-rdkafka/package.json')
const { run, partitions, recordsPerCodec, replicationFactor, retention, largeLimit, large, ...common } = require('../node/common')
const { ok, skip, count, waitUntil, record, text, same, fail } = common

const topic = `node-rdkafka-${run}`
const groupId = `node-rdkafka-group-${run}`
const bootstrap = { 'bootstrap.servers': process.argv[2] }
const counted = { errors: 0, retries: {} }
// node-rdkafka builds librdkafka with the codecs whose headers it finds.
const codecs = ['none', 'gzip', 'snappy', 'lz4', 'zstd'].filter(codec => codec === 'none' || Kafka.features.includes(codec))
// Calls of librdkafka wait this long at most.
const WAIT_MS = 30000

// librdkafka's own counters: statistics ten times a second, and its errors.
function watched(client) {
  client.on('event.error', error => {
    counted.errors += 1
    console.log(`  error: ${error.message}`)
  })
  client.on('event.stats', ({ message }) => {
    const report = JSON.parse(message)
    const failures = broker => broker.txretries + broker.txerrs + broker.rxerrs + broker.req_timeouts
    counted.retries[report.name] = Object.values(report.brokers).reduce((sum, broker) => sum + failures(broker), 0)
  })
  return client
}

async function connected(client) {
  await promisify(client.connect.bind(client))({ timeout: WAIT_MS })
  return client
}
// A consumer that leaves no longer knows its protocol: what it makes of a last rebalance is of no interest.
function disconnected(client) {
  client.removeListener('rebalance.error', fail)
  return new Promise(resolve => client.disconnect(resolve))
}
const settings = { ...bootstrap, 'statistics.interval.ms': 100 }

async function adminCreates(admin, anyone) {
  const call = (name, ...parameters) => promisify(admin[name].bind(admin))(...parameters, WAIT_MS)
  await call('createTopic', { topic, num_partitions: 2, replication_factor: replicationFactor, config: { 'retention.ms': retention, 'max.message.bytes': String(largeLimit) } })
  await call('createPartitions', topic, partitions)
  await waitUntil(async () => {
    const metadata = await promisify(anyone.getMetadata.bind(anyone))({ topic, timeout: WAIT_MS })
    return metadata.topics[0].partitions.length === partitions
  }, 'the new partitions')
  ok('create')
  skip('configs', 'node-rdkafka has no calls for settings after creation')
}

// Produces messages and gives the offset of each.
async function produce(messages, more = {}) {
  const producer = watched(new Kafka.Producer({ ...settings, dr_cb: true, 'enable.idempotence': true, 'linger.ms': 5, ...more }))
  await connected(producer)
  producer.setPollInterval(20)
  const offsets = new Map()
  producer.on('delivery-report', (error, report) => {
    if (error) fail(error)
    offsets.set(report.opaque, report.offset)
  })
  messages.forEach((m, number) => {
    const headers = Object.entries(m.headers || {}).map(([name, value]) => ({ [name]: value }))
    producer.produce(topic, m.partition, Buffer.from(m.value), m.key, m.timestamp, number, headers)
  })
  await waitUntil(() => offsets.size === messages.length, 'every delivery report')
  await disconnected(producer)
  return messages.map((_, number) => offsets.get(number))
}

async function produceWithEveryCodec() {
  const sent = new Map()
  for (const codec of codecs) {
    const messages = Array.from({ length: recordsPerCodec }, (_, i) => ({ partition: i % partitions, ...record(codec, i) }))
    const offsets = await produce(messages, { 'compression.codec': codec })
    messages.forEach((m, i) => sent.set(`${m.partition}:${offsets[i]}`, text(m.key, m.value, m.headers)))
  }
  assert.equal(sent.size, recordsPerCodec * codecs.length)
  ok('idempotent')
  return sent
}

// A consumer; what it reads goes to `seen`, with the values of large records to `values`.
async function reader(group, seen, values = new Map(), more = {}) {
  const own = { 'group.id': group, 'enable.auto.commit': false, 'heartbeat.interval.ms': 300, rebalance_cb: true, ...more }
  const consumer = watched(new Kafka.KafkaConsumer({ ...settings, ...own }, { 'auto.offset.reset': 'earliest' }))
  consumer.taken = 0
  consumer.on('rebalance', (change, assignment) => {
    if (change.code === Kafka.CODES.ERRORS.ERR__REVOKE_PARTITIONS) consumer.taken += assignment.length
  })
  consumer.on('data', m => {
    const place = `${m.partition}:${m.offset}`
    const headers = Object.assign({}, ...(m.headers || []))
    seen.set(place, text(m.key, m.value.length > 1000 ? 'large' : m.value, headers))
    values.set(place, m.value)
  })
  consumer.on('rebalance.error', fail)
  return connected(consumer)
}

async function member(...parameters) {
  const consumer = await reader(...parameters)
  consumer.subscribe([topic])
  consumer.setDefaultConsumeTimeout(50)
  consumer.consume()
  return consumer
}

// Two members with a rebalance between them, until all is read; how many partitions were taken from the first.
async function twoMembers(group, strategy, seen, values, records) {
  const more = { 'partition.assignment.strategy': strategy }
  const owned = consumer => consumer.assignments().length
  const first = await member(group, seen, values, more)
  await waitUntil(() => owned(first) === partitions, 'the first consumer to own every partition')
  const second = await member(group, seen, values, more)
  await waitUntil(() => owned(first) === 2 && owned(second) === 2, 'the group to share its partitions')
  await waitUntil(() => seen.size === records, 'every record to be read')
  const { taken } = first
  first.commitSync()
  second.commitSync()
  await disconnected(first)
  await disconnected(second)
  return taken
}

async function groups(sent, largeAt) {
  const [seen, values] = [new Map(), new Map()]
  const all = sent.size + 1
  assert.equal(await twoMembers(groupId, 'range', seen, values, all), partitions, 'an eager rebalance takes all')
  assert(large.equals(values.get(largeAt)), 'the large record differs')
  ok('large')
  seen.delete(largeAt)
  same(sent, seen)
  ok(`codecs ${codecs.join(', ')}${codecs.includes('zstd') ? '' : ': it was built without zstd'}`)
  ok('group')
  const taken = await twoMembers(`${groupId}-cooperative`, 'cooperative-sticky', new Map(), new Map(), all)
  assert.equal(taken, 2, 'a cooperative rebalance takes what moves')
  ok('cooperative')
}

async function seekByTime() {
  const middle = Date.now() + 60000
  const messages = Array.from({ length: 10 }, (_, i) => ({ partition: 0, value: 'timed', timestamp: middle + i * 1000 }))
  const placed = await produce(messages)
  const times = [{ topic, partition: 0, offset: middle + 4500 }]
  const seen = new Map()
  const consumer = await reader(`${groupId}-time`, seen)
  const [found] = await promisify(consumer.offsetsForTimes.bind(consumer))(times, WAIT_MS)
  assert.equal(found.offset, placed[5])
  consumer.assign([{ topic, partition: 0, offset: found.offset }])
  consumer.consume()
  await waitUntil(() => seen.size === 5, 'five records')
  assert.deepEqual([...seen.keys()], placed.slice(5).map(offset => `0:${offset}`))
  await disconnected(consumer)
  ok('time')
}

async function commitAndResume(anyone) {
  const at = { topic, partition: 1, offset: 7, metadata: 'half way' }
  const first = await reader(groupId, new Map())
  first.commitSync([at])
  const [committed] = await promisify(first.committed.bind(first))([{ topic, partition: 1 }], WAIT_MS)
  assert.equal(committed.offset, 7)
  await disconnected(first)
  const ends = await promisify(anyone.queryWatermarkOffsets.bind(anyone))(topic, 1, WAIT_MS)
  assert.deepEqual([ends.lowOffset, ends.highOffset], [0, (recordsPerCodec * codecs.length) / partitions])
  ok('offsets')
  const seen = new Map()
  const second = await member(groupId, seen)
  await waitUntil(() => seen.has('1:7'), 'the record after the commit')
  assert(!seen.has('1:6'), 'the group started over')
  await disconnected(second)
  ok('resume')
}

async function main() {
  console.log(`version ${version.replace(/^v/, '')} (librdkafka ${Kafka.librdkafkaVersion})`)
  const admin = Kafka.AdminClient.create(bootstrap)
  const anyone = await connected(watched(new Kafka.Producer(settings)))
  await adminCreates(admin, anyone)
  const sent = await produceWithEveryCodec()
  const [offset] = await produce([{ partition: 3, value: large }], { 'message.max.bytes': largeLimit })
  await groups(sent, `3:${offset}`)
  await seekByTime()
  await commitAndResume(anyone)
  skip('transactions', 'those of librdkafka, which confluent-kafka and rdkafka go through')
  skip('groups', 'node-rdkafka has no calls for groups')
  await promisify(admin.deleteTopic.bind(admin))(topic, WAIT_MS)
  console.log('ok delete the topic only: node-rdkafka cannot delete records')
  admin.disconnect()
  await disconnected(anyone)
  count('errors', counted.errors)
  count('retries', Object.values(counted.retries).reduce((sum, n) => sum + n, 0))
  process.exit(0)
}

main().catch(fail)
