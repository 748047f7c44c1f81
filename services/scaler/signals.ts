import { workloadToken } from '@somagent/kit';
import type { Connection } from '@temporalio/client';
import type { Backlog, ModelLoad } from './decide.ts';

/** Kinds of task queues by their number in Temporal's API. */
const kinds = { workflow: 1, activity: 2 } as const;

/** Reads what waits in a task queue: its workflow and its activity tasks together. */
export class TaskQueue {
  readonly #connection: Connection;
  readonly #namespace: string;
  readonly #name: string;

  constructor(connection: Connection, namespace: string, name: string) {
    this.#connection = connection;
    this.#namespace = namespace;
    this.#name = name;
  }

  /** @throws Error when Temporal does not answer. */
  async backlog(): Promise<Backlog> {
    const parts = await Promise.all(Object.values(kinds).map((kind) => this.#read(kind)));
    return parts.reduce((sum, part) => ({
      tasks: sum.tasks + part.tasks,
      ageSeconds: Math.max(sum.ageSeconds, part.ageSeconds),
      addRate: sum.addRate + part.addRate,
      dispatchRate: sum.dispatchRate + part.dispatchRate,
    }));
  }

  async #read(taskQueueType: number): Promise<Backlog> {
    const { stats } = await this.#connection.withDeadline(Date.now() + 3000, () =>
      this.#connection.workflowService.describeTaskQueue({
        namespace: this.#namespace,
        taskQueue: { name: this.#name },
        taskQueueType,
        reportStats: true,
      }),
    );
    if (!stats) throw new Error('Temporal reports no statistics of task queues: it has to be 1.26 or newer');
    const { seconds, nanos } = stats.approximateBacklogAge ?? {};
    return {
      tasks: Number(stats.approximateBacklogCount ?? 0),
      ageSeconds: Number(seconds ?? 0) + Number(nanos ?? 0) / 1e9,
      addRate: stats.tasksAddRate ?? 0,
      dispatchRate: stats.tasksDispatchRate ?? 0,
    };
  }
}

/** Where the figures of the model are. */
export interface ModelEndpoint {
  /** Address of its API, ending in /v1. */
  readonly url: string;
  readonly tokenFile: string;
  readonly fetch: typeof fetch;
}

/** Asks the model how much it has to do. @throws Error when it does not answer or its figures are not there. */
export async function modelLoad({ url, tokenFile, fetch }: ModelEndpoint): Promise<ModelLoad> {
  const response = await fetch(`${url.replace(/\/v1$/, '')}/metrics`, {
    headers: { authorization: `Bearer ${workloadToken(tokenFile)}` },
    signal: AbortSignal.timeout(3000),
  });
  if (!response.ok) throw new Error(`the model answered ${response.status}`);
  const text = await response.text();
  return {
    ongoing: sumOf(text, 'slm_slots_busy'),
    waiting: sumOf(text, 'slm_waiting'),
    replicas: sumOf(text, 'slm_replicas'),
  };
}

/**
 * Sum of a gauge over all its labels, in Prometheus' text format.
 * @throws Error when the text has no such gauge: nothing to do looks otherwise.
 */
export function sumOf(text: string, name: string): number {
  const line = new RegExp(`^${name}(?:\\{[^}]*\\})? ([0-9.eE+-]+)`, 'gm');
  const values = [...text.matchAll(line)].map(([, value]) => Number(value));
  if (values.length > 0 && values.every(Number.isFinite)) return values.reduce((sum, value) => sum + value, 0);
  // A gauge with labels has no line before its first use.
  if (text.includes(`# TYPE ${name} gauge`)) return 0;
  throw new Error(`the figures of the model have no ${name}: is it a newer or older version?`);
}
