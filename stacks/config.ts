import * as pulumi from '@pulumi/pulumi';
import { z } from 'zod';

/** Name of the Pulumi project; every key of the configuration begins with it. */
export const projectName = 'somagent';

/** A configuration value that can't be used. The message names the key, the value, what is expected, and the fix. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(`the configuration can't be used:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
  }
}

const regionName = z.string().regex(/^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$/, {
  error: 'a DNS label of at most 30 characters: a-z, 0-9 and -, starting with a letter',
});
const url = z
  .url({ protocol: /^https$/, error: 'an https URL, such as https://gateway.example.com' })
  .refine((value) => !value.endsWith('/'), {
    error: 'an https URL without a slash at its end',
  });
/** 0 is none: a key that Pulumi.yaml declares must have a value in every stack. */
const nodePort = z
  .number()
  .int()
  .max(32_767)
  .refine((port) => port === 0 || port >= 30_000, { error: 'a node port, 30000 to 32767, or 0 for none' })
  .transform((port) => (port === 0 ? undefined : port))
  .optional();

/**
 * Every key, as Pulumi.yaml declares it (a test compares the two). A text may hold `{region}`, which stands for the
 * name of each region: Pulumi's project schema knows no nested structures, and one line per environment reads better.
 */
const schema = z.strictObject({
  /** Registry of the images, with a path if it is a mirror: `localhost:5000`, `mirror.example.com/somagent-cache`. */
  registry: z
    .string()
    .regex(/^[\w.-]+(:\d+)?(\/[\w.-]+)*$/, { error: 'a registry without scheme, such as localhost:5000' }),
  /** Names of the regions, in the order of deployment. */
  regions: z
    .array(regionName)
    .min(1)
    .refine((names) => new Set(names).size === names.length, { error: 'region names, each once' }),
  /** Context of the kubeconfig; absent: the current one. */
  context: z.string().min(1).optional(),
  /** Path or text of a kubeconfig; absent: the standard places. */
  kubeconfig: z.string().min(1).optional(),
  /** How much of everything: a row of components/region/sizes.ts. */
  size: z.enum(['small', 'medium', 'large']).default('small'),
  /** Where clients reach the gateway. */
  gatewayUrl: z.string(),
  /** Where clients reach Keycloak; the issuer of every token begins with it. */
  identityUrl: z.string(),
  /** Where clients reach the identity service: tenants, people, keys, the kill switch. */
  accountsUrl: z.string(),
  /** Where clients reach the audit log. */
  auditUrl: z.string(),
  /** Where clients reach what agents remember, the figures, and training mode. */
  memoryUrl: z.string(),
  analyticsUrl: z.string(),
  trainingUrl: z.string(),
  /** Port of every node that leads to the gateway, where no load balancer does. */
  gatewayNodePort: nodePort,
  identityNodePort: nodePort,
  accountsNodePort: nodePort,
  auditNodePort: nodePort,
  memoryNodePort: nodePort,
  analyticsNodePort: nodePort,
  trainingNodePort: nodePort,
  /** Where the API servers of all regions are, as CIDRs with commas between; absent: any address. */
  apiServerCidrs: z
    .string()
    .transform((text) => text.split(','))
    .pipe(z.array(z.cidrv4({ error: 'CIDRs with commas between, such as 10.0.0.1/32,10.96.0.1/32' })))
    .optional(),
  /** Absent: the cluster's default. */
  storageClass: z.string().min(1).optional(),
  /** Ray by its operator, or by plain pods. */
  rayRenderer: z.enum(['pods', 'kuberay']).default('pods'),
  /** Kafka by its operator, or by plain pods. */
  kafkaRenderer: z.enum(['pods', 'strimzi']).default('pods'),
  /** Qdrant's own server, or its embedded engine. */
  qdrantRenderer: z.enum(['edge', 'server']).default('edge'),
  /** ClickHouse's own server, or its embedded engine. */
  clickhouseRenderer: z.enum(['embedded', 'server']).default('embedded'),
  /** Scaling by KEDA, or by a scaler of our own. */
  scalerRenderer: z.enum(['pods', 'keda']).default('pods'),
  /** Names of the tenants whose agents get a client of their own. */
  tenants: z.array(z.string().regex(/^[a-z][a-z0-9-]{0,30}$/, { error: 'tenant names: a-z, 0-9 and -' })).min(1),
  /** Clients whose tokens the gateway must refuse; for tests. */
  probeClients: z.boolean().default(false),
});

type RawConfig = z.output<typeof schema>;

/** The keys of the configuration, without the project's name. */
export const configKeys: readonly string[] = Object.keys(schema.shape);

/** Where clients come in: the gateway, Keycloak, the identity service, the audit log, memory, analytics, training. */
const doors = ['gateway', 'identity', 'accounts', 'audit', 'memory', 'analytics', 'training'] as const;
type Door = (typeof doors)[number];
type Urls = { readonly [D in Door as `${D}Url`]: string };
type NodePorts = { readonly [D in Door as `${D}NodePort`]?: number | undefined };

/** What the configuration says about one region, placeholders filled in. */
export interface RegionConfig extends Urls, NodePorts {
  readonly name: string;
  readonly context?: string | undefined;
  readonly kubeconfig?: string | undefined;
}

/** The configuration of a stack. */
export interface StackConfig
  extends Pick<
    RawConfig,
    | 'registry'
    | 'size'
    | 'apiServerCidrs'
    | 'storageClass'
    | 'rayRenderer'
    | 'kafkaRenderer'
    | 'qdrantRenderer'
    | 'clickhouseRenderer'
    | 'scalerRenderer'
    | 'tenants'
    | 'probeClients'
  > {
  readonly regions: readonly RegionConfig[];
}

