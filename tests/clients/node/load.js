// kafkajs: a steady load with its own check, one of the five of tests/soak. See ../python/load.py for what it does.
//
// Usage: node load.js BOOTSTRAP TOPIC PARTITIONS RATE SIZE SECONDS. Last line: a JSON object with what was counted.
'use strict'

const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, topic] = process.argv.slice(2, 4)
const [partitions, rate, size, seconds] = process.argv.slice(4, 8).map(Number)
const DRAIN_MS_MAX = 120_000

const counted = { client: 'kafkajs', sent: 0, acknowledged: 0, read: 0, gaps: 0, duplicates: 0, errors: 0, retries: 0 }
const kafka = new Kafka({ clientId: 'load', brokers: [bootstrap], logLevel: logLevel.NOTHING })
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
const padding = '.'.repeat(Math.max(0, size - 20))
let ended = false

async function produce() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  producer.on(producer.events.REQUEST_TIMEOUT, () => (counted.retries += 1))
  await producer.connect()
  const started = Date.now()
  let number = 0
  for (let elapsed = 0; elapsed < seconds; elapsed = (Date.now() - started) / 1000) {
    const messages = []
    for (; number < elapsed * rate; number += 1) {
      const value = String(Math.floor(number / partitions)).padStart(19, '0') + ' ' + padding
      messages.push({ partition: number % partitions, value })
    }
    if (messages.length > 0) {
      try {
        await producer.send({ topic, acks: -1, messages })
        counted.acknowledged += messages.length
      } catch (error) {
        counted.errors += 1
        console.log('error', error.message)
      }
    }
    await pause(20)
  }
  await producer.disconnect()
  counted.sent = number
  ended = true
}

async function consume() {
  const consumer = kafka.consumer({ groupId: topic + '-readers' })
  consumer.on(consumer.events.CRASH, event => {
    counted.errors += 1
    console.log('error', event.payload.error.message)
  })
  consumer.on(consumer.events.REQUEST_TIMEOUT, () => (counted.retries += 1))
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const following = new Array(partitions).fill(0)
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      const number = Number(message.value.subarray(0, 19).toString())
      if (number < following[partition]) {
        counted.duplicates += 1
        return
      }
      counted.gaps += number - following[partition]
      following[partition] = number + 1
      counted.read += 1
    },
  })
  let deadline = Infinity
  while (!(ended && counted.read >= counted.sent) && Date.now() < deadline) {
    if (ended) deadline = Math.min(deadline, Date.now() + DRAIN_MS_MAX)
    await pause(100)
  }
  await consumer.disconnect()
}

Promise.all([produce(), consume()])
  .then(() => {
    console.log(JSON.stringify(counted))
    const whole = counted.acknowledged === counted.sent && counted.read === counted.sent
    process.exit(whole && counted.gaps + counted.duplicates + counted.errors === 0 ? 0 : 1)
  })
  .catch(error => {
    console.log('error', error)
    process.exit(1)
  })
