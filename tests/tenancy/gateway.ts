/**
 * The real gateway application on loopback, with the real database, identity, policy and OpenFGA behind it; and the
 * same with one fault each, planted to see the probe find it.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createBudgetHandlers } from '@somagent/gateway/budget-handlers.ts';
import { EventHub } from '@somagent/gateway/event-hub.ts';
import { createHandlers } from '@somagent/gateway/handlers.ts';
import { encodeCursor } from '@somagent/gateway/identifiers.ts';
import { createOpenAiHandlers } from '@somagent/gateway/openai-handlers.ts';
import { SessionReader } from '@somagent/gateway/reader.ts';
import { routes } from '@somagent/gateway/routes.ts';
import { sessionFacts } from '@somagent/gateway/session-facts.ts';
import { Sessions } from '@somagent/gateway/sessions.ts';
import { Spending } from '@somagent/gateway/spending.ts';
import { ToolPolicy } from '@somagent/gateway/tool-policy.ts';
import {
  createGovernedApp,
  type GovernedApp,
  PostgresQuota,
  type RelationChecker as Relations,
  serveGoverned,
  TokenVerifier,
} from '@somagent/governance';
import { Accounts } from '@somagent/identity/accounts.ts';
import { Ledger, ownWork } from '@somagent/identity/ledger.ts';
import { Tenants } from '@somagent/identity/tenants.ts';
import { TestService } from '@somagent/identity/testing/service.ts';
import {
  ControlState,
  createLogger,
  createPool,
  fetchTrusting,
  type Logger,
  type PostgresConfig,
  type TenantDatabase,
} from '@somagent/kit';
import { createModels } from '@somagent/models';
import { type Database, openDatabase } from '@somagent/orchestrator/database.ts';
import { migrate, readers } from '@somagent/orchestrator/migrations.ts';
import { SessionStore } from '@somagent/orchestrator/session-store.ts';
import { ensureModel, locateModel, RelationChecker, type Tuple } from '@somagent/relations';
import { accountFacts, sessionFacts as factsOfSession } from '@somagent/relations/facts.ts';
import { startOpenFga, type TestOpenFga } from '@somagent/relations/testing/openfga.ts';
import { Client, Connection } from '@temporalio/client';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import type { Received, Sent, Tenant } from './probe.ts';

const issuer = 'https://login.test/realms/somagent';
const audience = 'somagent-gateway';
const origin = ownWork('test');
const quiet = createLogger({ service: 'test', level: 'silent' });
/** An event stream goes on: what has come by then is the answer, milliseconds. */
const streamTime = 100;

/** What belongs to a tenant of the test. */
export interface World {
  readonly tenant: string;
  readonly subject: string;
  readonly sessions: readonly string[];
  readonly turns: readonly string[];
  readonly persona: string;
  readonly prompt: string;
  readonly key: string;
}

/** What a fault can reach: everything that the healthy server is made of. */
export interface Inside {
  readonly worlds: readonly World[];
  /** The rows of every tenant: what a server has that was left its rights. */
  readonly everything: TenantDatabase<Database>;
  readonly reader: SessionReader;
  readonly relations: Relations;
  readonly log: Logger;
}

/** A fault: replaces a part, or stands between the application and its clients. */
export interface Fault {
  readonly reader?: (inside: Inside) => SessionReader;
  readonly relations?: (inside: Inside) => Relations;
  readonly answer?: (
    request: Request,
    next: () => Promise<Response>,
    inside: Inside & { readonly tenant: string },
  ) => Promise<Response>;
}

/** The servers behind the gateway, and who is attacked. */
export class Loopback {
  readonly worlds: readonly World[];
  readonly lines: string[] = [];
  readonly #identity: TestService;
  readonly #openfga: TestOpenFga;
  readonly #control: ControlState;
  readonly #db: TenantDatabase<Database>;
  readonly #owner: TenantDatabase<Database>;
  readonly #hub: EventHub;
  readonly #tls: string;
  readonly #caFile: string;
  readonly #sign: (claims: Record<string, unknown>) => Promise<string>;
  readonly #tokens: TokenVerifier;
  readonly #log: Logger;

