// kafkajs: the scenario that every client runs against a broker.
//
// Usage: node kafkajs.js BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
'use strict'

// The partitioner is not what this is about: every record names its partition.
process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'

const assert = require('node:assert')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const { version } = require('kafkajs/package.json')
const lz4 = require('lz4-napi')
const snappy = require('snappyjs')
const zstd = require('@bokuweb/zstd-wasm')
const { run, partitions, recordsPerCodec, replicationFactor, retention, largeLimit, large, ...common } = require('./common')
const { ok, skip, count, waitUntil, record, text, same, fail } = common

const topic = `kafkajs-${run}`
const groupId = `kafkajs-group-${run}`
const codecs = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }
const counted = { errors: 0, warnings: 0, retries: 0 }
// The dialogue of a group, and of a transaction that follows another one at once, which kafkajs logs as errors.
const dialogue = ['The group is rebalancing', 'The group member needs to have a valid member id', 'another concurrent operation on the same transaction']

// kafkajs ships gzip only; the other codecs are plugged in, as its documentation says.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4.compressFrame(encoder.buffer),
  decompress: async buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.Snappy] = () => ({
  compress: async encoder => Buffer.from(snappy.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(snappy.uncompress(buffer)),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const logCreator = () => ({ level, log }) => {
  const line = `${log.message} ${log.error || ''}`
  if (dialogue.some(part => line.includes(part))) return
  counted[level === logLevel.ERROR ? 'errors' : 'warnings'] += 1
  console.log(`  ${log.message} ${log.error || ''} ${log.retryCount ? `retry ${log.retryCount}` : ''}`)
}
const kafka = new Kafka({ clientId: 'scenario', brokers: process.argv[2].split(','), logLevel: logLevel.WARN, logCreator })

// kafkajs tells of every request that it gives up waiting for, and of every crash of a consumer that it restarts.
function watched(client) {
  client.on(client.events.REQUEST_TIMEOUT, () => (counted.retries += 1))
  if (client.events.CRASH) client.on(client.events.CRASH, () => (counted.retries += 1))
  return client
}

async function adminCreates(admin) {
  const configEntries = [{ name: 'retention.ms', value: retention }]
  await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor, configEntries }], waitForLeaders: true })
  await admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] })
  await waitUntil(async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0].partitions.length === partitions
  }, 'the new partitions')
  ok('create')
  const type = ConfigResourceTypes.TOPIC
  // AlterConfigs sets the whole list: what is not named goes back to its default.
  const entries = [...configEntries, { name: 'max.message.bytes', value: String(largeLimit) }]
  await admin.alterConfigs({ validateOnly: false, resources: [{ type, name: topic, configEntries: entries }] })
  await waitUntil(async () => {
    const described = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type, name: topic }] })
    const value = name => described.resources[0].configEntries.find(entry => entry.configName === name).configValue
    return value('retention.ms') === retention && value('max.message.bytes') === String(largeLimit)
  }, 'the new settings')
  ok('configs')
}

async function withProducer(use) {
  const producer = watched(kafka.producer({ allowAutoTopicCreation: false, idempotent: true, maxInFlightRequests: 1 }))
  await producer.connect()
  const result = await use(producer)
  await producer.disconnect()
  return result
}

async function produceWithEveryCodec() {
  const sent = new Map()
  await withProducer(async producer => {
    for (const [codec, name] of Object.entries(codecs)) {
      for (let partition = 0; partition < partitions; partition++) {
        const messages = []
        for (let i = partition; i < recordsPerCodec; i += partitions) messages.push({ partition, ...record(codec, i) })
        const [placed] = await producer.send({ topic, compression: CompressionTypes[name], acks: -1, messages })
        messages.forEach((m, i) => sent.set(`${partition}:${BigInt(placed.baseOffset) + BigInt(i)}`, text(m.key, m.value, m.headers)))
      }
    }
  })
  assert.equal(sent.size, recordsPerCodec * 5)
  ok('idempotent')
  return sent
}

async function largeRecord() {
  const [placed] = await withProducer(producer => producer.send({ topic, messages: [{ partition: 3, value: large }] }))
  return `3:${placed.baseOffset}`
}

// A member of a group; what it reads goes to `seen`, what it owns to `partitions`.
async function join(group, seen, values = new Map()) {
  const member = { partitions: [] }
  member.consumer = watched(
    kafka.consumer({ groupId: group, sessionTimeout: 10000, heartbeatInterval: 300, rebalanceTimeout: 10000, maxWaitTimeInMs: 200 })
  )
  member.consumer.on(member.consumer.events.GROUP_JOIN, ({ payload }) => {
    member.partitions = payload.memberAssignment[topic] || []
  })
  await member.consumer.connect()
  await member.consumer.subscribe({ topic, fromBeginning: true })
  await member.consumer.run({
    eachMessage: async ({ partition, message }) => {
      const place = `${partition}:${message.offset}`
      seen.set(place, text(message.key, message.value.length > 1000 ? 'large' : message.value, message.headers))
      values.set(place, message.value)
    },
  })
  return member
}

