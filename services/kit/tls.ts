import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { join } from 'node:path';
import { Agent, buildConnector, fetch as undiciFetch } from 'undici';
import { inChildSpan, isTracing, SpanKind, traceHeaders } from './tracing.ts';

/** A certificate, its key and the authority to trust, as PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** Reads `tls.crt`, `tls.key` and `ca.crt` of a mounted Secret. */
export function readTlsFiles(directory: string): TlsFiles {
  const read = (name: string) => readFileSync(join(directory, name), 'utf8');
  return { cert: read('tls.crt'), key: read('tls.key'), ca: read('ca.crt') };
}

/** A `fetch` with connections of its own. */
export interface HttpClient {
  readonly fetch: typeof fetch;
  /** Ends its connections; what still runs is cut off. */
  close(): Promise<void>;
}

/**
 * An HTTP client that trusts only the authority in `caFile`; without one, the public authorities. The file is read for
 * each new connection, so that a renewed authority needs no restart.
 * @param timeout for the headers of an answer and between two pieces of its body, milliseconds
 */
export function openHttpClient(caFile: string | undefined, timeout = 120_000): HttpClient {
  const agent = new Agent({
    connect: (options, callback) =>
      buildConnector(caFile === undefined ? {} : { ca: readFileSync(caFile, 'utf8') })(options, callback),
    headersTimeout: timeout,
    bodyTimeout: timeout,
  });
  // undici's own types of fetch differ from Node's copy of them only in name.
  const own = (input: unknown, init?: RequestInit) =>
    undiciFetch(input as Parameters<typeof undiciFetch>[0], { ...(init as object), dispatcher: agent });
  const asked = traced(own as unknown as typeof fetch, caFile !== undefined);
  return { fetch: asked, close: () => agent.destroy() };
}

/**
 * The same `fetch` in a span of its own, until the headers of the answer. Only servers of an authority of ours are told
 * of the trace and its tenant: it is nobody else's business.
 */
const traced =
  (ask: typeof fetch, ours: boolean): typeof fetch =>
  (input, init) => {
    if (!isTracing()) return ask(input, init);
    const { host, pathname } = new URL(input instanceof Request ? input.url : input);
    const method = init?.method ?? (input instanceof Request ? input.method : 'GET');
    const attributes = { 'http.request.method': method, 'server.address': host, 'url.path': pathname };
    return inChildSpan(`${method} ${host}`, { kind: SpanKind.CLIENT, attributes }, async (span) => {
      const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : {}));
      if (ours) for (const [name, value] of Object.entries(traceHeaders())) headers.set(name, value);
      const answer = await ask(input, { ...init, headers: Object.fromEntries(headers) });
      span.setAttribute('http.response.status_code', answer.status);
      return answer;
    });
  };

/** The `fetch` of {@link openHttpClient}, for as long as the process lives. */
export const fetchTrusting = (caFile: string): typeof fetch => openHttpClient(caFile).fetch;

/**
 * Calls `changed` when a file of a mounted Secret changes. Polls every 5 s, because the kubelet swaps a symbolic link,
 * which notifications on the file itself do not report.
 * @returns ends the watch.
 */
export function onFileChange(file: string, changed: () => void): () => void {
  const listener = (now: { mtimeMs: number; ino: number }, before: { mtimeMs: number; ino: number }) => {
    if (now.mtimeMs !== before.mtimeMs || now.ino !== before.ino) changed();
  };
  watchFile(file, { interval: 5000, persistent: false }, listener);
  return () => unwatchFile(file, listener);
}
