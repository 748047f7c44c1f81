import { get, kubectl } from '../../support/kubectl.ts';
import { eventually } from '../../support/wait.ts';

/** Something that is taken away, and how it comes back. */
export interface Fault {
  readonly name: string;
  /** How long it stays away, seconds; what is killed comes back by itself and is watched for as long. */
  readonly seconds: number;
  inject(): Promise<void>;
  /** Resolves when it is back. */
  mend(): Promise<void>;
}

/** Takes a Deployment away. */
export function withoutDeployment(name: string, namespace: string, deployment: string, seconds: number): Fault {
  const object = `deployment/${deployment}`;
  let replicas = '1';
  return {
    name,
    seconds,
    inject: async () => {
      const { spec } = await get<{ spec: { replicas: number; selector: { matchLabels: object } } }>(
        object,
        '-n',
        namespace,
      );
      replicas = String(spec.replicas);
      const labels = Object.entries(spec.selector.matchLabels).map(([key, value]) => `${key}=${value}`);
      await kubectl('scale', '-n', namespace, object, '--replicas=0');
      await kubectl('wait', '-n', namespace, '--for=delete', 'pod', '-l', labels.join(','), '--timeout=120s');
    },
    mend: async () => {
      await kubectl('scale', '-n', namespace, object, `--replicas=${replicas}`);
      await kubectl('wait', '-n', namespace, '--for=condition=Available', object, '--timeout=300s');
    },
  };
}

/** Takes all pods of a StatefulSet away, or kills one without warning. */
export function withoutStatefulSet(name: string, namespace: string, set: string, seconds: number): Fault {
  const object = `statefulset/${set}`;
  let replicas = 0;
  return {
    name,
    seconds,
    inject: async () => {
      ({ replicas } = (await get<{ spec: { replicas: number } }>(object, '-n', namespace)).spec);
      await kubectl('scale', '-n', namespace, object, '--replicas=0');
      for (let pod = 0; pod < replicas; pod += 1) {
        await kubectl('wait', '-n', namespace, '--for=delete', `pod/${set}-${pod}`, '--timeout=180s');
      }
    },
    mend: async () => {
      await kubectl('scale', '-n', namespace, object, `--replicas=${replicas}`);
      await kubectl('rollout', 'status', '-n', namespace, object, '--timeout=300s');
    },
  };
}

/** Kills a pod without warning; whoever owns it makes another. */
export function killedPod(name: string, namespace: string, find: () => Promise<string>, seconds: number): Fault {
  let pod = '';
  let uid = '';
  const read = () => get<{ metadata: { uid: string }; status: object }>('pod', pod, '-n', namespace);
  return {
    name,
    seconds,
    inject: async () => {
      pod = await find();
      uid = (await read()).metadata.uid;
      await kubectl('delete', 'pod', '-n', namespace, pod, '--grace-period=0', '--force');
    },
    mend: async () => {
      await eventually(`another pod ${pod}`, 120, async () => ((await read()).metadata.uid === uid ? undefined : true));
      await kubectl('wait', '-n', namespace, '--for=condition=Ready', `pod/${pod}`, '--timeout=300s');
    },
  };
}

/** Name of the pod of Postgres that takes writes. */
export async function primaryPod(namespace: string): Promise<string> {
  const selector = ['-n', namespace, '-l', 'role=primary'];
  const { items } = await get<{ items: { metadata: { name: string } }[] }>('pods', ...selector);
  const [pod] = items;
  if (pod === undefined) throw new Error(`Postgres in ${namespace} has no primary`);
  return pod.metadata.name;
}
