import { isDeepStrictEqual } from 'node:util';
import { incompatibilities } from '@somagent/events/compatibility.ts';
import { z } from 'zod';
import { Failure } from '../failure.ts';
import { log } from '../log.ts';
import type { PlannedSchemas } from './plan.ts';
import type { Report } from './report.ts';

type Schema = PlannedSchemas['versions'][number];

const contentType = 'application/vnd.schemaregistry.v1+json';
const timeoutMs = 20_000;

/** What the registry answers to a refused request. */
const refusal = z.looseObject({ error_code: z.number(), message: z.string() });

/** The registry answered and did not do what was asked. */
export class RegistryError extends Error {
  readonly status: number;

  constructor(request: string, status: number, text: string) {
    super(`${request}: HTTP ${status}: ${text}`);
    this.name = 'RegistryError';
    this.status = status;
  }
}

/** A schema registry with Confluent's API. Source: https://docs.confluent.io/platform/current/schema-registry/develop/api.html */
export class SchemaRegistry {
  readonly #base: string;
  readonly #token: () => Promise<string>;

  /** @param token gives a token that is valid now. */
  constructor(url: string, token: () => Promise<string>) {
    this.#base = `${url}/apis/ccompat/v7`;
    this.#token = token;
  }

  /** Every version of a subject, oldest first; empty when there is no such subject. */
  async versions(subject: string): Promise<readonly Schema[]> {
    const path = `/subjects/${encodeURIComponent(subject)}/versions`;
    const numbers = await this.#ask('GET', path, z.array(z.number()), { absent: [] });
    const read = z.looseObject({ schema: z.string() });
    const found: Schema[] = [];
    for (const number of numbers) found.push(JSON.parse((await this.#ask('GET', `${path}/${number}`, read)).schema));
    return found;
  }

  /** Adds a version. @throws RegistryError 409 when it is not compatible with what is there. */
  async register(subject: string, schema: Schema): Promise<void> {
    const body = { schemaType: 'JSON', schema: JSON.stringify(schema) };
    await this.#ask('POST', `/subjects/${encodeURIComponent(subject)}/versions`, z.unknown(), { body });
  }

  /** The rule of a subject; undefined when it has none of its own. */
  async compatibility(subject: string): Promise<string | undefined> {
    const shape = z.looseObject({ compatibilityLevel: z.string() });
    const absent = { compatibilityLevel: '' };
    const { compatibilityLevel } = await this.#ask('GET', `/config/${encodeURIComponent(subject)}`, shape, { absent });
    return compatibilityLevel === '' || compatibilityLevel === 'NONE' ? undefined : compatibilityLevel;
  }

  async setCompatibility(subject: string, compatibility: string): Promise<void> {
    await this.#ask('PUT', `/config/${encodeURIComponent(subject)}`, z.unknown(), { body: { compatibility } });
  }

  async #ask<T>(
    method: string,
    path: string,
    shape: z.ZodType<T>,
    { body, absent }: { readonly body?: unknown; readonly absent?: T } = {},
  ): Promise<T> {
    const response = await fetch(`${this.#base}${path}`, {
      method,
      headers: { authorization: `Bearer ${await this.#token()}`, accept: contentType, 'content-type': contentType },
      signal: AbortSignal.timeout(timeoutMs),
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (response.status === 404 && absent !== undefined) return absent;
    if (!response.ok) throw new RegistryError(`${method} ${path}`, response.status, reasonOf(text));
    return shape.parse(JSON.parse(text));
  }
}

function reasonOf(text: string): string {
  try {
    return refusal.parse(JSON.parse(text)).message;
  } catch {
    return text.slice(0, 500);
  }
}

/** Registers what is missing, oldest first, under the rule BACKWARD. What is registered is never changed. */
export async function reconcileSchemas(
  registry: SchemaRegistry,
  subjects: readonly PlannedSchemas[],
  report: Report,
): Promise<void> {
  for (const planned of subjects) await reconcileSubject(registry, planned, report);
}

async function reconcileSubject(registry: SchemaRegistry, planned: PlannedSchemas, report: Report): Promise<void> {
  const { subject, versions } = planned;
  const registered = await registry.versions(subject);
  refuseRewriting(planned, registered);
  if (registered.length > versions.length) {
    const found = { subject, found: registered.length, declared: versions.length };
    log.warn('drift: a subject has more versions than the plan; they stay', found);
  }
  // A rule needs a subject, and a subject its first version; every further one is judged by the rule.
  if (registered.length === 0) await add(registry, planned, 0, report);
  const ruled = await ensureRule(registry, planned, registered.length === 0, report);
  const first = Math.max(1, registered.length);
  for (let index = first; index < versions.length; index += 1) await add(registry, planned, index, report);
  if (!ruled && registered.length >= versions.length) report.unchanged();
}

async function add(registry: SchemaRegistry, planned: PlannedSchemas, index: number, report: Report): Promise<void> {
  const schema = planned.versions[index];
  if (schema === undefined) return;
  await register(registry, planned, index, schema);
  report.created('schema', { subject: planned.subject, version: index + 1 });
}

/** A version that others have used stays as it was: an edit must become a new version. */
function refuseRewriting({ subject, versions }: PlannedSchemas, registered: readonly Schema[]): void {
  const index = versions.findIndex(
    (schema, at) => at < registered.length && !isDeepStrictEqual(registered[at], schema),
  );
  if (index === -1) return;
  throw new Failure(
    `subject ${subject}: version ${index + 1} of the plan is not the one that is registered`,
    `raise the version of the contract instead of editing it, so that ${subject} gets version ${registered.length + 1}`,
  );
}

async function register(
  registry: SchemaRegistry,
  { subject, versions }: PlannedSchemas,
  index: number,
  schema: Schema,
): Promise<void> {
  try {
    await registry.register(subject, schema);
  } catch (error) {
    if (!(error instanceof RegistryError) || error.status !== 409) throw error;
    const problems = incompatibilities(versions[index - 1] ?? {}, schema);
    throw new Failure(
      `subject ${subject}: version ${index + 1} is not backward compatible: ${problems.join('; ') || error.message}`,
      'readers of the new version must still read what is in Kafka: make a new field optional, keep every field, or declare a new event type',
      { cause: error },
    );
  }
}

async function ensureRule(
  registry: SchemaRegistry,
  { subject, compatibility }: PlannedSchemas,
  isNew: boolean,
  report: Report,
): Promise<boolean> {
  const found = await registry.compatibility(subject);
  if (found === compatibility) return false;
  await registry.setCompatibility(subject, compatibility);
  if (!isNew) report.repaired('compatibility', { subject, found: found ?? 'none', declared: compatibility });
  return true;
}
