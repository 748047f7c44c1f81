import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { apiAddress } from '../layout.ts';
import type { Pki } from './certificates.ts';

/** An object of Kubernetes, as far as this folder looks into it. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [key: string]: unknown };
  readonly [key: string]: unknown;
}

/** The API server's refusal, or that it could not be asked. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status; 0 when no answer came. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * The few calls that the node itself needs, on Node's own HTTPS: loading a whole client library would cost a
 * twentieth of the time in which the cluster has to be up.
 */
export class Api {
  readonly #agent: Agent;

  constructor(pki: Pki) {
    this.#agent = new Agent({
      keepAlive: true,
      ca: readFileSync(pki.certificate('ca')),
      cert: readFileSync(pki.certificate('admin')),
      key: readFileSync(pki.key('admin')),
    });
  }

  /** True when the API server says that it is ready. */
  async isReady(): Promise<boolean> {
    return this.call('GET', '/readyz').then(
      () => true,
      () => false,
    );
  }

  /** Reads one object or a list. Throws {@link ApiError}. */
  async get<T>(path: string): Promise<T> {
    return JSON.parse(await this.call('GET', path)) as T;
  }

  /** Reads a path that does not answer in JSON, such as a log. Throws {@link ApiError}. */
  text(path: string): Promise<string> {
    return this.call('GET', path);
  }

  /** Deletes an object; one that is not there is no error. */
  async delete(path: string): Promise<void> {
    await this.call('DELETE', path).catch((error: unknown) => {
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    });
  }

  /** Server-side apply; `path` is that of the collection. */
  async apply(collection: string, object: KubernetesObject): Promise<void> {
    const query = 'fieldManager=somagent-cluster&force=true';
    await this.call('PATCH', `${collection}/${object.metadata.name}?${query}`, JSON.stringify(object));
  }

  close(): void {
    this.#agent.destroy();
  }

  private call(method: string, path: string, body?: string): Promise<string> {
    const headers = body === undefined ? {} : { 'content-type': 'application/apply-patch+yaml' };
    return new Promise((resolve, reject) => {
      const call = request(
        `${apiAddress}${path}`,
        { method, agent: this.#agent, headers, timeout: 10_000 },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8');
          answer.on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('error', (error) => reject(new ApiError(0, error.message)));
          answer.on('end', () => {
            const status = answer.statusCode ?? 0;
            if (status >= 200 && status < 300) resolve(text);
            else reject(new ApiError(status, `${method} ${path}: ${status} ${messageOf(text)}`));
          });
        },
      );
      call.on('timeout', () => call.destroy(new Error('no answer in 10 s')));
      call.on('error', (error) => reject(new ApiError(0, `API server at ${apiAddress}: ${error.message}`)));
      call.end(body);
    });
  }
}

function messageOf(text: string): string {
  try {
    return (JSON.parse(text) as { message?: string }).message ?? text;
  } catch {
    return text.slice(0, 300);
  }
}
