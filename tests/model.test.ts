/**
 * Replicas of the model are killed while sessions stream through the gateway: no turn is lost, none is there twice, and
 * no text is told twice. A turn of which something had been told begins anew, and its stream says so (`turn.restarted`).
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { open, storedTurns } from './bench/scaling.ts';
import { killReplica } from './support/model.ts';
import { call, events, type SentEvent, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const sessions = 6;
const leastSeconds = 20;
/** Until a kill has met a turn that was being told; each replica takes seconds to come back. */
const mostKills = 12;
const pauseMs = 3000;
const prompt = 'What is a session?';

/** What came of the turns. */
interface Counts {
  asked: number;
  answered: number;
  restarted: number;
  readonly lost: string[];
}

const ends: readonly string[] = ['turn.completed', 'turn.cancelled', 'turn.failed'];

/** What a reader has who starts over where the stream says so. */
function textOf(stream: readonly SentEvent[]): string {
  const begin = stream.findLastIndex(({ type }) => type === 'turn.started' || type === 'turn.restarted');
  const told = stream.slice(begin).filter(({ type }) => type === 'turn.token');
  return told.map(({ data }) => data.text ?? '').join('');
}

/** Streams one turn; what the stream did not bring is asked for with the same key. @returns why it is lost, or null */
async function turn(token: string, id: string, counts: Counts): Promise<string | null> {
  const path = `/v1/sessions/${id}/turns`;
  const request = { method: 'POST', token, body: { prompt }, headers: { 'idempotency-key': randomUUID() } };
  const stream = await events(path, request).catch(() => [] as SentEvent[]);
  const whole = ends.includes(stream.at(-1)?.type ?? '');
  const answer = await eventually('the turn', 150, async () => {
    const { status, body } = await call<Turn>(path, request);
    return status === 200 && body.status !== 'running' ? body : undefined;
  });
  if (stream.some(({ type }) => type === 'turn.restarted')) counts.restarted += 1;
  if (answer.status !== 'completed') return `it is ${answer.status}`;
  if (whole && textOf(stream) !== answer.answer)
    return `the stream told ${textOf(stream)}, the answer is ${answer.answer}`;
  return null;
}

describe('replicas of the model killed while sessions stream', () => {
  const counts: Counts = { asked: 0, answered: 0, restarted: 0, lost: [] };
  const killed: string[] = [];
  let stored = 0;

  before(
    async () => {
      const token = await tokenOf('lasting-agent');
      const ids = await Promise.all(Array.from({ length: sessions }, () => open(token)));
      let going = true;
      const load = ids.map(async (id) => {
        while (going) {
          counts.asked += 1;
          const failure = await turn(token, id, counts).catch((error: Error) => error.message);
          if (failure === null) counts.answered += 1;
          else counts.lost.push(`${id} turn ${counts.asked}: ${failure}`);
        }
      });
      const began = performance.now();
      const enough = () => counts.restarted > 0 && performance.now() - began > leastSeconds * 1000;
      try {
        while (!enough() && killed.length < mostKills) {
          await sleep(pauseMs);
          const title = await killReplica('soma-tiny');
          if (title !== undefined) killed.push(title);
        }
      } finally {
        going = false;
      }
      await Promise.all(load);
      stored = await storedTurns(token, ids);
      await Promise.all(ids.map((id) => call(`/v1/sessions/${id}`, { method: 'DELETE', token })));
      const { asked, answered, restarted, lost } = counts;
      console.log(
        `${killed.length} replicas killed: ${asked} turns asked, ${answered} answered, ${stored} stored, ${restarted} restarted, ${lost.length} lost`,
      );
    },
    { timeout: 600_000 },
  );

  it('loses no turn: what was asked is answered, once, and stored', () => {
    assert.deepEqual(counts.lost, []);
    assert.deepEqual([counts.answered, stored], [counts.asked, counts.asked]);
  });

  it('has met turns in the middle of their answers, which began anew', () => {
    assert.ok(killed.length > 0, 'no replica was found');
    assert.ok(counts.restarted > 0, `${killed.length} kills met no turn that was being told`);
  });

  it('has another replica soon, and it answers', async () => {
    const token = await tokenOf('acme-agent');
    const id = await open(token);
    assert.equal(await turn(token, id, { asked: 0, answered: 0, restarted: 0, lost: [] }), null);
    await call(`/v1/sessions/${id}`, { method: 'DELETE', token });
  });
});
