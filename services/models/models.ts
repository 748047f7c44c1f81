import type { Logger } from '@somagent/kit';
import { AnthropicProvider } from './anthropic-provider.ts';
import type { Ask } from './attempt.ts';
import { type Asked, Call, type Chain } from './call.ts';
import type { ModelsConfig, ProviderConfig } from './config.ts';
import { completionBound, costOf, promptBound } from './cost.ts';
import { ModelError } from './errors.ts';
import { Allowance } from './latency.ts';
import { Link } from './link.ts';
import { OpenAiProvider } from './openai-provider.ts';
import { traced } from './trace.ts';
import type {
  CallOptions,
  ChatChunk,
  ChatRequest,
  Embeddings,
  EmbedRequest,
  Estimate,
  ModelDescription,
  Models,
  Provider,
} from './types.ts';

/** Options of {@link createModels}. */
export interface ModelsOptions {
  /** Where it says why another provider than the first answered. */
  readonly log: Logger;
}

/** Every model of a configuration; see {@link readModelsFile}. Close it at the end. */
export function createModels(config: ModelsConfig, options: ModelsOptions): Models {
  return new ConfiguredModels(config, options.log);
}

class ConfiguredModels implements Models {
  readonly list: readonly ModelDescription[];
  readonly #providers: readonly Provider[];
  readonly #chains: ReadonlyMap<string, Chain>;
  readonly #log: Logger;

  constructor(config: ModelsConfig, log: Logger) {
    const links = new Links(config);
    const chains = Object.entries(config.models).map(([name, model]): Chain => {
      const { share = 0 } = model.hedge ?? {};
      const chain = model.chain.map((link) => links.of(link.provider, link.model));
      return { name, config: model, links: [...new Set(chain)], hedges: new Allowance(share) };
    });
    this.#providers = links.providers;
    this.#chains = new Map(chains.map((chain) => [chain.name, chain]));
    this.#log = log;
    this.list = chains.map((chain) => ({
      name: chain.name,
      kind: chain.config.kind,
      providers: chain.links.map(({ provider }) => provider.name),
    }));
  }

  estimate(request: ChatRequest | EmbedRequest): Estimate {
    const chain = this.#chain(request.model, 'input' in request ? 'embedding' : 'chat');
    const { bound, costMicros } = askedOf(chain, request, nobody);
    const billed = chain.links.some((link) => link.billed);
    return { tokens: bound.promptTokens + bound.completionTokens, costMicros, billed };
  }

  complete(request: ChatRequest, options: CallOptions): AsyncIterable<ChatChunk> {
    const chain = this.#chain(request.model, 'chat');
    const asked = { ...request, max_tokens: request.max_tokens ?? chain.config.maxTokens };
    const ask: Ask = (link, signal, deadlineMs) =>
      link.provider.complete({ ...asked, model: link.model }, signal, deadlineMs);
    return traced(chain.name, new Call(chain, askedOf(chain, asked, ask), options), options, this.#log);
  }

  async embed(request: EmbedRequest, options: CallOptions): Promise<Embeddings> {
    const chain = this.#chain(request.model, 'embedding');
    const answers: Embeddings[] = [];
    const ask: Ask = (link, signal) => embedding(link, request, signal, answers);
    const call = new Call(chain, askedOf(chain, request, ask), options);
    for await (const { costMicros = 0, reasons = [] } of traced(chain.name, call, options, this.#log)) {
      const [answer] = answers;
      if (answer !== undefined) return { ...answer, costMicros, reasons };
    }
    throw new ModelError('unavailable', `${chain.name}: no embeddings`);
  }

  async close(): Promise<void> {
    await Promise.all(this.#providers.map((provider) => provider.close()));
  }

  #chain(name: string, kind: 'chat' | 'embedding'): Chain {
    const chain = this.#chains.get(name);
    if (chain?.config.kind === kind) return chain;
    const known = this.list.filter((model) => model.kind === kind).map((model) => model.name);
    const fix = known.length === 0 ? 'none is configured' : `use one of: ${known.join(', ')}`;
    throw new ModelError('unknown_model', `there is no ${kind} model "${name}": ${fix}`);
  }
}

const nobody: Ask = () => {
  throw new Error('an estimate asks nobody');
};

/** Every pair of provider and model once, however many chains use it: they share its health. */
class Links {
  readonly providers: readonly Provider[];
  readonly #config: ModelsConfig;
  readonly #links = new Map<string, Link>();

  constructor(config: ModelsConfig) {
    this.#config = config;
    const used = Object.values(config.models).flatMap(({ chain }) => chain);
    this.providers = Object.entries(config.providers).map(([name, provider]) => {
      const models = used.flatMap((link) => (link.provider === name ? [link.model] : []));
      return createProvider(name, [...new Set(models)], provider);
    });
  }

  of(provider: string, model: string): Link {
    const key = JSON.stringify([provider, model]);
    const found = this.#links.get(key) ?? this.#create(provider, model);
    this.#links.set(key, found);
    return found;
  }

  #create(name: string, model: string): Link {
    const config = this.#config.providers[name];
    const provider = this.providers.find((one) => one.name === name);
    if (config === undefined || provider === undefined) throw new Error(`provider ${name} is not configured`);
    return new Link(provider, model, config);
  }
}

/** The adapter of a provider. */
export function createProvider(name: string, models: readonly string[], config: ProviderConfig): Provider {
  const { url, caFile } = config;
  const common = { name, models, url, caFile };
  switch (config.kind) {
    case 'slm':
      return new OpenAiProvider({ ...common, credentialFile: config.tokenFile, ours: true });
    case 'openai':
      return new OpenAiProvider({ ...common, credentialFile: config.credentialFile, ours: false });
    case 'anthropic':
      return new AnthropicProvider({ ...common, credentialFile: config.credentialFile });
  }
}

/** The bounds of a request on its chain: every attempt may read the prompt, one writes the whole answer. */
function askedOf({ config, links }: Chain, request: ChatRequest | EmbedRequest, ask: Ask): Asked {
  const bound = { promptTokens: promptBound(request), completionTokens: completionBound(request, config) };
  const most = (tokens: typeof bound) => Math.max(...links.map(({ prices }) => costOf(tokens, prices)));
  const prompts = most({ ...bound, completionTokens: 0 }) * (config.attempts - 1);
  const costMicros = Math.min(prompts + most(bound), config.maxCostMicros ?? Number.MAX_SAFE_INTEGER);
  return { ask, bound, costMicros };
}

/** Embeddings as an answer of one piece, so that they meet the same limits, fallbacks and accounts. */
async function* embedding(
  { provider, model }: Link,
  request: EmbedRequest,
  signal: AbortSignal,
  answers: Embeddings[],
): AsyncGenerator<ChatChunk> {
  if (provider.embed === undefined) throw new ModelError('unsupported', `${provider.name}: embeds nothing`);
  const answer = await provider.embed({ ...request, model }, signal);
  answers.push(answer);
  const usage = { promptTokens: answer.usage.promptTokens, completionTokens: 0 };
  yield { text: '', finish: 'stop', usage, provider: provider.name, model };
}
