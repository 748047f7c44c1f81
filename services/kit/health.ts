import { createServer, type Server } from 'node:http';
import { messageOf } from './log.ts';
import { within } from './within.ts';

/** Resolves when a dependency answers, if to a text then with what is to be known; rejects with the reason if not. */
export type Check = () => Promise<unknown>;

/** Options of {@link startHealthServer}. */
export interface HealthOptions {
  /** Port on every interface: the kubelet asks from outside of the pod. */
  readonly port: number;
  /** What has to answer before traffic may come, by name. */
  readonly checks: Readonly<Record<string, Check>>;
  /** What else is served as JSON, by path: `/routes`. @default nothing */
  readonly documents?: Readonly<Record<string, () => unknown>>;
  /** Time that a single check may take, milliseconds. @default 2000 */
  readonly timeout?: number;
}

/** The verdict of `/readyz`. */
export interface Readiness {
  readonly ready: boolean;
  /** `ok`, `ok: ` and what is to be known, or why not, by name of the check. */
  readonly checks: Readonly<Record<string, string>>;
}

/** Serves `GET /healthz` (the process lives), `GET /readyz` (its dependencies answer) and the documents. */
export class HealthServer {
  #draining = false;
  readonly #server: Server;
  readonly #options: HealthOptions;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => {
      const answer = (status: number, body: unknown) =>
        response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
      if (request.url === '/healthz') return answer(200, { alive: true });
      const document = options.documents?.[request.url ?? ''];
      if (document !== undefined) return answer(200, document());
      if (request.url !== '/readyz') return answer(404, { error: 'only /healthz and /readyz are here' });
      return this.readiness().then((verdict) => answer(verdict.ready ? 200 : 503, verdict));
    });
  }

  /** Asks every check at once. */
  async readiness(): Promise<Readiness> {
    if (this.#draining) return { ready: false, checks: { process: 'is shutting down' } };
    const timeout = this.#options.timeout ?? 2000;
    const entries = await Promise.all(
      Object.entries(this.#options.checks).map(async ([name, check]) => [name, await verdict(check, timeout)] as const),
    );
    const ready = entries.every(([, { answers }]) => answers);
    return { ready, checks: Object.fromEntries(entries.map(([name, { state }]) => [name, state])) };
  }

  /** From now on not ready, so that no new traffic is sent here. */
  drain(): void {
    this.#draining = true;
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.port, resolve);
    });
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

async function verdict(check: Check, timeout: number): Promise<{ readonly answers: boolean; readonly state: string }> {
  try {
    const detail = await within(timeout, check());
    return { answers: true, state: typeof detail === 'string' ? `ok: ${detail}` : 'ok' };
  } catch (error) {
    return { answers: false, state: messageOf(error) };
  }
}

/** Starts a {@link HealthServer}. */
export async function startHealthServer(options: HealthOptions): Promise<HealthServer> {
  const server = new HealthServer(options);
  await server.listen();
  return server;
}
