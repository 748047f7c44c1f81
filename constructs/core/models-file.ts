import type { Construct } from 'constructs';
import { ContentConfigMap } from './content-config-map.ts';
import type { Identity } from './labels.ts';
import type { FilesMount } from './pod.ts';
import { workloadTokenPath } from './pod.ts';

/** Prices of a model, whole millionths of a US dollar per million tokens. */
export interface ModelPrices {
  readonly prompt: number;
  /** @default 0 */
  readonly completion?: number;
}

/** A server of models within the region, which knows its clients by their workload identity. */
export interface ModelServer {
  /** Name of the provider. */
  readonly name: string;
  /** Our own model server, or another that speaks OpenAI's API. */
  readonly kind: 'slm' | 'openai';
  /** Base address of the API, ending in /v1. */
  readonly url: string;
  /** Target of the workload token that it admits, such as `slm`. */
  readonly target: string;
  readonly modelKind: 'chat' | 'embedding';
  /** Names of its models, which are public under the same names. */
  readonly models: readonly string[];
}

/** What running a model of one's own costs, roughly: budgets in money then hold for it too. */
const ownPrices: ModelPrices = { prompt: 50_000, completion: 200_000 };

/** Path of the file in a pod. */
export const MODELS_FILE = '/config/models/models.json';

/** The file of models (services/models) for servers within the region, and where it is mounted. */
export function modelsFile(
  scope: Construct,
  identity: Identity,
  servers: readonly ModelServer[],
  prices: Readonly<Record<string, ModelPrices>> = {},
): FilesMount {
  const priced = (model: string) => [model, prices[model] ?? ownPrices] as const;
  const providers = servers.map(({ name, kind, url, target, models }) => {
    const credential = { [kind === 'slm' ? 'tokenFile' : 'credentialFile']: workloadTokenPath(target) };
    const common = { url, caFile: '/secrets/ca/ca.crt', prices: Object.fromEntries(models.map(priced)) };
    return [name, { kind, ...common, ...credential }] as const;
  });
  const models = servers.flatMap(({ name, modelKind, models }) =>
    models.map((model) => [model, { kind: modelKind, chain: [{ provider: name, model }] }] as const),
  );
  const content = { providers: Object.fromEntries(providers), models: Object.fromEntries(models) };
  const config = new ContentConfigMap(scope, 'models', {
    ...identity,
    name: `${identity.instance}-models`,
    files: { 'models.json': `${JSON.stringify(content, null, 2)}\n` },
  });
  return { path: '/config/models', config };
}
