/**
 * Tries, for every ordered pair of tenants and every route, whether the first can see, change or even notice what
 * belongs to the second. It knows nothing of a server but its routes: it works by differences. What is sent with an
 * identifier of the other tenant is sent again with one that nobody has, and the two answers must be the same.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { exampleOf, pointingBodies, type QueryParameter, type Schema } from './document.ts';

/** A route, as a service lists it. */
export interface ProbeRoute {
  readonly method: string;
  /** Template, e.g. `/v1/sessions/{id}`. */
  readonly path: string;
  /** What the service says that it takes; without it, bodies and parameters are guessed. */
  readonly query?: readonly QueryParameter[];
  readonly body?: Schema;
}

/** A request without its credential. */
export interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** An answer; of a stream, what came within the time of the probe. */
export interface Received {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A tenant that attacks and is attacked. */
export interface Tenant {
  readonly name: string;
  /** Sends with this tenant's own credential. */
  send(request: Sent): Promise<Received>;
  /** Real identifiers by the name of the path or query parameter that takes them. */
  readonly identifiers: Readonly<Record<string, readonly string[]>>;
  /** Requests with an idempotency key that were sent before, on this route. */
  readonly keys: readonly { readonly route: ProbeRoute; readonly key: string; readonly body: unknown }[];
  /** Own things that an attack may spend, by parameter: what `state` looks at stays as it is. @default identifiers */
  readonly spare?: Readonly<Record<string, string>>;
  /** Texts that nobody else may ever see. */
  readonly canaries: readonly string[];
  /** Everything that the tenant can see of its own: must be the same before and after. */
  state(): Promise<string>;
}

/** What one tenant could do that it must not. */
export interface Leak {
  readonly attacker: string;
  readonly victim: string;
  readonly route: string;
  readonly kind: 'content' | 'oracle' | 'timing' | 'change' | 'log';
  readonly detail: string;
}

/** What a probe has tried and found. */
export interface ProbeReport {
  readonly requests: number;
  readonly pairs: number;
  readonly routes: number;
  readonly leaks: readonly Leak[];
}

/** What a probe is made of. */
export interface ProbeOptions {
  readonly routes: readonly ProbeRoute[];
  readonly tenants: readonly Tenant[];
  /** Lines that the services have logged since the probe began; absent where they are not looked at. */
  readonly logLines?: () => Promise<readonly string[]>;
  /**
   * Sends what changes something only with names of the victim: for credentials that could do harm at home. Where bodies
   * are declared, with any identifier of the victim. @default false
   */
  readonly harmless?: boolean;
  /** Routes whose answer times are compared. @default every GET with an identifier in its path */
  readonly timed?: (route: ProbeRoute) => boolean;
}

interface Attack {
  readonly what: string;
  readonly sent: Sent;
  /** The same with what nobody has. */
  readonly twin?: Sent;
  /** Values of the victim that were sent: they may come back. */
  readonly given: readonly string[];
  readonly twinGiven: readonly string[];
}

const parameters = (path: string): string[] => [...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name);
const tenantHeaders = ['x-tenant', 'x-tenant-id', 'x-somagent-tenant', 'tenant', 'x-forwarded-tenant'];

/** An identifier of the same shape that nobody has. */
function nobodys(value: string): string {
  if (/^[0-9a-f-]{36}$/.test(value)) return randomUUID();
  const letters = randomUUID().replaceAll('-', '');
  return value.replaceAll(/[a-z0-9]/gi, (_, index: number) => letters[index % letters.length] ?? 'x');
}

/** Fills a template: parameters that are not given get what nobody has. */
const filled = (path: string, values: Readonly<Record<string, string>>): string =>
  path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(values[name] ?? randomUUID()));

const bodies: readonly unknown[] = [{}, { prompt: 'probe' }, { reason: 'probe' }];

function bodyOf({ method, body }: ProbeRoute, path: string): { readonly body?: unknown } {
  if (!['POST', 'PUT', 'PATCH'].includes(method.toUpperCase())) return {};
  if (body !== undefined) return { body: exampleOf(body) };
  return {
    body: path.endsWith('/turns') ? { prompt: 'probe' } : path.includes('/tenants/') ? { reason: 'probe' } : {},
  };
}

