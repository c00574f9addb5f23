// What the JavaScript scenarios share: the names of a run, what is printed, what is produced.
'use strict'

const assert = require('node:assert')
const crypto = require('node:crypto')

const run = crypto.randomBytes(4).toString('hex')
const partitions = 4
const recordsPerCodec = 200
// What run.py says of the cluster.
const replicationFactor = Number(process.env.TEST_REPLICATION_FACTOR || 1)
const retention = '86400000'
const largeLimit = 4 * 1024 * 1024
// Random bytes: no codec makes the large record a small one.
const large = crypto.randomBytes(3 * 1024 * 1024)

const ok = step => console.log(`ok ${step}`)
const skip = (step, why) => console.log(`skip ${step} ${why}`)
const count = (name, n) => console.log(`count ${name} ${n}`)

async function waitUntil(condition, what, seconds = 60) {
  const deadline = Date.now() + seconds * 1000
  while (!(await condition())) {
    assert(Date.now() < deadline, `waited ${seconds} s for ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

// Record number i of a codec.
const record = (codec, i) => ({ key: `key-${i % 17}`, value: `${codec}-${i}-${'x'.repeat(100)}`, headers: { codec } })
// A record in a form that can be compared.
const text = (key, value, headers) => `${key}|${value}|${Object.entries(headers).map(([name, bytes]) => `${name}=${bytes}`)}`

function same(sent, seen) {
  assert.equal(seen.size, sent.size, `${sent.size} records sent, ${seen.size} read`)
  for (const [place, wanted] of sent) assert.equal(seen.get(place), wanted, `the record at ${place}`)
}

function fail(error) {
  console.error(error)
  process.exit(1)
}

module.exports = { run, partitions, recordsPerCodec, replicationFactor, retention, largeLimit, large, ok, skip, count, waitUntil, record, text, same, fail }
