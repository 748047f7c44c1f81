import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { call } from '../../support/session-api.ts';

/** What a client has done, or tried to. */
export type Kind = 'open' | 'turn' | 'close' | 'read' | 'key' | 'revoke';

/** One request of the load. */
export interface Attempt {
  readonly kind: Kind;
  /** Id of what was made or changed: a session, a turn, an API key; null where the answer did not say. */
  readonly id: string | null;
  readonly requestId: string | null;
  /** Status of the answer; 0 where none came. */
  readonly status: number;
  /** When it was asked, and how long it took, milliseconds. */
  readonly at: number;
  readonly took: number;
}

/** An answer, as the load needs it; status 0 where none came. */
export interface Answered {
  readonly status: number;
  readonly requestId: string | null;
  readonly id: string | null;
}

/** Load that goes on until it is stopped. */
export interface Load {
  readonly attempts: readonly Attempt[];
  /** Resolves when what was begun has ended. */
  stop(): Promise<void>;
}

/** Makes and revokes API keys; undefined while nobody can sign in for it. */
export interface KeyMaker {
  create(): Promise<Answered | undefined>;
  revoke(id: string): Promise<Answered>;
}

/** What is loaded. */
export interface LoadOptions {
  /** A token that is good for the request. */
  readonly token: () => Promise<string>;
  /** Sessions at once; each opens, asks three turns, reads after each, and closes. */
  readonly sessions: number;
  /** Pause between two requests of a session, milliseconds. */
  readonly pause: number;
  readonly keys: KeyMaker;
}

const turnsPerSession = 3;
const keyPause = 2000;

const notAsked: Answered = { status: 0, requestId: null, id: null };

/** Starts sessions and administration side by side. */
export function startLoad({ token, sessions, pause, keys }: LoadOptions): Load {
  const attempts: Attempt[] = [];
  let stopped = false;
  const attempt = async (kind: Kind, work: () => Promise<Answered>): Promise<Answered> => {
    const at = performance.now();
    const answered = await work().catch(() => ({ status: 0, requestId: null, id: null }));
    if (answered !== notAsked) attempts.push({ kind, ...answered, at, took: performance.now() - at });
    await sleep(pause);
    return answered;
  };
  const asAgent = async (method: string, path: string, body?: object, id?: string): Promise<Answered> => {
    const headers = method === 'POST' ? { 'idempotency-key': randomUUID() } : {};
    const answer = await call<Partial<Turn>>(path, { method, token: await token(), headers, ...(body && { body }) });
    const requestId = answer.headers['x-request-id'];
    return {
      status: answer.status,
      requestId: requestId === undefined ? null : String(requestId),
      id: id ?? answer.body.id ?? null,
    };
  };
  const session = async (): Promise<void> => {
    const { status, id } = await attempt('open', () => asAgent('POST', '/v1/sessions', {}));
    if (status !== 201 || id === null) return;
    for (let turn = 0; turn < turnsPerSession && !stopped; turn += 1) {
      await attempt('turn', () => asAgent('POST', `/v1/sessions/${id}/turns`, { prompt: 'What is a drill?' }));
      await attempt('read', () => asAgent('GET', `/v1/sessions/${id}`));
    }
    await attempt('close', () => asAgent('DELETE', `/v1/sessions/${id}`, undefined, id));
  };
  const key = async (): Promise<void> => {
    await sleep(keyPause);
    const { status, id } = await attempt('key', async () => (await keys.create()) ?? notAsked);
    if (status === 201 && id !== null) await attempt('revoke', () => keys.revoke(id));
  };
  const again = async (work: () => Promise<void>): Promise<void> => {
    while (!stopped) await work();
  };
  const workers = [...Array.from({ length: sessions }, () => again(session)), again(key)];
  return {
    attempts,
    stop: async () => {
      stopped = true;
      await Promise.all(workers);
    },
  };
}
