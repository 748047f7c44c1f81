import { type FollowedControlState, followStanding, type GovernedEnv } from '@somagent/governance';
import { type Logger, messageOf } from '@somagent/kit';
import type { EventType } from '@somagent/orchestrator/contract.ts';
import type { Context } from 'hono';
import { type SSEStreamingApi, streamSSE } from 'hono/streaming';
import type { EventHub } from './event-hub.ts';
import type { SessionReader } from './reader.ts';

/** What a stream reads from. */
export interface StreamSources {
  readonly reader: SessionReader;
  readonly hub: EventHub;
  readonly log: Logger;
  /** Tells when a caller is suspended or revoked: then the stream ends. */
  readonly control: FollowedControlState;
  /** Aborts when the pod shuts down: streams then ask their clients to come again. */
  readonly draining: AbortSignal;
}

/** What a stream shows. */
export interface StreamRequest {
  readonly tenant: string;
  readonly sessionId: string;
  /** Number of the last event that the client has. */
  readonly after: number;
  /** Only events of this turn. */
  readonly turnId?: string;
  /** Types of events after which the stream ends. */
  readonly until: readonly EventType[];
  /** Nothing more will happen: the stream ends after what is stored. @default false */
  readonly complete?: boolean;
}

/** A comment this often keeps proxies from closing a silent stream, and reads once in case a notice was lost. */
const heartbeat = 15_000;
const page = 200;

/** Answers with the events of a session as server-sent events; the id of each is its number. */
export function eventStream(context: Context<GovernedEnv>, sources: StreamSources, request: StreamRequest): Response {
  const response = streamSSE(context, async (stream) => {
    const gone = new AbortController();
    stream.onAbort(() => gone.abort());
    const standing = followStanding(sources.control, context.get('caller'));
    const signal = AbortSignal.any([gone.signal, sources.draining, standing.signal]);
    const subscription = sources.hub.subscribe(request.tenant, request.sessionId);
    try {
      const ended = await follow(stream, sources, request, signal, (timeout) => subscription.next(timeout, signal));
      if (!ended && !gone.signal.aborted) await comeAgain(stream);
    } catch (error) {
      // The database is away: the client has the number of its last event and loses nothing.
      const { tenant, sessionId } = request;
      sources.log.warn({ tenant, sessionId, reason: messageOf(error) }, 'a stream was cut');
      await comeAgain(stream);
    } finally {
      standing.release();
      subscription.close();
    }
  });
  // Without it a buffering proxy would hold tokens back.
  response.headers.set('x-accel-buffering', 'no');
  return response;
}

const comeAgain = (stream: SSEStreamingApi) => stream.writeSSE({ event: 'reconnect', data: '{}', retry: 500 });

/** @returns whether the last event of the stream was sent. */
async function follow(
  stream: SSEStreamingApi,
  { reader }: StreamSources,
  request: StreamRequest,
  signal: AbortSignal,
  news: (timeout: number) => Promise<boolean>,
): Promise<boolean> {
  let after = request.after;
  while (!signal.aborted) {
    const events = await reader.events({ ...request, after, limit: page });
    for (const { seq, type, data } of events) {
      // Waits while the client does not read: a slow one holds one page, not the whole session.
      await stream.writeSSE({ id: String(seq), event: type, data: JSON.stringify(data) });
      if (request.until.includes(type)) return true;
      after = seq;
    }
    if (events.length < page && request.complete) return true;
    if (events.length < page && !(await news(heartbeat)) && !signal.aborted) await stream.write(': heartbeat\n\n');
  }
  return false;
}
