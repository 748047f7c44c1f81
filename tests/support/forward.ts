import { spawn } from 'node:child_process';
import { toolPath } from '../../cluster/toolchain.ts';
import { kubeconfig } from './kubectl.ts';

/** A port of this machine that leads to a service until it is disposed of. */
export interface Forwarded extends AsyncDisposable {
  readonly port: number;
}

/** Opens a port on the loopback interface that leads to a Service of the cluster. */
export async function forward(namespace: string, service: string, port: number): Promise<Forwarded> {
  const args = ['--kubeconfig', kubeconfig, 'port-forward', '-n', namespace, `service/${service}`, `:${port}`];
  const child = spawn(await toolPath('kubectl'), args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      const found = /Forwarding from 127\.0\.0\.1:(\d+)/.exec(said)?.[1];
      if (found !== undefined) resolve(Number(found));
    });
  }
  child.once('error', reject);
  child.once('exit', (code) => reject(new Error(`no way to ${namespace}/${service} (exit code ${code}): ${said}`)));
  return {
    port: await promise,
    async [Symbol.asyncDispose]() {
      child.kill();
    },
  };
}
