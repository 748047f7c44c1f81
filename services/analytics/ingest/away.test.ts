import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { KafkaProducer } from '@somagent/kit';
import { messageOf, usageEvent } from '../testing/events.ts';
import { ingestEnvironment, ingestProgram } from '../testing/ingestion.ts';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { database } from '../warehouse/warehouse.ts';

let kafka: TestEventKafka;
let store: TestWarehouse;
before(async () => {
  [kafka, store] = await Promise.all([startEventKafka(), startWarehouse({ fixedPort: true })]);
});
after(() => Promise.all([kafka?.stop(), store?.stop()]));

async function ingest() {
  const env = {
    ...(await ingestEnvironment(kafka, store)),
    INGEST_BATCH: '300',
    INGEST_PACE_MS: '1',
  };
  return spawn(process.execPath, [ingestProgram], { env, stdio: 'ignore' });
}

const found = async () => {
  const [row] = await store.warehouse.rows<{ rows: number; ids: number; prompt: number }>(
    `select count() as rows, uniqExact(event_id) as ids, sum(prompt_tokens) as prompt from ${database}.usage`,
  );
  return row;
};

async function until(rows: number): Promise<void> {
  for (const deadline = Date.now() + 120_000; ((await found())?.rows ?? 0) < rows; await sleep(50))
    assert.ok(Date.now() < deadline, `${(await found())?.rows} of ${rows} rows after 120 s`);
}

test('ClickHouse is killed and comes back twice while events flow: nothing is lost, nothing is there twice', async () => {
  const events = Array.from({ length: 4000 }, (_, place) => usageEvent(place));
  const producer = new KafkaProducer(await kafka.variables('orchestrator'), { clientId: 'orchestrator' });
  const child = await ingest();
  try {
    for (let outage = 0; outage < 2; outage += 1) {
      const sent = producer.send(events.slice(2000 * outage, 2000 * outage + 1000).map(messageOf));
      await until(2000 * outage + 1);
      await store.server.kill();
      await sent;
      await producer.send(events.slice(2000 * outage + 1000, 2000 * (outage + 1)).map(messageOf));
      await assert.rejects(found(), 'it is away');
      await store.server.resume();
      await until(2000 * (outage + 1));
    }
    const prompt = events.reduce((sum, { value }) => sum + (value.data as { promptTokens: number }).promptTokens, 0);
    assert.deepEqual(await found(), { rows: 4000, ids: 4000, prompt });
    assert.equal(child.exitCode, null, 'the process lived through it');
  } finally {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
    await producer.close();
  }
});
