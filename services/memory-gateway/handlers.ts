import { randomUUIDv7 } from 'node:crypto';
import { type GovernedEnv, type Handlers, Problem } from '@somagent/governance';
import { type Logger, reasonOf } from '@somagent/kit';
import type { Context } from 'hono';
import type { Access, AccessRequest, Asker, OnBehalf } from './access.ts';
import type { Database, MemoryKind } from './database.ts';
import { beginExport } from './export.ts';
import type { Forgetter } from './forget.ts';
import { AlreadyForgotten, type Memories, type Memory, type NewMemory, type Stored, sourcedId } from './memories.ts';
import type { Origin } from './memory-events.ts';
import { forgotten, noSummary, nothingThere } from './problems.ts';
import type { Recall } from './recall.ts';
import { type Routes, routes } from './routes.ts';
import type { MemoryFilter, Scope } from './scope.ts';
import { NoSummary, type Summarizer } from './summarize.ts';

/** What the handlers work with. */
export interface HandlerDependencies {
  readonly database: Database;
  readonly memories: Memories;
  readonly access: Access;
  readonly recall: Recall;
  readonly forgetter: Forgetter;
  readonly summarizer: Pick<Summarizer, 'summarize'>;
  /** Tells the indexer that there is work. */
  readonly wake: () => void;
  readonly log: Logger;
  /** Days after which an episode expires that says nothing else. */
  readonly episodicDays: number;
  /** Time for vectors in a recall that says nothing else, milliseconds. */
  readonly recallDeadlineMs: number;
}

/** Memories that one summary may be of. */
const summarized = 200;

/** What the body of a request says of a filter. */
interface AskedFilter {
  readonly owner?: string | undefined;
  readonly team?: string | undefined;
  readonly persona?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly kinds?: readonly MemoryKind[] | undefined;
  readonly since?: string | undefined;
  readonly until?: string | undefined;
}

/** The handlers of the routes. Tenant and subject come from the credential, or from a workload that is listed for it. */
export function createHandlers(dependencies: HandlerDependencies): Handlers<Routes> {
  const { database, memories, access, recall, forgetter, recallDeadlineMs } = dependencies;
  return {
    storeMemory: async (context) => {
      const { onBehalf, source, ttlSeconds, ...asked } = context.req.valid('json');
      const request = requestOf(context, 'storeMemory', onBehalf);
      const places = { persona: onBehalf?.persona, sessionId: onBehalf?.sessionId, ...asked };
      const asker = await access.toStore(request, places);
      const memory: NewMemory = {
        ...placed(asker, places),
        id: source === undefined ? randomUUIDv7() : sourcedId(asker.tenant, asker.subject, source),
        kind: asked.kind,
        text: asked.text,
        importance: asked.importance,
        expiresAt: expiryOf(dependencies, asked.kind, ttlSeconds),
      };
      const result = await store(dependencies, memory, originOf(context));
      return context.json(result, result.created ? 201 : 200);
    },

    recallMemories: async (context) => {
      const { query, limit, filter, deadlineMs = recallDeadlineMs, onBehalf } = context.req.valid('json');
      const scope = await access.toRead(requestOf(context, 'recallMemories', onBehalf), filterOf(filter, onBehalf));
      const answer = await recall.recall({ scope, query, limit, deadlineMs });
      return context.json({ ...answer, memories: [...answer.memories] }, 200);
    },

    getMemory: async (context) => {
      const { id } = context.req.valid('param');
      const { tenant } = await access.toOne(requestOf(context, 'getMemory'), id, 'can_view');
      const memory = await memories.get(tenant, id);
      if (memory === undefined) throw new Problem('not-found', `memory ${id} does not exist`);
      return context.json(memory, 200);
    },

    forgetMemory: async (context) => {
      const { id } = context.req.valid('param');
      const scope = await access.toOne(requestOf(context, 'forgetMemory'), id, 'can_forget');
      const one: Scope = { ...scope, filter: { ids: [id] } };
      return context.json(await forgetter.forget(one, originOf(context)), 200);
    },

    forgetMemories: async (context) => {
      const { filter, all } = context.req.valid('json');
      const scope = await access.toForget(requestOf(context, 'forgetMemories'), filterOf(filter), all);
      return context.json(await forgetter.forget(scope, originOf(context)), 200);
    },

    exportMemories: async (context) => {
      const scope = await access.toManage(requestOf(context, 'exportMemories'), context.req.valid('query'));
      const lines = await beginExport({ database, memories }, scope, originOf(context));
      return context.body(ReadableStream.from(encoded(lines)), 200, { 'content-type': 'application/x-ndjson' });
    },

    summarizeMemories: async (context) => {
      const { filter, onBehalf } = context.req.valid('json');
      const request = requestOf(context, 'summarizeMemories', onBehalf);
      const scope = await access.toRead({ ...request, capability: 'memory:read' }, filterOf(filter, onBehalf));
      const places = {
        team: filter.team,
        persona: scope.filter.persona ?? undefined,
        sessionId: scope.filter.sessionId,
      };
      const asker = await access.toStore(request, places);
      const found = await memories.newest(scope, summarized);
      if (found.length === 0) throw new Problem(nothingThere, 'name a filter that has memories');
      const { text, used, model } = await summaryOf(dependencies, scope.tenant, found);
      const summary: NewMemory = {
        ...placed(asker, places),
        id: randomUUIDv7(),
        kind: 'summary',
        text,
        importance: 0.7,
        expiresAt: null,
      };
      const { memory } = await store(dependencies, summary, originOf(context));
      return context.json({ memory, used, of: found.length, model }, 201);
    },
  };
}

