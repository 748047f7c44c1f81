import { get, kubectl } from './kubectl.ts';

/** What a pod has logged. */
export interface PodLog {
  /** `<namespace>/<name>` */
  readonly pod: string;
  readonly text: string;
}

interface Pods {
  readonly items: readonly {
    readonly metadata: { readonly namespace: string; readonly name: string };
    readonly status: { readonly phase: string };
  }[];
}

/** The logs of all containers of every pod of the platform. @param since a time, ISO 8601 */
export async function platformLogs(since: string): Promise<PodLog[]> {
  const { items } = await get<Pods>('pods', '-A', '-l', 'app.kubernetes.io/part-of=somagent');
  const started = items.filter(({ status }) => status.phase !== 'Pending');
  const logs: PodLog[] = [];
  for (const { metadata } of started) {
    const { namespace, name } = metadata;
    const text = await kubectl('logs', '-n', namespace, name, '--all-containers', `--since-time=${since}`, '--tail=-1');
    logs.push({ pod: `${namespace}/${name}`, text });
  }
  return logs;
}