/** Every way in which a request of the attacker can point at something of the victim. */
function attacksOn(route: ProbeRoute, attacker: Tenant, victim: Tenant, harmless: boolean): Attack[] {
  const method = route.method.toUpperCase();
  const names = parameters(route.path);
  const ownOf = (name: string) => attacker.spare?.[name] ?? attacker.identifiers[name]?.[0] ?? randomUUID();
  const own = Object.fromEntries(names.map((name) => [name, ownOf(name)]));
  const base = { method, headers: {}, ...bodyOf(route, route.path) };
  if (harmless && method !== 'GET') {
    const attacks = byPath(route, base, names, own, victim);
    return route.query === undefined
      ? attacks.filter(({ given }) => given.includes(victim.name))
      : [...attacks, ...byDeclaredBody(route, base, own, victim)];
  }
  const declared = byDeclaredBody(route, base, own, victim);
  // Without names of the victim a body could spend things of one's own.
  const aimed = declared[0] === undefined ? base : { ...base, body: declared[0].sent.body };
  return [
    ...byPath(route, base, names, own, victim),
    ...[...byQuery(route, aimed, own, victim), ...byHeader(route, aimed, own, victim)].map((attack) => ({
      ...attack,
      given: [...attack.given, ...(declared[0]?.given ?? [])],
    })),
    ...byChoice(route, base, own),
    ...(declared.length > 0 ? declared : byBody(route, base, own, victim)),
    ...byKey(route, base, own, victim),
  ];
}

type Base = Omit<Sent, 'path'>;
type Values = Readonly<Record<string, string>>;

/** Each parameter of the path, and all at once. */
function byPath(route: ProbeRoute, base: Base, names: readonly string[], own: Values, victim: Tenant): Attack[] {
  const known = names.filter((name) => (victim.identifiers[name] ?? []).length > 0);
  const singles = known.flatMap((name) =>
    (victim.identifiers[name] ?? []).map((value) => ({ ...own, [name]: value }) as Values),
  );
  const all = Object.fromEntries(known.map((name) => [name, victim.identifiers[name]?.[0] ?? '']));
  const wanted = known.length > 1 ? [...singles, { ...own, ...all }] : singles;
  return wanted.map((values) => {
    const foreign = known.filter((name) => values[name] !== own[name]);
    const twin = Object.fromEntries(
      Object.entries(values).map(([name, value]) => [name, foreign.includes(name) ? nobodys(value) : value]),
    );
    return {
      what: `path ${foreign.join('+')}`,
      sent: { ...base, path: filled(route.path, values) },
      twin: { ...base, path: filled(route.path, twin) },
      given: foreign.map((name) => values[name] ?? ''),
      twinGiven: foreign.map((name) => twin[name] ?? ''),
    };
  });
}

/** Cursors, turns and tenants in the query, and whatever else the route takes. */
function byQuery(route: ProbeRoute, base: Base, own: Values, victim: Tenant): Attack[] {
  const path = filled(route.path, own);
  const names = [
    'cursor',
    'after',
    'turnId',
    'tenant',
    'id',
    'session',
    ...(route.query ?? []).map(({ name }) => name),
  ];
  return [...new Set(names)].flatMap((name) =>
    (victim.identifiers[name] ?? []).slice(0, 2).map((value) => ({
      what: `query ${name}`,
      sent: { ...base, path: `${path}?${new URLSearchParams({ [name]: value, limit: '100' })}` },
      given: [value],
      twinGiven: [],
    })),
  );
}

/** Every value of a parameter that only takes some: each may show something else. */
function byChoice(route: ProbeRoute, base: Base, own: Values): Attack[] {
  const path = filled(route.path, own);
  return (route.query ?? []).flatMap(({ name, values }) =>
    values.map((value) => ({
      what: `query ${name}=${value}`,
      sent: { ...base, path: `${path}?${new URLSearchParams({ [name]: value })}` },
      given: [],
      twinGiven: [],
    })),
  );
}

/** Identifiers of the victim in the fields that the route declares, and its tenant beside them. */
function byDeclaredBody(route: ProbeRoute, base: Base, own: Values, victim: Tenant): Attack[] {
  if (route.body === undefined) return [];
  const path = filled(route.path, own);
  const names = Object.entries(victim.identifiers).flatMap(([name, [first]]) =>
    first ? [[name, first] as const] : [],
  );
  const nobody = Object.fromEntries(names.map(([name, value]) => [name, nobodys(value)]));
  const [real, none] = [Object.fromEntries(names), nobody].map((values) => pointingBodies(route.body ?? {}, values));
  return (real ?? []).flatMap(({ fields, body, given }, place): Attack[] => {
    const attack: Attack = { what: `body ${fields.join('+')}`, sent: { ...base, path, body }, given, twinGiven: [] };
    const named = { ...attack, sent: { ...base, path, body: { ...(body as object), tenant: victim.name } } };
    const other = none?.[place];
    // A question is answered by what fits it: two of them have no answers to compare.
    if (other === undefined || fields.some((field) => field.endsWith('query'))) return [attack, named];
    return [{ ...attack, twin: { ...base, path, body: other.body }, twinGiven: other.given }, named];
  });
}

