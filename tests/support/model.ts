import { kubectl } from './kubectl.ts';

const namespace = 'local-runtime';

/** Python that sends a signal to every replica of the model in its pod; the pod has no `kill` of its own. */
const signalReplicas = (signal: 'SIGSTOP' | 'SIGCONT') => `
import glob, os, signal
for path in glob.glob('/proc/[0-9]*/cmdline'):
    try:
        with open(path) as file:
            title = file.read()
    except OSError:
        continue
    if title.startswith('ray::ServeReplica'):
        os.kill(int(path.split('/')[2]), signal.${signal})
        print(title)
`;

async function signal(name: 'SIGSTOP' | 'SIGCONT'): Promise<number> {
  const selector = 'app.kubernetes.io/instance=slm';
  const pods = await kubectl(
    'get',
    'pods',
    '-n',
    namespace,
    '-l',
    selector,
    '-o',
    'jsonpath={.items[*].metadata.name}',
  );
  const hits = await Promise.all(
    pods.split(' ').map((pod) => kubectl('exec', '-n', namespace, pod, '--', 'python3', '-c', signalReplicas(name))),
  );
  return hits.filter((titles) => titles !== '').length;
}

/** Freezes the real model until the result is disposed of: a turn that has begun waits for its tokens. */
export async function freezeModel(): Promise<AsyncDisposable> {
  if ((await signal('SIGSTOP')) === 0) throw new Error(`no replica of the model found in the pods of ${namespace}`);
  return {
    async [Symbol.asyncDispose]() {
      // A pod that was killed meanwhile has nothing left to wake.
      await signal('SIGCONT').catch(() => undefined);
    },
  };
}