  private constructor(parts: {
    readonly worlds: readonly World[];
    readonly identity: TestService;
    readonly openfga: TestOpenFga;
    readonly control: ControlState;
    readonly db: TenantDatabase<Database>;
    readonly owner: TenantDatabase<Database>;
    readonly hub: EventHub;
    readonly tls: string;
    readonly sign: (claims: Record<string, unknown>) => Promise<string>;
    readonly tokens: TokenVerifier;
  }) {
    this.worlds = parts.worlds;
    this.#identity = parts.identity;
    this.#openfga = parts.openfga;
    this.#control = parts.control;
    this.#db = parts.db;
    this.#owner = parts.owner;
    this.#hub = parts.hub;
    this.#tls = parts.tls;
    this.#caFile = parts.identity.caFile;
    this.#sign = parts.sign;
    this.#tokens = parts.tokens;
    this.#log = createLogger({
      service: 'gateway',
      level: 'info',
      destination: { write: (line) => void this.lines.push(line) },
    });
  }

  /** Starts everything but the gateway itself. */
  static async start(names: readonly string[]): Promise<Loopback> {
    const identity = await TestService.start();
    const { url } = await identity.replica();
    const tokenFile = await identity.workloadFile('gateway');
    const control = new ControlState({ url, caFile: identity.caFile, tokenFile, log: quiet });
    control.start();
    const { postgres } = identity.database;
    const config = await databaseOf(postgres);
    const owner = openDatabase(createPool(config.owner, quiet));
    await migrate(owner.untenanted);
    const openfga = await startOpenFga();
    const worlds = await Promise.all(names.map((name) => populate(name, identity, owner)));
    await relate(openfga, worlds);
    const hub = new EventHub(config.gateway, quiet);
    await hub.start();
    while (!control.ready) await sleep(20);
    const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
    const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'ES256' }] });
    const sign = (claims: Record<string, unknown>) =>
      new SignJWT({ azp: 'somagent-cli', typ: 'Bearer', sid: randomUUID(), jti: randomUUID(), ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'k', typ: 'JWT' })
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt()
        .setExpirationTime('10m')
        .sign(privateKey);
    return new Loopback({
      worlds,
      identity,
      openfga,
      control,
      owner,
      db: openDatabase(createPool(config.gateway, quiet)),
      hub,
      tls: join(identity.caFile, '..'),
      sign,
      tokens: new TokenVerifier({ keys, rules: { issuer, audience } }),
    });
  }

  /** Starts a gateway, healthy or with a fault. */
  async gateway(fault: Fault = {}) {
    const draining = new AbortController();
    // Nobody is there: whatever wants to write through a workflow says so, for everybody alike.
    const temporal = Connection.lazy({ address: '127.0.0.1:1', interceptors: [] });
    const healthy = new SessionReader(this.#db);
    const client = this.#openfga.client;
    const checker = new RelationChecker({ client, locate: () => locateModel(client), facts: sessionFacts(healthy) });
    const inside: Inside = {
      worlds: this.worlds,
      everything: this.#owner,
      reader: healthy,
      relations: checker,
      log: this.#log,
    };
    const relations = fault.relations?.(inside) ?? checker;
    const reader = fault.reader?.(inside) ?? healthy;
    const sessions = new Sessions(new Client({ connection: temporal }), { taskQueue: 'sessions', idleTimeout: 1000 });
    const verdicts = { accepting: true, record: () => undefined };
    // No model: what is apart here are sessions and budgets.
    const models = createModels({ providers: {}, models: {} }, { log: this.#log });
    const app = createGovernedApp({
      service: 'gateway',
      title: 'gateway',
      routes,
      handlers: {
        ...createHandlers({
          reader,
          hub: this.#hub,
          log: this.#log,
          draining: draining.signal,
          control: this.#control,
          relations: checker,
          sessions,
        }),
        ...createBudgetHandlers({ database: this.#db }),
        ...createOpenAiHandlers({
          models,
          spending: new Spending({ database: this.#db, log: this.#log, seconds: 60 }),
          control: this.#control,
          relations: checker,
          tools: new ToolPolicy({ policy: this.#identity.policy, control: this.#control, verdicts }),
          log: this.#log,
          deadlineMs: 1000,
        }),
      },
      authentication: { tokens: this.#tokens },
      control: this.#control,
      policy: this.#identity.policy,
      relations,
      quota: new PostgresQuota({ database: this.#db, limits: [unreached], log: this.#log }),
      verdicts,
      log: this.#log,
    });
    const server = await serveGoverned({
      app: { service: app.service, fetch: this.#faulty(app, fault, inside) },
      port: 0,
      host: '127.0.0.1',
      tlsDirectory: this.#tls,
      log: quiet,
    });
    const url = `https://127.0.0.1:${server.port}`;
    return {
      routes: app.routes().filter(({ operationId }) => operationId !== null),
      tenants: await Promise.all(this.worlds.map((world) => this.#tenant(world, url))),
      stop: async () => {
        draining.abort();
        await server.drain(500);
        await temporal.close();
      },
    };
  }

  async stop(): Promise<void> {
    await this.#hub.stop();
    await this.#control.stop();
    await this.#db.destroy();
    await this.#owner.destroy();
    await this.#openfga.stop();
    await this.#identity.stop();
  }

  #faulty(app: GovernedApp, { answer }: Fault, inside: Inside): GovernedApp['fetch'] {
    if (answer === undefined) return app.fetch;
    return async (request, env) => {
      const [, claims = ''] = (request.headers.get('authorization') ?? '').split('.');
      const { tenant = '' } = JSON.parse(Buffer.from(claims, 'base64url').toString() || '{}') as { tenant?: string };
      return answer(request, async () => app.fetch(request, env), { ...inside, tenant });
    };
  }

  async #tenant(world: World, url: string): Promise<Tenant> {
    const { tenant, subject, sessions, turns, persona, prompt, key } = world;
    const token = await this.#sign({ sub: subject, tenant, roles: ['member'], teams: [] });
    const fetch = fetchTrusting(this.#caFile);
    const send = (request: Sent) => receive(fetch, url, token, request);
    const created = encodeCursor({ createdAt: new Date(Date.now() + 60_000), id: sessions[0] ?? '' });
    return {
      name: tenant,
      send,
      identifiers: { id: sessions, turnId: turns, session: sessions, cursor: [created], tenant: [tenant] },
      keys: [{ route: { method: 'POST', path: '/v1/sessions' }, key, body: {} }],
      canaries: [persona, prompt, subject],
      state: async () => {
        const list = await send({ method: 'GET', path: '/v1/sessions?limit=100', headers: {} });
        const each = await Promise.all(
          sessions.map((id) => send({ method: 'GET', path: `/v1/sessions/${id}`, headers: {} })),
        );
        return JSON.stringify([list, ...each].map(({ status, body }) => [status, body]));
      },
    };
  }
}

const unreached = { name: 'test', per: 'tenant', allowed: 1_000_000, windowSeconds: 3600 } as const;

async function receive(fetch: typeof globalThis.fetch, url: string, token: string, request: Sent): Promise<Received> {
  const patience = new AbortController();
  const { path, method, headers, body } = request;
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: patience.signal,
  });
  const streams = response.headers.get('content-type')?.includes('event-stream') === true;
  const timer = setTimeout(() => patience.abort(), streams ? streamTime : 10_000);
  let text = '';
  try {
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true });
  } catch (error) {
    if (!streams) throw error;
  } finally {
    clearTimeout(timer);
  }
  return { status: response.status, headers: Object.fromEntries(response.headers), body: text };
}

/** The database of sessions with its owner and its reader. */
async function databaseOf(postgres: TestService['database']['postgres']) {
  const admin = await postgres.connect('postgres');
  for (const role of ['sessions', readers.gateway]) await admin.query(`create role ${role} login password '${role}'`);
  await admin.query('create database sessions owner sessions');
  await admin.end();
  const config = async (role: string): Promise<PostgresConfig> => {
    const folder = join(postgres.folder, `credentials-${role}`);
    await mkdir(folder);
    await writeFile(join(folder, 'username'), role);
    await writeFile(join(folder, 'password'), role);
    const { host, port } = postgres.server;
    const place = { PGHOST: host, PGPORT: port, PGDATABASE: 'sessions' };
    return { ...place, PG_CREDENTIALS_DIR: folder, PG_CA_FILE: postgres.caFile, PG_POOL_SIZE: 4 };
  };
  return { owner: await config('sessions'), gateway: await config(readers.gateway) };
}

/** A tenant with two people's worth of sessions, each with a turn. */
async function populate(tenant: string, identity: TestService, db: TenantDatabase<Database>): Promise<World> {
  const ledger = new Ledger(identity.database.database);
  const subject = randomUUID();
  await new Tenants(ledger, identity.database.database).put(origin, tenant, tenant);
  const account = {
    id: subject,
    kind: 'user',
    username: `ada-${tenant}`,
    email: null,
    roles: ['member'],
    teams: [],
  } as const;
  await new Accounts(ledger, identity.database.database).put(origin, tenant, account);
  const store = new SessionStore(db);
  const world = {
    tenant,
    subject,
    sessions: [randomUUID(), randomUUID()],
    turns: [randomUUID(), randomUUID()],
    persona: `persona-${randomUUID()}`,
    prompt: `prompt-${randomUUID()}`,
    key: `key-${randomUUID()}`,
  };
  for (const [index, sessionId] of world.sessions.entries()) {
    const key = { tenant, sessionId };
    await store.open({ ...key, subject, persona: world.persona, idleTimeout: 1000 });
    const turn = { turnId: world.turns[index] ?? '', prompt: world.prompt, receivedAt: Date.now() };
    await store.beginTurn(key, { turn, number: 1, historyTurns: 6, events: [] });
    await store.finishTurn({ ...key, turn, generation: null, status: 'completed', error: null });
  }
  return world;
}

/** Writes what the relations service would. */
async function relate({ client }: TestOpenFga, worlds: readonly World[]): Promise<void> {
  const at = await ensureModel(client);
  const tuples: Tuple[] = worlds.flatMap(({ tenant, subject, sessions }) => [
    ...accountFacts({
      tenant,
      userId: subject,
      kind: 'user',
      username: 'ada',
      roles: ['member'],
      teams: [],
      suspended: false,
    }),
    ...sessions.flatMap((sessionId) => factsOfSession({ tenant, sessionId, owner: subject, teams: [] })),
  ]);
  await client.write(at.store, at.model, tuples, []);
}