/** Headers that name a tenant, and the place in a stream. */
function byHeader(route: ProbeRoute, base: Base, own: Values, victim: Tenant): Attack[] {
  const path = filled(route.path, own);
  return [...tenantHeaders.map((name) => [name, victim.name] as const), ['last-event-id', '0'] as const].map(
    ([name, value]) => ({
      what: `header ${name}`,
      sent: { ...base, path, headers: { [name]: value } },
      given: [victim.name],
      twinGiven: [],
    }),
  );
}

/** A body that names another tenant. */
function byBody(route: ProbeRoute, base: Base, own: Values, victim: Tenant): Attack[] {
  if (base.body === undefined) return [];
  return bodies.map((body) => ({
    what: 'body tenant',
    sent: { ...base, path: filled(route.path, own), body: { ...(body as object), tenant: victim.name } },
    given: [victim.name],
    twinGiven: [],
  }));
}

/** Idempotency keys that the victim has used: the same key must be another one. */
function byKey(route: ProbeRoute, base: Base, own: Values, victim: Tenant): Attack[] {
  return victim.keys
    .filter((used) => used.route.method === route.method && used.route.path === route.path)
    .map(({ key, body }) => ({
      what: 'idempotency key',
      sent: { ...base, path: filled(route.path, own), headers: { 'idempotency-key': key }, body },
      given: [key],
      twinGiven: [],
    }));
}

const volatile = new Set(['date', 'x-request-id', 'content-length', 'retry-after', 'connection', 'keep-alive']);
/** What an answer says of its own making. */
const passing = /"timings":\{[^{}]*\}|"checkedAt":"[^"]*"/g;
const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

/** An answer without what differs from request to request. */
function shape({ status, headers, body }: Received, given: readonly string[]): string {
  const blind = (text: string) =>
    given
      .reduce((rest, value) => rest.replaceAll(value, '<given>'), text)
      .replaceAll(uuid, '<uuid>')
      .replaceAll(passing, '<passing>');
  const kept = Object.entries(headers)
    .filter(([name]) => !volatile.has(name.toLowerCase()))
    .map(([name, value]) => `${name.toLowerCase()}: ${blind(value)}`)
    .sort();
  return [status, ...kept, blind(body)].join('\n');
}

/** The first line in which two texts differ. */
function difference(left: string, right: string): string {
  const [a, b] = [left.split('\n'), right.split('\n')];
  const index = a.findIndex((line, at) => line !== b[at]);
  return `${JSON.stringify(a[index] ?? '')} instead of ${JSON.stringify(b[index] ?? '')}`.slice(0, 300);
}

const samples = 12;
const rounds = 4;
const slower = 8;

/** Whatever else the machine does makes some answers later, none earlier: the early ones tell what the server itself does. */
const lowerQuartile = (values: readonly number[]): number =>
  values.toSorted((x, y) => x - y)[Math.floor(values.length / 4)] ?? 0;

/** One probe of all pairs. */
export class TenancyProbe {
  readonly #options: ProbeOptions;
  readonly #leaks: Leak[] = [];
  readonly #requestsOf = new Map<string, string>();
  #requests = 0;

  constructor(options: ProbeOptions) {
    this.#options = options;
  }

