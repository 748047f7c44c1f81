import type { KubernetesApi, LiveObject, ObjectReference } from './kubernetes-api.ts';

/** The namespace in which a runner keeps what it must remember. */
export const runnerNamespace = 'somagent-system';
/** Marks an object as declared by a stack; its value is the stack's name. */
export const stackLabel = 'somagent.dev/stack';
/** Under this name the runner owns fields. */
export const fieldManager = 'somagent';

/**
 * What a stack has put on one cluster, in order of creation. It is written before the first object is, so that an
 * apply that is killed leaves nothing behind that a later apply or destroy would not know.
 */
export class Inventory {
  readonly #api: KubernetesApi;
  readonly #stack: string;

  constructor(api: KubernetesApi, stack: string) {
    this.#api = api;
    this.#stack = stack;
  }

  /** @returns nothing when the stack was never applied here */
  async read(): Promise<readonly ObjectReference[]> {
    const live = await this.#api.read(this.#reference('inventory'));
    const text = (live?.data as { objects?: string } | undefined)?.objects;
    return text === undefined
      ? []
      : text
          .split('\n')
          .filter((line) => line !== '')
          .map(parseReference);
  }

  async write(objects: readonly ObjectReference[]): Promise<void> {
    await this.#ensureNamespace();
    await this.#save('inventory', { objects: objects.map(formatReference).join('\n') });
  }

  /** Keeps the stack's outputs where every client of the cluster finds them. They hold no secret. */
  async writeOutputs(outputs: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#ensureNamespace();
    await this.#save('outputs', { 'outputs.json': JSON.stringify(outputs, null, 2) });
  }

  /** Forgets the stack, and the namespace with the last one. */
  async remove(): Promise<void> {
    await this.#api.delete(this.#reference('outputs'));
    await this.#api.delete(this.#reference('inventory'));
    const rest = await this.#api.list('v1', 'ConfigMap', runnerNamespace, { labelSelector: stackLabel });
    if (rest.length === 0)
      await this.#api.delete({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: runnerNamespace } });
  }

  async #ensureNamespace(): Promise<void> {
    const labels = { 'app.kubernetes.io/managed-by': fieldManager, 'pod-security.kubernetes.io/enforce': 'restricted' };
    const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: runnerNamespace, labels } };
    await gone(this.#api, namespace);
    await this.#api.apply(namespace, { fieldManager, force: true });
  }

  async #save(what: 'inventory' | 'outputs', data: Readonly<Record<string, string>>): Promise<void> {
    const reference = this.#reference(what);
    const labels = { 'app.kubernetes.io/managed-by': fieldManager, [stackLabel]: this.#stack };
    await this.#api.apply(
      { ...reference, metadata: { ...reference.metadata, labels }, data },
      { fieldManager, force: true },
    );
  }

  #reference(what: 'inventory' | 'outputs'): ObjectReference {
    return {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: `${what}-${this.#stack}`, namespace: runnerNamespace },
    };
  }
}

/** Waits until an object that is being deleted is gone; one that lives is left alone. */
export async function gone(
  api: KubernetesApi,
  reference: ObjectReference,
  seconds = 120,
): Promise<LiveObject | undefined> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const live = await api.read(reference);
    if (live?.metadata.deletionTimestamp === undefined) return live;
    if (Date.now() > deadline) return live;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

/** `apps/v1 Deployment local-services gateway`; a cluster-wide object has `-` for its namespace. */
export function formatReference({ apiVersion, kind, metadata }: ObjectReference): string {
  return [apiVersion, kind, metadata.namespace ?? '-', metadata.name].join(' ');
}

function parseReference(line: string): ObjectReference {
  const [apiVersion = '', kind = '', namespace = '-', name = ''] = line.split(' ');
  return { apiVersion, kind, metadata: { name, ...(namespace === '-' ? {} : { namespace }) } };
}
