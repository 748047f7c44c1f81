import { type RequestOptions, request } from 'node:https';
import type { Writable } from 'node:stream';
import { CoreV1Api, type KubeConfig, Log, type V1Pod } from '@kubernetes/client-node';
import { loadKubeconfig } from '../stacks/runner/kubeconfig.ts';
import { CliFailure, exitCodes, reasonOf } from './failure.ts';

/** The part of a Kubernetes cluster that the command reads. */
export interface Cluster {
  /** Decoded keys of a Secret. @throws CliFailure when it is absent or may not be read. */
  secret(namespace: string, name: string): Promise<Readonly<Record<string, string>>>;
  /** Pods with all these labels, in every namespace. */
  pods(labelSelector: string): Promise<readonly V1Pod[]>;
  /**
   * Sends a request to a pod through the API server, without any credential of the caller.
   * @param target `:8081` for HTTP, `https:8443` for HTTPS
   */
  askPod(pod: V1Pod, target: string, method: string, path: string): Promise<PodAnswer>;
  /** Copies a container's log to a stream until it ends. @returns a function that stops it */
  log(pod: V1Pod, container: string, to: Writable, options: LogOptions): Promise<() => void>;
}

/** An answer of a pod. */
export interface PodAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: string;
}

export interface LogOptions {
  readonly follow: boolean;
  /** Lines from the end; undefined: all that the node still has. */
  readonly tailLines: number | undefined;
}

/** Opens the cluster of a kubeconfig; undefined means kubectl's own rules. */
export function openCluster(kubeconfig: string | undefined, context: string | undefined): Cluster {
  try {
    return new KubernetesCluster(loadKubeconfig(kubeconfig, context));
  } catch (error) {
    throw new CliFailure(reasonOf(error), 'give another: --kubeconfig <file> --context <name>', exitCodes.usage);
  }
}

class KubernetesCluster implements Cluster {
  readonly #config: KubeConfig;
  readonly #api: CoreV1Api;
  readonly #address: string;

  constructor(config: KubeConfig) {
    this.#config = config;
    this.#api = config.makeApiClient(CoreV1Api);
    this.#address = config.getCurrentCluster()?.server ?? '(no cluster in the kubeconfig)';
  }

  async secret(namespace: string, name: string): Promise<Readonly<Record<string, string>>> {
    const { data = {} } = await this.#ask(`Secret ${namespace}/${name}`, () =>
      this.#api.readNamespacedSecret({ namespace, name }),
    );
    return Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
    );
  }

  async pods(labelSelector: string): Promise<readonly V1Pod[]> {
    return (await this.#ask('pods', () => this.#api.listPodForAllNamespaces({ labelSelector }))).items;
  }

  async askPod(pod: V1Pod, target: string, method: string, path: string): Promise<PodAnswer> {
    const { name = '', namespace = '' } = pod.metadata ?? {};
    const [scheme, port] = target.split(':');
    const place = `${scheme === '' ? '' : `${scheme}:`}${name}:${port}`;
    const url = new URL(`${this.#address}/api/v1/namespaces/${namespace}/pods/${place}/proxy${path}`);
    const options: RequestOptions = { method, timeout: 10_000 };
    await this.#config.applyToHTTPSOptions(options);
    return this.#ask(`pod ${namespace}/${name}`, () => exchange(url, options));
  }

  async log(pod: V1Pod, container: string, to: Writable, options: LogOptions): Promise<() => void> {
    const { name = '', namespace = '' } = pod.metadata ?? {};
    const tail = options.tailLines === undefined ? {} : { tailLines: options.tailLines };
    const controller = await new Log(this.#config).log(namespace, name, container, to, {
      follow: options.follow,
      ...tail,
    });
    return () => controller.abort();
  }

  async #ask<T>(object: string, call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw explain(object, this.#address, error);
    }
  }
}

function explain(object: string, address: string, error: unknown): CliFailure {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  if (code === 404)
    return new CliFailure(`${object} is absent`, 'soma status shows what is not up yet', exitCodes.absent);
  if (code === 401 || code === 403) {
    return new CliFailure(
      `the kubeconfig's user may not read ${object} (${code})`,
      'use a context that may',
      exitCodes.refused,
    );
  }
  if (typeof code === 'number')
    return new CliFailure(`the Kubernetes API answered ${code} for ${object}`, 'soma status');
  return new CliFailure(
    `the Kubernetes API at ${address} does not answer: ${reasonOf(error)}`,
    'soma status, then soma up',
    exitCodes.unreachable,
  );
}

function exchange(url: URL, options: RequestOptions): Promise<PodAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, options, (incoming) => {
      let body = '';
      incoming.setEncoding('utf8').on('data', (piece: string) => {
        body += piece;
      });
      const headers = incoming.headers as Readonly<Record<string, string | undefined>>;
      incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, headers, body })).on('error', reject);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 10 s')));
    outgoing.on('error', reject).end();
  });
}
