import type { HttpAnswer } from '@somagent/kit';
import { createParser } from 'eventsource-parser';
import type OpenAI from 'openai';
import type { ModelError } from './errors.ts';
import { failureOf } from './failures.ts';

/** An error as servers of OpenAI's API send it, in a body or within a stream. */
interface SentError {
  readonly code?: string | null;
  readonly type?: string | null;
  readonly message?: unknown;
}

/** The largest body of a refusal that is looked at, bytes. */
const refusalBytes = 64 * 1024;

/** The chunks of a streamed answer, up to `[DONE]`; after it the connection is free for the next request. */
export async function* chunksOf(provider: string, answer: HttpAnswer): AsyncGenerator<OpenAI.ChatCompletionChunk> {
  const { body } = answer;
  const events: string[] = [];
  const parser = createParser({ onEvent: ({ data }) => void events.push(data) });
  body.setEncoding('utf8');
  let done = false;
  try {
    for await (const text of body.iterator({ destroyOnReturn: false })) {
      parser.feed(text);
      for (const data of events.splice(0)) {
        done ||= data === '[DONE]';
        if (done) return;
        const chunk = JSON.parse(data) as OpenAI.ChatCompletionChunk & { readonly error?: SentError };
        if (chunk.error) throw failureOfSent(provider, chunk.error, answer);
        yield chunk;
      }
    }
  } finally {
    // What is left after the end is a few bytes; what is left before it is cut off.
    if (done) void body.dump().catch(() => undefined);
    else body.destroy();
  }
}

/** What a server says that answers with another status than 2xx. */
export async function refusalOf(provider: string, { status, headers, body }: HttpAnswer): Promise<ModelError> {
  let text = '';
  for await (const piece of body.setEncoding('utf8')) {
    text += piece;
    if (text.length > refusalBytes) break;
  }
  return failureOfSent(provider, sentIn(text), { status, headers }, status);
}

/** @returns the `error` of a body in JSON; else the body as its message */
function sentIn(text: string): SentError {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === 'object' && body !== null && 'error' in body && typeof body.error === 'object') {
      return body.error ?? {};
    }
  } catch {
    // It is of something between us and the server.
  }
  return { message: text === '' ? 'no body' : text.slice(0, 200) };
}

function failureOfSent(
  provider: string,
  { code, type, message }: SentError,
  { headers }: Pick<HttpAnswer, 'status' | 'headers'>,
  status?: number,
): ModelError {
  const said = typeof message === 'string' ? message : JSON.stringify(message ?? 'no message');
  const failure = { kinds: [code, type], headers: new Headers(headers), cause: undefined };
  return failureOf(provider, { ...failure, status, message: status === undefined ? said : `${status} ${said}` });
}
