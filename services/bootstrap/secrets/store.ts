import type { CoreV1Api } from '@kubernetes/client-node';
import { codeOf, Failure, messageOf } from '../failure.ts';

/** Decoded keys of a Secret. Held in memory only: nothing here is ever logged. */
export type SecretData = Readonly<Record<string, string>>;

export interface StoredSecret {
  readonly data: SecretData;
  readonly resourceVersion: string;
}

export interface SecretSpec {
  readonly namespace: string;
  readonly name: string;
  readonly type: 'Opaque' | 'kubernetes.io/tls';
  readonly labels: Readonly<Record<string, string>>;
  readonly data: SecretData;
}

/** Another writer was faster: read again and decide anew. */
export class Conflict extends Error {}

function encode(data: SecretData): Record<string, string> {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]));
}

function decode(data: Readonly<Record<string, string>>): SecretData {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]));
}

function body(spec: SecretSpec, resourceVersion?: string) {
  const version = resourceVersion === undefined ? {} : { resourceVersion };
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: spec.name, namespace: spec.namespace, labels: { ...spec.labels }, ...version },
    type: spec.type,
    data: encode(spec.data),
  };
}

/** Secrets of a cluster, through its API server. */
export class SecretStore {
  readonly #api: CoreV1Api;

  constructor(api: CoreV1Api) {
    this.#api = api;
  }

  /** The Secret, or undefined when it is absent. */
  async read(namespace: string, name: string): Promise<StoredSecret | undefined> {
    try {
      const secret = await this.#api.readNamespacedSecret({ namespace, name });
      return { data: decode(secret.data ?? {}), resourceVersion: secret.metadata?.resourceVersion ?? '' };
    } catch (error) {
      if (codeOf(error) === 404) return undefined;
      throw explain('read', namespace, name, error);
    }
  }

  /** @throws Conflict when it exists already. */
  async create(spec: SecretSpec): Promise<void> {
    try {
      await this.#api.createNamespacedSecret({ namespace: spec.namespace, body: body(spec) });
    } catch (error) {
      throw explain('create', spec.namespace, spec.name, error);
    }
  }

  /** Replaces exactly the version that was read. @throws Conflict when it changed since. */
  async replace(spec: SecretSpec, resourceVersion: string): Promise<void> {
    const { namespace, name } = spec;
    try {
      await this.#api.replaceNamespacedSecret({ namespace, name, body: body(spec, resourceVersion) });
    } catch (error) {
      throw explain('update', namespace, name, error);
    }
  }
}

/** An API error's message may quote the request: only its status and the object's name leave this function. */
function explain(verb: string, namespace: string, name: string, error: unknown): unknown {
  const code = codeOf(error);
  const object = `Secret ${namespace}/${name}`;
  if (code === 409) return new Conflict(object);
  if (code === 403) {
    return new Failure(
      `${object}: not allowed to ${verb} it`,
      `grant ${verb} on secrets in ${namespace} to the Job's service account`,
    );
  }
  if (code === 404)
    return new Failure(`${object}: namespace ${namespace} is absent`, `create namespace ${namespace} first`);
  if (typeof code === 'number') {
    return new Failure(
      `${object}: the API server answered ${code} to ${verb}`,
      'read the API server log for the reason',
    );
  }
  return new Error(`${object}: cannot ${verb} it: ${messageOf(error)}`);
}
