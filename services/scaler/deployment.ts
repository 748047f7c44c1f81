import { join } from 'node:path';
import { workloadToken } from '@somagent/kit';
import { z } from 'zod';

/** The Deployment to scale and how the API server is reached. */
export interface ScaleTarget {
  readonly url: string;
  /** Directory with this pod's `token` for the API server. */
  readonly directory: string;
  readonly namespace: string;
  readonly name: string;
  readonly fetch: typeof fetch;
}

/** How many replicas are asked for and how many there are. */
export interface Scale {
  readonly wanted: number;
  readonly present: number;
  /** The state that this is of. */
  readonly version: string;
}

const scaleSchema = z.object({
  metadata: z.object({ resourceVersion: z.string() }),
  spec: z.object({ replicas: z.int().default(0) }).default({ replicas: 0 }),
  status: z.object({ replicas: z.int().default(0) }).default({ replicas: 0 }),
});

/** The subresource `scale` of one Deployment, and nothing else of the cluster. */
export class DeploymentScale {
  readonly #target: ScaleTarget;

  constructor(target: ScaleTarget) {
    this.#target = target;
  }

  /** @throws Error with the status of the API server. */
  async read(): Promise<Scale> {
    const { metadata, spec, status } = scaleSchema.parse(await this.#send('GET'));
    return { wanted: spec.replicas, present: status.replicas, version: metadata.resourceVersion };
  }

  /**
   * Asks for that many replicas.
   * @throws Error with status 409 when somebody else has changed the Deployment since it was read.
   */
  async write(replicas: number, { version }: Scale): Promise<void> {
    const { namespace, name } = this.#target;
    await this.#send('PUT', {
      apiVersion: 'autoscaling/v1',
      kind: 'Scale',
      metadata: { name, namespace, resourceVersion: version },
      spec: { replicas },
    });
  }

  async #send(method: string, body?: object): Promise<unknown> {
    const { url, directory, namespace, name, fetch } = this.#target;
    const path = `/apis/apps/v1/namespaces/${namespace}/deployments/${name}/scale`;
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${workloadToken(join(directory, 'token'))}`,
        ...(body && { 'content-type': 'application/json' }),
      },
      ...(body && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(5000),
    });
    if (response.ok) return response.json();
    throw new Error(`the API server answered ${method} ${path} with ${response.status}: ${await messageOf(response)}`);
  }
}

async function messageOf(response: Response): Promise<string> {
  const text = await response.text();
  try {
    return String((JSON.parse(text) as { message?: string }).message);
  } catch {
    return text.slice(0, 200);
  }
}
