/** The gateway's OpenAI API with everything real behind it, in a process of its own; its parent measures. */
import { readFileSync } from 'node:fs';
import { OpenAiWorld } from '@somagent/gateway/testing/openai-world.ts';
import { sql } from 'kysely';
import { type Steps, Stopwatch } from './steps.ts';

/** What the parent gets at the start. */
export interface Started {
  readonly gateway: { readonly url: string; readonly caFile: string; readonly token: string };
  readonly model: { readonly url: string; readonly caFile: string; readonly token: string };
}

/** What the parent asks: processor time of this process so far, or what was told or measured since the last question. */
export type Question = 'cpu' | 'told' | 'steps';

/** Milliseconds of one request, as its usage event tells them. */
export interface Told {
  readonly platform: number;
  readonly model: number;
}

const stopwatch = new Stopwatch();
const world = await OpenAiWorld.start(stopwatch.watch);
stopwatch.follow(world.server.port, world.front.url);
await world.putBudget({ tokens: 1_000_000_000, costMicros: 1_000_000_000 });
await world.putBudget({ scope: 'persona', id: '*', tokens: 1_000_000_000, period: 'day' });

process.on('message', async (question: Question) => {
  if (question === 'cpu') {
    const { user, system } = process.cpuUsage();
    process.send?.(user + system);
    return;
  }
  if (question === 'steps') {
    process.send?.(stopwatch.take() satisfies readonly Steps[]);
    return;
  }
  const { rows } = await sql<Told>`
    with gone as (delete from outbox where topic = 'usage.tokens' returning value)
    select (value #>> '{data,platform}')::float8 as platform, (value #>> '{data,model}')::float8 as model from gone`.execute(
    world.owner.untenanted,
  );
  process.send?.(rows);
});
process.on('disconnect', async () => {
  await world.stop();
  process.exit(0);
});

const started: Started = {
  gateway: { url: world.url, caFile: world.service.caFile, token: await world.token('agent') },
  model: {
    url: world.front.url,
    caFile: world.llama.caFile,
    token: readFileSync(world.llama.credentialFile, 'utf8').trim(),
  },
};
process.send?.(started);
