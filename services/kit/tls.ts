import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { join } from 'node:path';
import { Agent, buildConnector, type Dispatcher, fetch as undiciFetch, request as undiciRequest } from 'undici';
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

/** A request of {@link HttpClient.request}. */
export interface HttpRequest {
  readonly method: 'GET' | 'POST';
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
}

/** Its answer, whatever the status; redirections are not followed. The body has to be read or destroyed. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Dispatcher.ResponseData['body'];
}

/** A `fetch` with connections of its own. */
export interface HttpClient {
  readonly fetch: typeof fetch;
  /** What `fetch` does at a fraction of its processor time, for a path where that counts. */
  request(url: string, request: HttpRequest): Promise<HttpAnswer>;
  /** Ends its connections; what still runs is cut off. */
  close(): Promise<void>;
}

/**
 * How long an idle connection is kept, milliseconds; shorter than every server of ours keeps it (65 s or more), so that
 * a request never meets a server that is just closing.
 */
const idleMs = 55_000;

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
    keepAliveTimeout: idleMs,
  });
  const ours = caFile !== undefined;
  // undici's own types of fetch differ from Node's copy of them only in name.
  const own = (input: unknown, init?: object) =>
    undiciFetch(input as Parameters<typeof undiciFetch>[0], { ...init, dispatcher: agent });
  const request = (url: string, asked: HttpRequest): Promise<HttpAnswer> =>
    inClientSpan({ url, method: asked.method, ours }, async (told) => {
      const headers = { ...asked.headers, ...told };
      const { statusCode, headers: said, body } = await undiciRequest(url, { ...asked, headers, dispatcher: agent });
      const single = Object.entries(said).map(([name, value = '']) => [name, String(value)]);
      return { status: statusCode, headers: Object.fromEntries(single), body };
    });
  return { fetch: traced(own as unknown as typeof fetch, ours), request, close: () => agent.destroy() };
}

interface Asked {
  readonly url: string | URL;
  readonly method: string;
  /** Whether the server is of an authority of ours: nobody else is told of the trace and its tenant. */
  readonly ours: boolean;
}

/**
 * A request in a span of its own, until the headers of its answer.
 * @param ask gets the headers that tell the server of the trace
 */
function inClientSpan<Answer extends { readonly status: number }>(
  { url, method, ours }: Asked,
  ask: (told: Readonly<Record<string, string>>) => Promise<Answer>,
): Promise<Answer> {
  if (!isTracing()) return ask({});
  const { host, pathname } = new URL(url);
  const attributes = { 'http.request.method': method, 'server.address': host, 'url.path': pathname };
  return inChildSpan(`${method} ${host}`, { kind: SpanKind.CLIENT, attributes }, async (span) => {
    const answer = await ask(ours ? traceHeaders() : {});
    span.setAttribute('http.response.status_code', answer.status);
    return answer;
  });
}

/** The same `fetch` in a span. */
const traced =
  (ask: typeof fetch, ours: boolean): typeof fetch =>
  (input, init) => {
    if (!isTracing()) return ask(input, init);
    const url = input instanceof Request ? input.url : input;
    const method = init?.method ?? (input instanceof Request ? input.method : 'GET');
    return inClientSpan({ url, method, ours }, (told) => {
      const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : {}));
      for (const [name, value] of Object.entries(told)) headers.set(name, value);
      return ask(input, { ...init, headers: Object.fromEntries(headers) });
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
