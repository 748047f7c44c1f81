import https from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import { describe, type Manifest } from '@somagent/components/bridge/index.ts';
import { loadKubeconfig } from './kubeconfig.ts';

/** An object as the API server holds it. */
export interface LiveObject extends Manifest {
  readonly metadata: Manifest['metadata'] & {
    readonly uid?: string;
    readonly generation?: number;
    readonly resourceVersion?: string;
    readonly deletionTimestamp?: string;
    readonly creationTimestamp?: string;
    readonly finalizers?: readonly string[];
    readonly ownerReferences?: readonly { readonly uid: string; readonly kind: string; readonly name: string }[];
    readonly managedFields?: readonly { readonly manager: string; readonly operation: string }[];
  };
}

/** What identifies an object on a cluster. */
export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** A refusal of the API server. `status` is the HTTP status; 0 when the server was not reached. */
export class KubernetesApiError extends Error {
  readonly status: number;
  readonly reason: string;
  readonly causes: readonly StatusCause[];

  constructor(status: number, reason: string, message: string, causes: readonly StatusCause[] = []) {
    super(message);
    this.name = 'KubernetesApiError';
    this.status = status;
    this.reason = reason;
    this.causes = causes;
  }
}

/** One cause inside a Status: for a conflict, the field and who owns it. */
export interface StatusCause {
  readonly reason?: string;
  readonly message?: string;
  readonly field?: string;
}

/** How {@link KubernetesApi.apply} writes. */
export interface ApplyOptions {
  readonly fieldManager: string;
  /** Takes fields from their present owner. */
  readonly force?: boolean;
  /** The server answers what would be stored, and stores nothing. */
  readonly dryRun?: boolean;
}

/**
 * The few verbs that a runner needs, on any kind, with strict field validation. Credentials come from a kubeconfig
 * through @kubernetes/client-node; its generic object client has no field validation, hence the requests here.
 */
export class KubernetesApi {
  readonly #config: KubeConfig;
  readonly #server: URL;
  readonly #agent = new https.Agent({ keepAlive: true, maxSockets: 16 });
  readonly #resources = new Map<string, Promise<ReadonlyMap<string, ApiResource>>>();
  #options: Promise<https.RequestOptions> | undefined;

  constructor(config: KubeConfig) {
    this.#config = config;
    const cluster = config.getCurrentCluster();
    if (cluster === null) throw new Error('the kubeconfig names no current cluster; set one with --context');
    this.#server = new URL(cluster.server);
  }

  /** The address of the API server, for messages. */
  get server(): string {
    return this.#server.href;
  }

  /** Server-side apply. @throws {KubernetesApiError} */
  async apply(manifest: Manifest, options: ApplyOptions): Promise<LiveObject> {
    const query = new URLSearchParams({ fieldManager: options.fieldManager, fieldValidation: 'Strict' });
    if (options.force) query.set('force', 'true');
    if (options.dryRun) query.set('dryRun', 'All');
    const path = await this.#path(manifest);
    return (await this.#request('PATCH', `${path}?${query}`, manifest, 'application/apply-patch+yaml')) as LiveObject;
  }

  /** @returns nothing when there is no such object, namespace or kind */
  async read(reference: ObjectReference): Promise<LiveObject | undefined> {
    return this.#unlessAbsent(async () => (await this.#request('GET', await this.#path(reference))) as LiveObject);
  }

  /** Whether the API server answers for a kind: it does so a moment after the definition of the kind is established. */
  async serves(apiVersion: string, kind: string): Promise<boolean> {
    const probe = { apiVersion, kind, metadata: { name: kind.toLowerCase() } };
    return (await this.#unlessAbsent(() => this.#resource(probe))) !== undefined;
  }

  /** Objects of one kind in a namespace, oldest first. */
  async list(
    apiVersion: string,
    kind: string,
    namespace: string | undefined,
    query: Record<string, string> = {},
  ): Promise<readonly LiveObject[]> {
    const path = await this.#collection({
      apiVersion,
      kind,
      metadata: { name: '', ...(namespace === undefined ? {} : { namespace }) },
    });
    const answer = (await this.#request('GET', `${path}?${new URLSearchParams(query)}`)) as { items?: LiveObject[] };
    return (answer.items ?? []).map((item) => ({ ...item, apiVersion, kind }));
  }

  /** Asks for deletion; returns at once. Absent is fine. */
  async delete(
    reference: ObjectReference,
    propagationPolicy: 'Background' | 'Foreground' | 'Orphan' = 'Background',
  ): Promise<void> {
    await this.#unlessAbsent(async () =>
      this.#request('DELETE', `${await this.#path(reference)}?propagationPolicy=${propagationPolicy}`),
    );
  }

