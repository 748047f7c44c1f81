import { setTimeout as sleep } from 'node:timers/promises';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import { type ClientOptions, SomaError } from './client.ts';
import { retrying } from './retry.ts';

/** An event of a session. */
export interface SessionEvent {
  /** Its number in the session. */
  readonly id: number;
  /** `turn.token`, `turn.completed` ... */
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** What a stream shows. */
export interface StreamOptions {
  readonly sessionId: string;
  /** Number of the last event that is known. @default 0: from the beginning */
  readonly after?: number;
  readonly signal?: AbortSignal;
}

const pauseMs = 500;

/**
 * Every event of a session, in order and once each, until the session closes. When the connection breaks or the gateway
 * goes away, the stream goes on after the last event.
 * @throws SomaError when the gateway refuses.
 */
export async function* sessionEvents(options: ClientOptions, stream: StreamOptions): AsyncGenerator<SessionEvent> {
  let { after = 0 } = stream;
  while (!stream.signal?.aborted) {
    const response = await open(options, stream, after);
    try {
      for await (const event of read(response)) {
        // A repetition after a reconnection.
        if (event.id <= after) continue;
        after = event.id;
        yield event;
        if (event.type === 'session.closed') return;
      }
    } catch (error) {
      // What a connection that breaks looks like; anything else is no matter of another try.
      if (!(error instanceof TypeError)) throw error;
    }
    await sleep(pauseMs, undefined, { signal: stream.signal });
  }
}

async function open(options: ClientOptions, { sessionId, signal }: StreamOptions, after: number): Promise<Response> {
  const url = `${options.url.replace(/\/$/, '')}/v1/sessions/${encodeURIComponent(sessionId)}/events`;
  const headers = {
    accept: 'text/event-stream',
    authorization: `Bearer ${await options.token()}`,
    'last-event-id': String(after),
  };
  const request = new Request(url, { headers, ...(signal && { signal }) });
  const response = await retrying(options.fetch ?? globalThis.fetch, options)(request);
  if (response.ok) return response;
  throw new SomaError(response, (await response.json().catch(() => undefined)) as { type?: string } | undefined);
}

async function* read(response: Response): AsyncGenerator<SessionEvent> {
  if (response.body === null) return;
  const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  for await (const { id, event, data } of events) {
    if (event === 'reconnect' || id === undefined || event === undefined) continue;
    yield { id: Number(id), type: event, data: JSON.parse(data) };
  }
}