type RouteName = Exclude<keyof Routes, 'getOpenApi'>;

function requestOf(context: Context<GovernedEnv>, name: RouteName, onBehalf?: OnBehalf): AccessRequest {
  const { path, method, capability } = routes[name];
  return {
    caller: context.get('caller'),
    requestId: context.get('requestId'),
    route: name,
    method: method.toUpperCase(),
    path,
    capability: capability as AccessRequest['capability'],
    ...(onBehalf && { onBehalf }),
  };
}

/** Who asks, as events say it. */
function originOf(context: Context<GovernedEnv>): Origin {
  const { kind, subject: id, client } = context.get('caller');
  return { actor: { kind, id, client }, requestId: context.get('requestId') };
}

/** A session recalls what belongs to its own persona, or to none where it has none. */
function filterOf({ since, until, ...rest }: AskedFilter, onBehalf?: OnBehalf): MemoryFilter {
  return {
    ...rest,
    ...(onBehalf && { persona: onBehalf.persona ?? null }),
    ...(since !== undefined && { since: new Date(since) }),
    ...(until !== undefined && { until: new Date(until) }),
  };
}

type Places = Pick<AskedFilter, 'team' | 'persona' | 'sessionId'>;

const placed = ({ tenant, subject }: Asker, { team, persona, sessionId }: Places) => ({
  tenant,
  owner: subject,
  team: team ?? null,
  persona: persona ?? null,
  sessionId: sessionId ?? null,
});

function expiryOf(
  { episodicDays }: HandlerDependencies,
  kind: MemoryKind,
  ttlSeconds: number | undefined,
): Date | null {
  const seconds = ttlSeconds ?? (kind === 'episodic' ? episodicDays * 86_400 : null);
  return seconds === null ? null : new Date(Date.now() + seconds * 1000);
}

async function store({ memories, wake }: HandlerDependencies, memory: NewMemory, origin: Origin): Promise<Stored> {
  try {
    const result = await memories.store(memory, origin);
    wake();
    return result;
  } catch (error) {
    if (error instanceof AlreadyForgotten) throw new Problem(forgotten, error.message);
    throw error;
  }
}

async function summaryOf({ summarizer, log }: HandlerDependencies, tenant: string, found: readonly Memory[]) {
  try {
    return await summarizer.summarize(tenant, found);
  } catch (error) {
    log.warn({ tenant, reason: reasonOf(error) }, 'the model gave no summary');
    const why = error instanceof NoSummary ? error.message : 'the model does not answer';
    throw new Problem(noSummary, `${why}: try again, nothing was stored`, { 'retry-after': '5' });
  }
}

async function* encoded(lines: AsyncIterable<string>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for await (const line of lines) yield encoder.encode(line);
}
