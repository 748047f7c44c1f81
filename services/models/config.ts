import { readFileSync } from 'node:fs';
import { ConfigError, httpsUrl, reasonOf } from '@somagent/kit';
import { z } from 'zod';

const name = (what: string) =>
  z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$/, 'must begin with a letter or digit and have at most 128 characters')
    .describe(`${what}, 1 to 128 letters, digits or any of . _ : / -`);
const file = (what: string) => z.string().startsWith('/', 'must be an absolute path').describe(what);
const milliseconds = (what: string) => z.int().min(1).max(3_600_000).describe(`${what}, 1 to 3600000 milliseconds`);
const micros = (what: string) =>
  z.int().min(0).describe(`${what}, whole millionths of a US dollar (3 dollars are 3000000)`);

/** Prices of one model, whole millionths of a US dollar per million tokens. */
const prices = z.strictObject({
  prompt: micros('the price of a million tokens of prompt'),
  completion: micros('the price of a million tokens of answer').default(0),
});

const timeouts = z.strictObject({
  /** From the request until its first token. */
  firstTokenMs: milliseconds('the longest wait for a first token').default(30_000),
  /** Between two pieces of an answer. */
  idleMs: milliseconds('the longest silence in an answer').default(15_000),
  /** Of a whole answer. */
  totalMs: milliseconds('the longest time of an answer').default(120_000),
});

const breaker = z.strictObject({
  /** Share of the last requests that fails before the breaker opens. */
  threshold: z.number().gt(0).lt(1).describe('a share of failures, more than 0 and less than 1').default(0.5),
  /** How many requests are looked back on. */
  window: z.int().min(1).max(1000).describe('a number of requests, 1 to 1000').default(20),
  /** Fewer requests than this never open it. */
  minimumRequests: z.int().min(1).max(1000).describe('a number of requests, 1 to 1000').default(5),
  /** Time until the first probe; it doubles with each probe that fails. */
  halfOpenMs: milliseconds('the time until a probe').default(1000),
  maxHalfOpenMs: milliseconds('the longest time until a probe').default(5000),
});

const common = {
  url: httpsUrl('the https address of the endpoint'),
  caFile: file('the PEM file of the authority that signed its certificate; leave it out for public ones').optional(),
  prices: z
    .record(name('a name of a model'), prices)
    .describe('prices by the name of the model, with its prompt and completion price')
    .default({}),
  timeouts: timeouts.prefault({}),
  breaker: breaker.prefault({}),
};

/** Our own model server: it knows its callers by the tokens of their workloads. */
const slm = z.strictObject({
  kind: z.literal('slm'),
  ...common,
  tokenFile: file('the file with the token of this workload'),
});
/** Any server that speaks OpenAI's API; its address ends in /v1 or where its documentation says. */
const openai = z.strictObject({
  kind: z.literal('openai'),
  ...common,
  credentialFile: file('the file with the API key'),
});
/** A server that speaks Anthropic's Messages API; its address is without /v1. */
const anthropic = z.strictObject({
  kind: z.literal('anthropic'),
  ...common,
  credentialFile: file('the file with the API key'),
});

const provider = z.discriminatedUnion('kind', [slm, openai, anthropic], 'use slm, openai or anthropic');

const link = z.strictObject({
  provider: name('the name of a provider of this file'),
  model: name("the provider's own name of the model"),
});

const hedge = z.strictObject({
  /** Share of requests that may get a second attempt. */
  share: z.number().gt(0).max(0.5).describe('the share of requests that may be hedged, more than 0, at most 0.5'),
  /** Quantile of the measured times until a first token after which a second attempt begins. */
  quantile: z.number().min(0.5).lt(1).describe('a quantile, 0.5 or more and less than 1').default(0.95),
  /** Never sooner than this, however fast the provider is. */
  minimumMs: milliseconds('the shortest wait before a second attempt').default(20),
  /** Fewer measurements than this say nothing. */
  minimumSamples: z.int().min(5).max(512).describe('a number of measurements, 5 to 512').default(20),
});

const model = z.strictObject({
  kind: z.enum(['chat', 'embedding']).describe('chat or embedding').default('chat'),
  chain: z.array(link).min(1).max(8).describe('1 to 8 pairs of provider and model, the first choice first'),
  /** Of the whole chain. */
  timeoutMs: milliseconds('the time for the whole chain').default(100_000),
  /** Attempts of one request, hedges included. */
  attempts: z.int().min(1).max(16).describe('a number of attempts, 1 to 16').default(4),
  /** Answers are no longer than this unless the request says so. */
  maxTokens: z.int().min(1).max(1_000_000).describe('the most tokens of an answer').default(1024),
  maxCostMicros: micros('the most that one request may cost').optional(),
  hedge: hedge.optional(),
});

const schema = z.strictObject({
  providers: z.record(name('a name of a provider'), provider).describe('providers by name'),
  models: z.record(name('a public name of a model'), model).describe('models by public name'),
});