  /** The last lines of a container's log; of the previous run when it crashed. Empty when there is none. */
  async logs(namespace: string, pod: string, container: string, previous: boolean, lines = 10): Promise<string> {
    const query = new URLSearchParams({ container, tailLines: `${lines}`, previous: `${previous}` });
    const path = `/api/v1/namespaces/${namespace}/pods/${pod}/log?${query}`;
    const text = await this.#request('GET', path).catch((error: unknown) => {
      if (error instanceof KubernetesApiError) return '';
      throw error;
    });
    return typeof text === 'string' ? text.trimEnd() : '';
  }

  /** The server's version, such as `v1.34.2`; the cheapest proof that it answers. */
  async version(): Promise<string> {
    const answer = (await this.#request('GET', '/version')) as { gitVersion: string };
    return answer.gitVersion;
  }

  /** Forgets which kinds exist, e.g. after a definition was installed. */
  forgetKinds(): void {
    this.#resources.clear();
  }

  close(): void {
    this.#agent.destroy();
  }

  async #unlessAbsent<T>(action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      if (error instanceof KubernetesApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  async #path(reference: ObjectReference): Promise<string> {
    return `${await this.#collection(reference)}/${encodeURIComponent(reference.metadata.name)}`;
  }

  async #collection(reference: ObjectReference): Promise<string> {
    const resource = await this.#resource(reference);
    const root = groupPath(reference.apiVersion);
    if (!resource.namespaced) return `${root}/${resource.name}`;
    return `${root}/namespaces/${reference.metadata.namespace ?? 'default'}/${resource.name}`;
  }

  async #resource(reference: ObjectReference): Promise<ApiResource> {
    const found = (await this.#kinds(reference.apiVersion)).get(reference.kind);
    if (found !== undefined) return found;
    // The kind may have been installed since we asked.
    this.#resources.delete(reference.apiVersion);
    const again = (await this.#kinds(reference.apiVersion)).get(reference.kind);
    if (again !== undefined) return again;
    throw new KubernetesApiError(
      404,
      'KindAbsent',
      `${describe(reference)}: the cluster knows no kind ${reference.kind} in ${reference.apiVersion}`,
    );
  }

  #kinds(apiVersion: string): Promise<ReadonlyMap<string, ApiResource>> {
    const known = this.#resources.get(apiVersion);
    if (known !== undefined) return known;
    const asked = this.#discover(apiVersion);
    this.#resources.set(apiVersion, asked);
    asked.catch(() => this.#resources.delete(apiVersion));
    return asked;
  }

  async #discover(apiVersion: string): Promise<ReadonlyMap<string, ApiResource>> {
    const answer = await this.#unlessAbsent(
      async () => (await this.#request('GET', groupPath(apiVersion))) as { resources?: ApiResource[] },
    );
    return new Map(
      (answer?.resources ?? []).filter(({ name }) => !name.includes('/')).map((resource) => [resource.kind, resource]),
    );
  }

  async #request(method: string, path: string, body?: unknown, type?: string): Promise<unknown> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      accept: 'application/json',
      ...(payload === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(payload) }),
    };
    const credentials = await this.#credentials();
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const request = https.request(
      {
        ...credentials,
        agent: this.#agent,
        host: this.#server.hostname,
        port: this.#server.port || 443,
        path: prefix(this.#server) + path,
        method,
        headers: { ...credentials.headers, ...headers },
        timeout: 30_000,
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => settle(response.statusCode ?? 0, Buffer.concat(chunks).toString(), resolve, reject));
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer within 30 s')));
    request.on('error', (error) =>
      reject(new KubernetesApiError(0, 'Unreachable', `${this.#server.href} does not answer: ${error.message}`)),
    );
    request.end(payload);
    return promise;
  }

  #credentials(): Promise<https.RequestOptions> {
    this.#options ??= (async () => {
      const options: https.RequestOptions = {};
      await this.#config.applyToHTTPSOptions(options);
      return options;
    })();
    return this.#options;
  }
}

interface ApiResource {
  readonly name: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

function groupPath(apiVersion: string): string {
  return apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
}

const prefix = (server: URL): string => server.pathname.replace(/\/$/, '');

function settle(status: number, text: string, resolve: (value: unknown) => void, reject: (error: Error) => void): void {
  const parsed = parse(text);
  if (status >= 200 && status < 300) {
    resolve(parsed);
    return;
  }
  const answer = (typeof parsed === 'object' && parsed !== null ? parsed : {}) as {
    reason?: string;
    message?: string;
    details?: { causes?: StatusCause[] };
  };
  reject(
    new KubernetesApiError(
      status,
      answer.reason ?? `HTTP ${status}`,
      answer.message ?? text.slice(0, 300),
      answer.details?.causes,
    ),
  );
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Opens a cluster. @throws when the kubeconfig or its context is absent, naming what there is */
export function openCluster(kubeconfig: string | undefined, context: string | undefined): KubernetesApi {
  return new KubernetesApi(loadKubeconfig(kubeconfig, context));
}
