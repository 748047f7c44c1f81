import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { type Budget, putBudget, recallChannel } from '@somagent/budget';
import {
  createGovernedApp,
  type GovernedServer,
  IdentityApiKeys,
  type LimitReached,
  serveGoverned,
  TokenVerifier,
  type VerdictRecord,
} from '@somagent/governance';
import { Accounts } from '@somagent/identity/accounts.ts';
import { Ledger, ownWork } from '@somagent/identity/ledger.ts';
import { issuer, type Replica, TestService } from '@somagent/identity/testing/service.ts';
import {
  ControlState,
  createLogger,
  createPool,
  fetchTrusting,
  type PostgresConfig,
  TenantDatabase,
} from '@somagent/kit';
import { createModels, type Models, parseModels } from '@somagent/models';
import type { Front } from '@somagent/models/testing/front.ts';
import { TestLlama } from '@somagent/models/testing/llama.ts';
import type { Database } from '@somagent/orchestrator/database.ts';
import { migrate } from '@somagent/orchestrator/migrations.ts';
import { ensureModel, locateModel, objectOf, RelationChecker, userOf } from '@somagent/relations';
import { startOpenFga, type TestOpenFga } from '@somagent/relations/testing/openfga.ts';
import { sql } from 'kysely';
import OpenAI from 'openai';
import { startEmbeddings, type TestEmbeddings } from '../../embeddings/testing.ts';
import { createBudgetHandlers } from '../budget-handlers.ts';
import { budgetRoutes } from '../budget-routes.ts';
import { EventHub } from '../event-hub.ts';
import { createOpenAiHandlers } from '../openai-handlers.ts';
import { openAiRoutes } from '../openai-routes.ts';
import { routes } from '../routes.ts';
import { Spending } from '../spending.ts';
import { ToolPolicy } from '../tool-policy.ts';

const run = promisify(execFile);
const slm = new URL('../../slm/', import.meta.url).pathname;

/** People and agents of the tests. */
export const people = {
  agent: { sub: 'mary', tenant: 'acme', roles: ['agent'], teams: ['blue', 'green'], azp: 'acme-agent' },
  member: { sub: 'mike', tenant: 'acme', roles: ['member'], teams: ['blue'], azp: 'console' },
  admin: { sub: 'anna', tenant: 'acme', roles: ['tenant-admin'], teams: [], azp: 'console' },
  auditor: { sub: 'otto', tenant: 'acme', roles: ['auditor'], teams: [], azp: 'console' },
  stranger: { sub: 'gina', tenant: 'globex', roles: ['agent'], teams: ['blue'], azp: 'globex-agent' },
} as const;
export type Who = keyof typeof people;

/** A session of the agent; nobody else of the tests may use it. */
export const agentSession = randomUUID();

/** What is told of the use of one request. */
export interface ToldUse {
  readonly requestId: string;
  readonly tenant: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Wraps a part of the gateway, to see when it is asked. @default as it is */
export type Watch = <Part extends object>(name: string, part: Part) => Part;

/** Prices of the tests: a token of prompt costs 1, one of the answer 2 micros. */
export const prices = { prompt: 1_000_000, completion: 2_000_000 };

/**
 * OpenAI's API of the gateway with everything real behind it: identity service, policies, OpenFGA, Postgres with the
 * role that the gateway has, and llama.cpp's own server with the bundled model.
 */
export class OpenAiWorld {
  readonly verdicts: VerdictRecord[] = [];
  /** Every line that was logged. */
  readonly lines: string[] = [];
  /** What the limits of requests say; null lets pass. */
  limit: LimitReached | null = null;
  service!: TestService;
  replica!: Replica;
  openfga!: TestOpenFga;
  postgres!: TestPostgres;
  llama!: TestLlama;
  embeddings!: TestEmbeddings;
  /** The way to the model, with its faults. */
  front!: Front;
  control!: ControlState;
  database!: TenantDatabase<Database>;
  owner!: TenantDatabase<Database>;
  models!: Models;
  spending!: Spending;
  hub!: EventHub;
  server!: GovernedServer;
  fetch!: typeof fetch;
  #folder!: string;
  readonly #watch: Watch;