/** Configuration of {@link createModels}: what is in a file of models. */
export type ModelsConfig = z.output<typeof schema>;
export type ProviderConfig = ModelsConfig['providers'][string];
export type ModelConfig = ModelsConfig['models'][string];
export type HedgeConfig = NonNullable<ModelConfig['hedge']>;
export type BreakerConfig = ProviderConfig['breaker'];
export type Timeouts = ProviderConfig['timeouts'];
export type Prices = ProviderConfig['prices'][string];

/**
 * Reads a file of models.
 * @throws ConfigError with a line for each wrong field: its path, its value, what to set
 */
export function readModelsFile(path: string): ModelsConfig {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new ConfigError([`the file of models ${path} cannot be read: ${reasonOf(error)}. Mount a file with JSON.`]);
  }
  return parseModels(content, path);
}

/** Checks a configuration of models. @throws ConfigError */
export function parseModels(content: unknown, source = 'models'): ModelsConfig {
  const result = schema.safeParse(content);
  const problems = result.success
    ? inconsistencies(result.data)
    : result.error.issues.flatMap((issue) => describe(issue, content));
  if (!result.success || problems.length > 0) throw new ConfigError(problems.map((line) => `${source}: ${line}`));
  return result.data;
}

function describe(issue: z.core.$ZodIssue, content: unknown): string[] {
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => `${[...path, key].join('.')} is unknown. Remove it or mend its spelling.`);
  }
  const value = path.reduce<unknown>((at, key) => (isRecord(at) ? at[key] : undefined), content);
  const state = value === undefined ? 'is not set' : `is ${JSON.stringify(value)}: ${issue.message}`;
  const fix = fixOf(path);
  return [`${path.join('.') || 'the file'} ${state}.${fix === undefined ? '' : ` Set it to ${fix}.`}`];
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

/** The description of the field at a path. */
function fixOf(path: readonly string[]): string | undefined {
  let fields: readonly z.core.$ZodType[] = [schema];
  for (const key of path) fields = fields.flatMap((field) => childrenOf(field, key));
  return fields.map(descriptionOf).find((text) => text !== undefined);
}

function childrenOf(field: z.core.$ZodType, key: string): readonly z.core.$ZodType[] {
  const inner = unwrapped(field);
  if (inner instanceof z.ZodObject) return Object.hasOwn(inner.shape, key) ? [inner.shape[key]] : [];
  if (inner instanceof z.ZodRecord) return [inner.valueType as z.core.$ZodType];
  if (inner instanceof z.ZodArray) return [inner.element as z.core.$ZodType];
  return inner instanceof z.ZodUnion ? inner.options.flatMap((option) => childrenOf(option, key)) : [];
}

function unwrapped(field: z.core.$ZodType): z.core.$ZodType {
  const wraps = field instanceof z.ZodDefault || field instanceof z.ZodPrefault || field instanceof z.ZodOptional;
  return wraps ? unwrapped(field.unwrap()) : field;
}

function descriptionOf(field: z.core.$ZodType): string | undefined {
  if (field instanceof z.ZodType && field.description !== undefined) return field.description;
  const inner = unwrapped(field);
  return inner === field ? undefined : descriptionOf(inner);
}

/** What no single field shows. */
function inconsistencies({ providers, models }: ModelsConfig): string[] {
  return Object.entries(models).flatMap(([publicName, model]) => {
    const at = `models.${publicName}`;
    const links = model.chain.flatMap((link, index) => linkProblems(`${at}.chain.${index}`, link, model, providers));
    return [...links, ...embeddingProblems(at, model)];
  });
}

function linkProblems(
  at: string,
  { provider, model }: { readonly provider: string; readonly model: string },
  { kind }: ModelConfig,
  providers: ModelsConfig['providers'],
): string[] {
  const found = Object.hasOwn(providers, provider) ? providers[provider] : undefined;
  if (found === undefined) {
    const known = Object.keys(providers).join(', ') || 'none is there: add one';
    return [`${at}.provider is "${provider}". Set it to one of: ${known}.`];
  }
  if (kind === 'embedding' && found.kind === 'anthropic') {
    return [`${at}.provider is "${provider}", which embeds nothing. Set it to one that does.`];
  }
  // Whoever pays for a model must say what: budgets would be blind.
  if (found.kind !== 'slm' && !Object.hasOwn(found.prices, model)) {
    return [`providers.${provider}.prices.${model} is not set. Set it to its prices; 0 where it costs nothing.`];
  }
  return [];
}

function embeddingProblems(at: string, { chain, kind, hedge }: ModelConfig): string[] {
  if (kind === 'chat') return [];
  // Vectors of two models can't be compared: a fallback would spoil every index without an error.
  const mixed = new Set(chain.map(({ model }) => model)).size > 1;
  return [
    ...(mixed ? [`${at}.chain names several models. Set it to one: vectors of two can't be compared.`] : []),
    ...(hedge === undefined ? [] : [`${at}.hedge is set. Remove it: embeddings are not hedged.`]),
  ];
}
