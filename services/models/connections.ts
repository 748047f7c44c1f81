import { readFileSync } from 'node:fs';
import { type HttpClient, openHttpClient } from '@somagent/kit';

/** Longer than any limit of a provider: those decide. */
export const silence = 3_600_000;

/**
 * Connections to a provider that survive a body that is cancelled: the clients leave an answer at its last event and
 * cancel what is left, a few bytes, and each answer would need a connection and a TLS handshake of its own. What is
 * aborted by its signal still ends at once.
 */
export function openConnections(caFile: string | undefined): HttpClient {
  const client = openHttpClient(caFile, silence);
  return { ...client, fetch: keepingConnections(client.fetch) };
}

/** See {@link openConnections}. */
export function keepingConnections(inner: typeof fetch): typeof fetch {
  return async (input, init) => {
    const response = await inner(input, init);
    const { status, statusText, headers, body } = response;
    return body === null ? response : new Response(readToEnd(body), { status, statusText, headers });
  };
}

function readToEnd(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const rest = async (): Promise<void> => {
    while (!(await reader.read()).done);
  };
  return new ReadableStream({
    pull: async (controller) => {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => void rest().catch(() => undefined),
  });
}

/** The credential in a file; read for each request, so that a rotated one needs no restart. */
export const credentialIn = (file: string): string => readFileSync(file, 'utf8').trim();
