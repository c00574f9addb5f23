// kafkajs: the scenario that every client runs against a broker.
//
// Usage: node scenario.js BOOTSTRAP. Prints one `ok NAME` line a step; the first failure ends it with exit code 1.
'use strict'

const assert = require('node:assert')
const crypto = require('node:crypto')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const lz4 = require('lz4-napi')
const snappy = require('snappyjs')
const zstd = require('@bokuweb/zstd-wasm')

const run = crypto.randomBytes(4).toString('hex')
const topic = `kafkajs-${run}`
const groupId = `kafkajs-group-${run}`
const partitions = 4
const recordsPerCodec = 200

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

const kafka = new Kafka({ clientId: 'scenario', brokers: [process.argv[2]], logLevel: logLevel.NOTHING })
const ok = name => console.log(`ok ${name}`)

async function waitUntil(condition, what, seconds = 60) {
  const deadline = Date.now() + seconds * 1000
  while (!(await condition())) {
    assert(Date.now() < deadline, `waited ${seconds} s for ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

async function adminCreates(admin) {
  await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1 }], waitForLeaders: true })
  await admin.createPartitions({ topicPartitions: [{ topic, count: partitions }] })
  await waitUntil(async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0].partitions.length === partitions
  }, 'the new partitions')
  const configs = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: topic }] })
  assert(configs.resources[0].configEntries.some(entry => entry.configName === 'retention.ms'))
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: 2, name: topic, configEntries: [{ name: 'retention.ms', value: '86400000' }] }],
  })
  ok('admin: create topic, add partitions, describe and alter configs')
}

async function produceWithEveryCodec() {
  const sent = new Map()
  const producer = kafka.producer({ allowAutoTopicCreation: false })
  await producer.connect()
  for (const codec of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']) {
    for (let partition = 0; partition < partitions; partition++) {
      const messages = []
      for (let i = 0; i < recordsPerCodec / partitions; i++) {
        messages.push({ partition, key: `key-${i}`, value: `${codec}-${partition}-${i}-${'x'.repeat(100)}`, headers: { codec } })
      }
      const [placed] = await producer.send({ topic, compression: CompressionTypes[codec], acks: -1, messages })
      messages.forEach((m, i) => sent.set(`${partition}:${BigInt(placed.baseOffset) + BigInt(i)}`, m.value))
    }
  }
  await producer.disconnect()
  assert.equal(sent.size, recordsPerCodec * 5)
  ok('produce: none, gzip, snappy, lz4, zstd')
  return sent
}

async function consumeInAGroupWithARebalance(sent) {
  const seen = new Map()
  const start = async assigned => {
    const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 500, rebalanceTimeout: 10000 })
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      assigned.partitions = payload.memberAssignment[topic] || []
    })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      eachMessage: async ({ partition, message }) => seen.set(`${partition}:${message.offset}`, message.value.toString()),
    })
    return consumer
  }
  const [one, two] = [{ partitions: [] }, { partitions: [] }]
  const first = await start(one)
  await waitUntil(() => one.partitions.length === partitions, 'the first consumer to own every partition')
  const second = await start(two)
  await waitUntil(() => one.partitions.length === 2 && two.partitions.length === 2, 'the group to share its partitions')
  await waitUntil(() => seen.size === sent.size, 'every record to be read')
  assert.deepEqual([...seen].sort(), [...sent].sort())
  await first.disconnect()
  await second.disconnect()
  ok('group: two consumers, one rebalance, every record read as sent')
}

async function seekByTime(admin) {
  const producer = kafka.producer()
  await producer.connect()
  const middle = Date.now() + 60000
  const messages = Array.from({ length: 10 }, (_, i) => ({ partition: 0, value: 'timed', timestamp: String(middle + i * 1000) }))
  const [placed] = await producer.send({ topic, messages })
  await producer.disconnect()
  const found = await admin.fetchTopicOffsetsByTimestamp(topic, middle + 4500)
  assert.equal(BigInt(found.find(p => p.partition === 0).offset), BigInt(placed.baseOffset) + 5n)
  ok('seek by time')
}

async function commitAndResume(admin) {
  await waitUntil(async () => (await admin.describeGroups([groupId])).groups[0].state === 'Empty', 'the group to be empty')
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 1, offset: '7' }] })
  const consumer = kafka.consumer({ groupId })
  let resumed
  await consumer.connect()
  await consumer.subscribe({ topic })
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      if (partition === 1 && resumed === undefined) resumed = message.offset
    },
  })
  await waitUntil(() => resumed !== undefined, 'a record after the commit')
  assert.equal(resumed, '7')
  await consumer.disconnect()
  ok('commit and resume')
}

async function adminLooksAround(admin) {
  const { groups } = await admin.listGroups()
  assert(groups.some(group => group.groupId === groupId))
  await waitUntil(async () => (await admin.describeGroups([groupId])).groups[0].state === 'Empty', 'the group to be empty')
  await admin.deleteGroups([groupId])
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 2, offset: '3' }] })
  const offsets = await admin.fetchTopicOffsets(topic)
  assert.equal(offsets.find(p => p.partition === 2).low, '3')
  await admin.deleteTopics({ topics: [topic] })
  await waitUntil(async () => !(await admin.listTopics()).includes(topic), 'the topic to be gone')
  ok('admin: list and delete groups, delete records, delete topic')
}

async function main() {
  await zstd.init()
  const admin = kafka.admin()
  await admin.connect()
  await adminCreates(admin)
  const sent = await produceWithEveryCodec()
  await consumeInAGroupWithARebalance(sent)
  await seekByTime(admin)
  await commitAndResume(admin)
  await adminLooksAround(admin)
  await admin.disconnect()
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