  private constructor(watch: Watch) {
    this.#watch = watch;
  }

  static async start(watch: Watch = (_, part) => part): Promise<OpenAiWorld> {
    const world = new OpenAiWorld(watch);
    world.#folder = await mkdtemp(join(tmpdir(), 'somagent-openai-'));
    const parts = [world.#startIdentity(), world.#startRelations(), world.#startDatabase(), world.#startModel()];
    const failed = (await Promise.allSettled(parts)).find((part) => part.status === 'rejected');
    if (failed !== undefined) {
      await world.stop();
      throw failed.reason;
    }
    await world.#serve();
    return world;
  }

  get url(): string {
    return `https://127.0.0.1:${this.server.port}`;
  }

  async stop(): Promise<void> {
    await this.server?.drain(1000);
    await this.spending?.flush();
    await Promise.all([this.control?.stop(), this.models?.close(), this.hub?.stop()]);
    await Promise.all([this.database?.destroy(), this.owner?.destroy()]);
    await Promise.all([
      this.service?.stop(),
      this.openfga?.stop(),
      this.llama?.stop(),
      this.embeddings?.stop(),
      this.postgres?.stop(),
    ]);
    await rm(this.#folder, { recursive: true, force: true });
  }

  token(who: Who): Promise<string> {
    return this.service.token(people[who]);
  }

  /** The official client; it changes its base address and its key, nothing else. */
  client(apiKey: string, options: { readonly maxRetries?: number; readonly headers?: Record<string, string> } = {}) {
    const { maxRetries = 0, headers } = options;
    const defaultHeaders = headers === undefined ? {} : { defaultHeaders: headers };
    return new OpenAI({ apiKey, baseURL: `${this.url}/v1`, fetch: this.fetch, maxRetries, ...defaultHeaders });
  }

  async clientOf(who: Who, headers?: Record<string, string>): Promise<OpenAI> {
    return this.client(await this.token(who), headers === undefined ? {} : { headers });
  }

  /** Asks without the client. */
  async ask(path: string, init: RequestInit & { readonly bearer?: string | null } = {}) {
    const { bearer = await this.token('agent'), ...rest } = init;
    const headers = { ...(bearer && { authorization: `Bearer ${bearer}` }), 'content-type': 'application/json' };
    const response = await this.fetch(`${this.url}${path}`, { ...rest, headers: { ...headers, ...rest.headers } });
    const text = await response.text();
    // biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
    const body: any = text.startsWith('{') ? JSON.parse(text) : text;
    return { status: response.status, headers: response.headers, body };
  }

  /** Asks the identity service as an operator. */
  async operate(path: string, content: object): Promise<Record<string, Record<string, string>>> {
    const token = await this.service.token({ sub: 'olga', roles: ['operator'] });
    const response = await fetchTrusting(this.service.caFile)(`${this.replica.url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(content),
    });
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.json() as Promise<Record<string, Record<string, string>>>;
  }

  putBudget(budget: Partial<Budget>, tenant = 'acme'): Promise<void> {
    const whole = { tenant, scope: 'tenant', id: tenant, period: 'total', tokens: null, costMicros: null } as const;
    const origin = { actor: { kind: 'user', id: 'anna', client: null }, requestId: null } as const;
    return putBudget(this.database.of(tenant), { ...whole, ...budget }, origin);
  }

  async clearBudgets(): Promise<void> {
    await this.spending.flush();
    await sql`delete from budget`.execute(this.owner.platform);
    await sql`delete from budget_use`.execute(this.owner.platform);
  }

  /** What is told of the use of a request, whether or not it was told already. */
  async told(requestId: string | null | undefined): Promise<readonly ToldUse[]> {
    await this.spending.flush();
    const { rows } = await sql<ToldUse>`
      select value ->> 'requestId' as "requestId", value ->> 'tenant' as tenant, value -> 'data' as data
      from outbox where topic = 'usage.tokens' and value ->> 'requestId' = ${requestId ?? ''} order by seq`.execute(
      this.owner.untenanted,
    );
    return rows;
  }

  /** Reservations that hold something. */
  async held(): Promise<number> {
    const { rows } = await sql<{ count: string }>`
      select count(*) from budget_reservation where state = 'held'`.execute(this.owner.platform);
    return Number(rows[0]?.count);
  }

  /** Tokens that leases hold. */
  async leased(): Promise<number> {
    const { rows } = await sql<{ tokens: string }>`
      select coalesce(sum(tokens), 0) as tokens from budget_reservation where lease and state = 'held'`.execute(
      this.owner.platform,
    );
    return Number(rows[0]?.tokens);
  }

  /** Postgres reserves nothing, and confirms no reservation, until the work is done. */
  whileNothingIsReserved<Value>(work: () => Promise<Value>): Promise<Value> {
    return this.owner.platform.transaction().execute(async (holding) => {
      await sql`lock table budget_reservation in exclusive mode`.execute(holding);
      return work();
    });
  }

  hearRecalls(): void {
    this.hub.follow(recallChannel, (tenant) => this.spending.recalled(tenant));
  }

  async until(condition: () => unknown, what: string): Promise<void> {
    const end = performance.now() + 10_000;
    while (!(await condition())) {
      if (performance.now() > end) throw new Error(`${what}: not within 10 s`);
      await sleep(20);
    }
  }

  async #startIdentity(): Promise<void> {
    this.service = await TestService.start();
    this.replica = await this.service.replica();
    const { database } = this.service.database;
    for (const tenant of ['acme', 'globex']) {
      await database.of(tenant).insertInto('tenant').values({ tenant, display_name: tenant }).execute();
    }
    const mary = {
      id: 'mary',
      kind: 'user' as const,
      username: 'mary',
      email: null,
      roles: ['agent'],
      teams: [],
    };
    await new Accounts(new Ledger(database), database).put(ownWork('test'), 'acme', mary);
    this.control = new ControlState({ ...(await this.#identity()), log: this.log });
    this.control.start();
    await this.until(() => this.control.ready, 'the control state is known');
  }

  async #identity() {
    const tokenFile = await this.service.workloadFile('gateway');
    return { url: this.replica.url, caFile: this.service.caFile, tokenFile };
  }

  async #startRelations(): Promise<void> {
    this.openfga = await startOpenFga();
    const { store, model } = await ensureModel(this.openfga.client);
    const object = objectOf('session', 'acme', agentSession);
    const facts = [
      { user: 'tenant:acme', relation: 'tenant', object },
      { user: userOf({ tenant: 'acme', subject: 'mary' }), relation: 'owner', object },
      { user: userOf({ tenant: 'acme', subject: 'mary' }), relation: 'member', object: 'tenant:acme' },
    ];
    await this.openfga.client.write(store, model, facts, []);
  }

  async #startDatabase(): Promise<void> {
    this.postgres = await startPostgres({ log_statement: 'none' });
    const admin = await this.postgres.connect('postgres');
    this.owner = this.#open(await this.#roleOf(admin, 'sessions'));
    const gateway = await this.#roleOf(admin, 'sessions_gateway');
    this.database = this.#open(gateway);
    await admin.query('create database sessions owner sessions');
    await admin.end();
    await migrate(this.owner.platform);
    this.hub = new EventHub(gateway, this.log);
    const hears = () => this.hub.connected;
    this.spending = new Spending({ database: this.database, log: this.log, seconds: 60, hears });
    this.hearRecalls();
    await this.hub.start();
  }

  async #roleOf(admin: Awaited<ReturnType<TestPostgres['connect']>>, role: string): Promise<PostgresConfig> {
    const password = randomBytes(16).toString('hex');
    await admin.query(`create role ${role} login password '${password}'`);
    const folder = join(this.postgres.folder, role);
    await mkdir(folder);
    await writeFile(join(folder, 'username'), role);
    await writeFile(join(folder, 'password'), password);
    return {
      PGHOST: this.postgres.server.host,
      PGPORT: this.postgres.server.port,
      PGDATABASE: 'sessions',
      PG_CREDENTIALS_DIR: folder,
      PG_CA_FILE: this.postgres.caFile,
      PG_POOL_SIZE: 6,
    };
  }

  #open(config: PostgresConfig): TenantDatabase<Database> {
    return new TenantDatabase<Database>(createPool(config, this.log));
  }

  async #startModel(): Promise<void> {
    const model = join(this.#folder, 'model.gguf');
    await run(join(slm, 'build-model.sh'), [model]);
    this.llama = await TestLlama.start(model);
    this.front = await this.llama.front();
    this.embeddings = await startEmbeddings();
    const { caFile, credentialFile } = this.llama;
    const common = {
      ...{ url: `${this.front.url}/v1`, caFile },
      prices: { tiny: prices },
      breaker: { threshold: 0.9, minimumRequests: 1000, window: 1000 },
    };
    this.models = createModels(
      parseModels({
        providers: {
          llama: { ...common, kind: 'openai', credentialFile },
          own: { ...common, kind: 'slm', tokenFile: credentialFile },
          vectors: {
            ...{ kind: 'openai', url: `${this.embeddings.url}/v1`, caFile: this.embeddings.caFile },
            credentialFile: this.embeddings.tokenFile,
            prices: { [this.embeddings.model]: prices },
          },
        },
        models: {
          'soma-tiny': { chain: [{ provider: 'llama', model: 'tiny' }], attempts: 1, maxTokens: 64 },
          'soma-own': { chain: [{ provider: 'own', model: 'tiny' }], attempts: 1, maxTokens: 64 },
          'soma-embed': {
            kind: 'embedding',
            chain: [{ provider: 'vectors', model: this.embeddings.model }],
            attempts: 1,
          },
        },
      }),
      { log: this.log },
    );
  }

  async #serve(): Promise<void> {
    const { control, log, verdicts, database } = this;
    const watch = this.#watch;
    const policy = watch('policy', this.service.policy);
    const [models, spending] = [watch('models', this.models), watch('spending', this.spending)];
    const relations = new RelationChecker({
      client: this.openfga.client,
      locate: () => locateModel(this.openfga.client),
    });
    const tools = new ToolPolicy({
      policy,
      control,
      verdicts: { accepting: true, record: (one) => void verdicts.push(one) },
    });
    const app = createGovernedApp({
      service: 'gateway',
      title: 'OpenAI API of the gateway',
      routes: { ...openAiRoutes, ...budgetRoutes, getOpenApi: routes.getOpenApi },
      handlers: {
        ...createOpenAiHandlers({ models, spending, control, relations, log, tools, deadlineMs: 20_000 }),
        ...createBudgetHandlers({ database }),
      },
      authentication: {
        tokens: watch(
          'tokens',
          new TokenVerifier({ keys: this.service.keys, rules: { issuer, audience: 'somagent-gateway' } }),
        ),
        apiKeys: new IdentityApiKeys({ ...(await this.#identity()), log }),
      },
      control,
      quota: watch('quota', { take: () => this.limit }),
      relations,
      policy,
      verdicts: watch('verdicts', { accepting: true, record: (verdict) => void verdicts.push(verdict) }),
      log,
    });
    const tlsDirectory = dirname(this.service.caFile);
    this.server = await serveGoverned({ app, port: 0, host: '127.0.0.1', tlsDirectory, log });
    this.fetch = fetchTrusting(this.service.caFile);
  }

  readonly log = createLogger({
    service: 'gateway',
    level: 'debug',
    destination: new Writable({
      write: (line: Buffer, _, done) => {
        this.lines.push(line.toString());
        done();
      },
    }),
  });
}