async function groupWithARebalance(sent, largeAt) {
  const [seen, values] = [new Map(), new Map()]
  const first = await join(groupId, seen, values)
  await waitUntil(() => first.partitions.length === partitions, 'the first consumer to own every partition')
  const second = await join(groupId, seen, values)
  await waitUntil(() => first.partitions.length === 2 && second.partitions.length === 2, 'the group to share its partitions')
  await waitUntil(() => seen.size === sent.size + 1, 'every record to be read')
  await first.consumer.disconnect()
  await second.consumer.disconnect()
  assert(large.equals(values.get(largeAt)), 'the large record differs')
  ok('large')
  seen.delete(largeAt)
  same(sent, seen)
  ok('codecs')
  ok('group')
  skip('cooperative', 'kafkajs has no cooperative assignor')
}

async function seekByTime(admin) {
  const middle = Date.now() + 60000
  const messages = Array.from({ length: 10 }, (_, i) => ({ partition: 0, value: 'timed', timestamp: String(middle + i * 1000) }))
  const [placed] = await withProducer(producer => producer.send({ topic, messages }))
  const found = await admin.fetchTopicOffsetsByTimestamp(topic, middle + 4500)
  const offset = found.find(p => p.partition === 0).offset
  assert.equal(BigInt(offset), BigInt(placed.baseOffset) + 5n)
  const read = []
  const consumer = watched(kafka.consumer({ groupId: `${groupId}-time`, maxWaitTimeInMs: 200 }))
  await consumer.connect()
  await consumer.subscribe({ topic })
  await consumer.run({ eachMessage: async ({ partition, message }) => partition === 0 && read.push(message.offset) })
  consumer.seek({ topic, partition: 0, offset })
  await waitUntil(() => read.length === 5, 'five records')
  assert.equal(read[0], offset)
  await consumer.disconnect()
  ok('time')
}

async function commitAndResume(admin) {
  await waitUntil(async () => (await admin.describeGroups([groupId])).groups[0].state === 'Empty', 'the group to be empty')
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 1, offset: '7', metadata: 'half way' }] })
  const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
  assert.equal(committed.partitions.find(p => p.partition === 1).offset, '7')
  const ends = (await admin.fetchTopicOffsets(topic)).find(p => p.partition === 1)
  assert.deepEqual([ends.low, ends.high], ['0', String((recordsPerCodec * 5) / partitions)])
  ok('offsets')
  const seen = new Map()
  const member = await join(groupId, seen)
  await waitUntil(() => seen.has('1:7'), 'the record after the commit')
  assert(!seen.has('1:6'), 'the group started over')
  await member.consumer.disconnect()
  ok('resume')
}

async function transactions(admin) {
  const transactional = `kafkajs-transactions-${run}`
  await admin.createTopics({ topics: [{ topic: transactional, numPartitions: 2, replicationFactor }], waitForLeaders: true })
  const values = name => Array.from({ length: 20 }, (_, i) => `${name}-${i}`)
  const producer = watched(kafka.producer({ transactionalId: transactional, idempotent: true, maxInFlightRequests: 1 }))
  await producer.connect()
  const begin = async name => {
    const transaction = await producer.transaction()
    await transaction.send({ topic: transactional, messages: values(name).map((value, i) => ({ partition: i % 2, value })) })
    return transaction
  }
  await (await begin('first')).commit()
  await (await begin('aborted')).abort()
  const last = await begin('last')
  const topics = [{ topic, partitions: [{ partition: 1, offset: '5' }] }]
  await last.sendOffsets({ consumerGroupId: transactional, topics })
  await last.commit()
  await producer.disconnect()
  // The end of a transaction is answered before its markers are written.
  await waitUntil(async () => {
    const [committed] = await admin.fetchOffsets({ groupId: transactional, topics: [topic] })
    return committed.partitions.find(p => p.partition === 1).offset === '5'
  }, 'the committed offset')
  const read = []
  const consumer = watched(kafka.consumer({ groupId: `${transactional}-reader`, maxWaitTimeInMs: 200 }))
  await consumer.connect()
  await consumer.subscribe({ topic: transactional, fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => read.push(String(message.value)) })
  const expected = [...values('first'), ...values('last')]
  await waitUntil(() => read.length >= expected.length, 'the committed records')
  assert.deepEqual(read.sort(), expected.sort())
  await consumer.disconnect()
  await admin.deleteTopics({ topics: [transactional] })
  ok('transactions')
}

async function adminLooksAround(admin) {
  const { groups } = await admin.listGroups()
  assert(groups.some(group => group.groupId === groupId))
  await waitUntil(async () => (await admin.describeGroups([groupId])).groups[0].state === 'Empty', 'the group to be empty')
  await admin.deleteGroups([groupId])
  ok('groups')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 2, offset: '3' }] })
  const offsets = await admin.fetchTopicOffsets(topic)
  assert.equal(offsets.find(p => p.partition === 2).low, '3')
  await admin.deleteTopics({ topics: [topic] })
  await waitUntil(async () => !(await admin.listTopics()).includes(topic), 'the topic to be gone')
  ok('delete')
}

async function main() {
  console.log(`version ${version}`)
  await zstd.init()
  const admin = watched(kafka.admin())
  await admin.connect()
  await adminCreates(admin)
  const sent = await produceWithEveryCodec()
  const largeAt = await largeRecord()
  await groupWithARebalance(sent, largeAt)
  await seekByTime(admin)
  await commitAndResume(admin)
  await transactions(admin)
  await adminLooksAround(admin)
  await admin.disconnect()
  Object.entries(counted).forEach(([name, n]) => count(name, n))
}

main().catch(fail)
