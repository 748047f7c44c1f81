import { kubectl } from './kubectl.ts';

const namespace = 'local-runtime';

type Signal = 'SIGSTOP' | 'SIGCONT' | 'SIGKILL';

/**
 * Python that sends a signal to the replicas of models in its pod, at most so many; the pod has no `kill` of its own.
 * @param title how titles go on after `ray::ServeReplica:`, as a regular expression; empty: every one, the router's too
 */
const signalReplicas = (signal: Signal, title: string, most: number) => `
import glob, os, re, signal
hit = 0
for path in glob.glob('/proc/[0-9]*/cmdline'):
    try:
        with open(path) as file:
            title = file.read()
    except OSError:
        continue
    if re.match(r'ray::ServeReplica:${title}', title) and hit < ${most}:
        os.kill(int(path.split('/')[2]), signal.${signal})
        print(title)
        hit += 1
`;

async function pods(): Promise<readonly string[]> {
  const path = '-o=jsonpath={.items[*].metadata.name}';
  const names = await kubectl('get', 'pods', '-n', namespace, '-l', 'app.kubernetes.io/instance=slm', path);
  return names.split(' ').filter((name) => name !== '');
}

/** @returns the titles of the replicas that got the signal */
async function signalIn(pod: string, name: Signal, title = '', most = 64): Promise<readonly string[]> {
  const script = signalReplicas(name, title, most);
  const titles = await kubectl('exec', '-n', namespace, pod, '--', 'python3', '-c', script);
  return titles.split('\n').filter((line) => line !== '');
}

async function signal(name: Signal): Promise<number> {
  const hits = await Promise.all((await pods()).map((pod) => signalIn(pod, name)));
  return hits.filter((titles) => titles.length > 0).length;
}

/**
 * Kills one replica of a model without warning, with whatever it is saying.
 * @returns its title; undefined while there is none
 */
export async function killReplica(model: string): Promise<string | undefined> {
  for (const pod of await pods()) {
    // The version follows the name: `soma-tiny-q8` is another model.
    const [title] = await signalIn(pod, 'SIGKILL', `model-${model}-[0-9a-f]{10}:`, 1);
    if (title !== undefined) return title;
  }
  return undefined;
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