  async run(): Promise<ProbeReport> {
    const { tenants, routes } = this.#options;
    const before = await Promise.all(tenants.map((tenant) => tenant.state()));
    let pairs = 0;
    for (const attacker of tenants) {
      for (const victim of tenants) {
        if (attacker === victim) continue;
        pairs += 1;
        for (const route of routes) await this.#route(route, attacker, victim);
      }
    }
    await this.#changes(before);
    await this.#logs();
    return { requests: this.#requests, pairs, routes: routes.length, leaks: this.#leaks };
  }

  async #route(route: ProbeRoute, attacker: Tenant, victim: Tenant): Promise<void> {
    const leak = (kind: Leak['kind'], detail: string) =>
      this.#leaks.push({
        attacker: attacker.name,
        victim: victim.name,
        route: `${route.method.toUpperCase()} ${route.path}`,
        kind,
        detail,
      });
    for (const attack of attacksOn(route, attacker, victim, this.#options.harmless ?? false)) {
      const answer = await this.#send(attacker, attack.sent);
      for (const canary of seen(answer, attack, victim)) leak('content', `${attack.what}: the answer has ${canary}`);
      if (attack.twin === undefined) continue;
      const twin = await this.#send(attacker, attack.twin);
      const [real, none] = [shape(answer, attack.given), shape(twin, attack.twinGiven)];
      if (real !== none) leak('oracle', `${attack.what}: ${difference(real, none)}`);
      else if (this.#isTimed(route)) {
        const later = await this.#later(attacker, attack.sent, attack.twin);
        if (later !== undefined) leak('timing', `${attack.what}: ${later}`);
      }
    }
  }

  #isTimed(route: ProbeRoute): boolean {
    const { timed } = this.#options;
    return timed?.(route) ?? (route.method.toUpperCase() === 'GET' && /\{id\}$/.test(route.path));
  }

  /** Compares the times of two requests, alternately; a difference must show in each round, the same way round. */
  async #later(attacker: Tenant, sent: Sent, twin: Sent): Promise<string | undefined> {
    const ways = new Set<number>();
    for (let round = 1; ; round += 1) {
      const times: [number[], number[]] = [[], []];
      for (let index = 0; index < samples; index += 1) {
        times[0].push(await this.#time(attacker, sent));
        times[1].push(await this.#time(attacker, twin));
      }
      const [real, none] = [lowerQuartile(times[0]), lowerQuartile(times[1])];
      if (Math.abs(real - none) < slower || ways.add(Math.sign(real - none)).size > 1) return undefined;
      if (round === rounds) return `${real.toFixed(1)} ms instead of ${none.toFixed(1)} ms`;
    }
  }

  async #time(attacker: Tenant, sent: Sent): Promise<number> {
    const start = performance.now();
    await this.#send(attacker, sent);
    return performance.now() - start;
  }

  async #send(tenant: Tenant, sent: Sent): Promise<Received> {
    this.#requests += 1;
    const answer = await tenant.send(sent);
    const id = answer.headers['x-request-id'];
    if (id !== undefined) this.#requestsOf.set(id, tenant.name);
    return answer;
  }

  async #changes(before: readonly string[]): Promise<void> {
    for (const [index, tenant] of this.#options.tenants.entries()) {
      const now = await tenant.state();
      if (now === before[index]) continue;
      const detail = difference(now.replaceAll(',', ',\n'), (before[index] ?? '').replaceAll(',', ',\n'));
      this.#leaks.push({ attacker: 'somebody', victim: tenant.name, route: 'any', kind: 'change', detail });
    }
  }

  async #logs(): Promise<void> {
    const { logLines, tenants } = this.#options;
    if (logLines === undefined) return;
    // The last lines are on their way when the last answer has arrived.
    await sleep(200);
    for (const line of await logLines()) this.#leaks.push(...faultsOf(line, tenants, this.#requestsOf));
  }
}

/** What the victim alone may see and the answer has, unless it was sent. */
function seen({ headers, body }: Received, { given }: Attack, victim: Tenant): string[] {
  const text = `${JSON.stringify(headers)}\n${body}`;
  const secrets = [...victim.canaries, ...Object.values(victim.identifiers).flat()].filter(
    (value) => value !== victim.name,
  );
  return [...new Set(secrets)].filter((secret) => !given.includes(secret) && text.includes(secret));
}

/** Every line has a tenant; that of a request is the caller's own; none has a text of another tenant. */
export function faultsOf(
  line: string,
  tenants: readonly Pick<Tenant, 'name' | 'canaries'>[],
  requests: ReadonlyMap<string, string>,
): Leak[] {
  const leak = (attacker: string, victim: string, detail: string): Leak => ({
    attacker,
    victim,
    route: 'log',
    kind: 'log',
    detail: `${detail}: ${line.slice(0, 200)}`,
  });
  const fields = parsed(line);
  if (fields === undefined) return [leak('nobody', 'nobody', 'a line is no JSON')];
  const { tenant, requestId } = fields;
  if (typeof tenant !== 'string' || tenant === '') return [leak('nobody', 'nobody', 'a line has no tenant')];
  const caller = typeof requestId === 'string' ? requests.get(requestId) : undefined;
  const wrong = caller !== undefined && tenant !== caller ? [leak(caller, tenant, 'a line names another tenant')] : [];
  const told = tenants
    .filter(({ name, canaries }) => name !== tenant && canaries.some((canary) => line.includes(canary)))
    .map(({ name }) => leak(tenant, name, 'a line has a text of another tenant'));
  return [...wrong, ...told];
}

function parsed(line: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}