/**
 * Reads the configuration of the stack that runs. Nothing else in the program reads any.
 * @throws {ConfigError} naming every problem at once
 */
export function readConfig(): StackConfig {
  return parseConfig(ownValues(pulumi.runtime.allConfig()));
}

/** The values of this project; other namespaces, such as `kubernetes:`, belong to their providers. */
function ownValues(all: Readonly<Record<string, string>>): Record<string, string> {
  const prefix = `${projectName}:`;
  const own = Object.entries(all).filter(([key]) => key.startsWith(prefix));
  return Object.fromEntries(own.map(([key, value]) => [key.slice(prefix.length), value]));
}

/**
 * Checks values as the CLI hands them over: all of them are text, lists and numbers as JSON.
 * @throws {ConfigError}
 */
export function parseConfig(values: Readonly<Record<string, string>>): StackConfig {
  const unknown = Object.keys(values).filter((key) => !configKeys.includes(key));
  const problems = unknown.map(unknownKey);
  const known = Object.entries(values).filter(([key, value]) => !unknown.includes(key) && value !== '');
  const parsed = schema.safeParse(Object.fromEntries(known.map(([key, value]) => [key, typed(key, value)])));
  if (!parsed.success) problems.push(...new Set(parsed.error.issues.map((issue) => describeIssue(issue, values))));
  if (problems.length > 0 || !parsed.success) throw new ConfigError(problems);
  return resolve(parsed.data);
}

function resolve(raw: RawConfig): StackConfig {
  const { regions } = raw;
  const problems: string[] = [];
  const resolved = regions.map((name) => regionOf(name, raw, problems));
  const onOneCluster = new Set(resolved.map((region) => region.context)).size === 1;
  if (regions.length > 1 && onOneCluster && doors.some((door) => raw[`${door}NodePort`] !== undefined)) {
    problems.push(
      'somagent:gatewayNodePort and other node ports are taken once per cluster, and all regions are on one; remove them, or give each region a context with {region}',
    );
  }
  if (problems.length > 0) throw new ConfigError([...new Set(problems)]);
  return { ...raw, regions: resolved };
}

/** The values of one region; what is wrong with them is added to `problems`. */
function regionOf(name: string, raw: RawConfig, problems: string[]): RegionConfig {
  const { context, kubeconfig } = raw;
  const fill = (text: string) => text.replaceAll('{region}', name);
  return {
    name,
    ...(context !== undefined && { context: fill(context) }),
    ...(kubeconfig !== undefined && { kubeconfig: fill(kubeconfig) }),
    ...(Object.fromEntries(doors.map((door) => [`${door}Url`, webAddress(`${door}Url`, name, raw, problems)])) as Urls),
    ...(Object.fromEntries(doors.map((door) => [`${door}NodePort`, raw[`${door}NodePort`]])) as NodePorts),
  };
}

function webAddress(key: keyof Urls, region: string, raw: RawConfig, problems: string[]): string {
  const text = raw[key];
  const filled = text.replaceAll('{region}', region);
  if (raw.regions.length > 1 && filled === text) {
    problems.push(
      `somagent:${key} is '${text}' for all of ${raw.regions.join(', ')}; put {region} where their names belong, e.g. https://gateway.{region}.example.com`,
    );
  }
  const checked = url.safeParse(filled);
  if (!checked.success) problems.push(wrong(key, filled, checked.error.issues[0]?.message ?? 'an https URL'));
  return filled;
}

const json = new Set(['regions', 'tenants', 'probeClients', ...doors.map((door) => `${door}NodePort`)]);

/** The CLI hands over `[a, b]`, 30443 and true as the texts `["a","b"]`, `30443` and `true`. */
function typed(key: string, value: string): unknown {
  if (!json.has(key)) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

function describeIssue(issue: z.core.$ZodIssue, values: Readonly<Record<string, string>>): string {
  const key = String(issue.path[0]);
  const value = values[key];
  if (value === undefined || value === '') {
    return `somagent:${key} is missing; set it: pulumi config set ${json.has(key) ? `--path '${key}[0]'` : key} <value>, or add it to Pulumi.<stack>.yaml`;
  }
  return wrong(key, value, expectation(issue));
}

function wrong(key: string, value: string, expected: string): string {
  return `somagent:${key} is '${value}', but must be ${expected}; mend it in Pulumi.<stack>.yaml`;
}

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.expected === 'array'
        ? 'a list, such as ["a", "b"]'
        : issue.expected === 'int'
          ? 'a whole number'
          : `a ${issue.expected}`;
    case 'invalid_value':
      return `one of ${issue.values.map((value) => `'${String(value)}'`).join(', ')}`;
    case 'too_small':
      return issue.origin === 'array' ? `a list of at least ${issue.minimum}` : `at least ${issue.minimum}`;
    case 'too_big':
      return `at most ${issue.maximum}`;
    default:
      return issue.message;
  }
}

function unknownKey(key: string): string {
  const nearest = configKeys.toSorted((left, right) => distance(key, left) - distance(key, right))[0] ?? '';
  const suggestion =
    distance(key, nearest) <= Math.max(2, key.length / 3)
      ? `did you mean somagent:${nearest}?`
      : `known are ${configKeys.join(', ')}`;
  return `somagent:${key} is unknown; ${suggestion}`;
}

/** Edits (insert, delete, replace) from one word to the other, case aside. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [i, letter] of [...from.toLowerCase()].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...to.toLowerCase()].entries()) {
      next.push(Math.min((next[j] ?? 0) + 1, (row[j + 1] ?? 0) + 1, (row[j] ?? 0) + (letter === other ? 0 : 1)));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
