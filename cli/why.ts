import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { CliFailure, exitCodes } from './failure.ts';
import { Gateway } from './gateway.ts';
import type { SessionContext } from './session.ts';

/** What is read of a recorded verdict: the event `verdict.decided`. */
const eventSchema = z.object({
  time: z.string(),
  tenant: z.string().nullable(),
  actor: z.object({ kind: z.string(), id: z.string(), client: z.string().nullable() }),
  data: z.object({
    service: z.string(),
    route: z.string(),
    method: z.string().nullable(),
    path: z.string().nullable(),
    capability: z.string().nullable(),
    resource: z.object({ type: z.string(), id: z.string().nullable() }).nullable(),
    allow: z.boolean(),
    rule: z.string(),
    reasons: z.array(z.string()),
    revision: z.string().nullable(),
    latencyUs: z.number(),
    status: z.number().nullable(),
  }),
});

/** A verdict as it was recorded. */
export type RecordedVerdict = z.output<typeof eventSchema>;

const answerSchema = z.object({
  requestId: z.string(),
  verdicts: z.array(z.looseObject({ index: z.number(), event: eventSchema })),
});

/** What `soma why` needs of its surroundings. */
export interface WhyContext extends SessionContext {
  /** Folder with the policies and their pages. */
  readonly root: string;
  /** Address of the audit service. */
  readonly auditUrl: () => string;
}

const patienceMs = 5000;

/** Explains in words what was decided about a request, and by which rule. */
export async function why(context: WhyContext, requestId: string): Promise<void> {
  const audit = await Gateway.signIn({ ...(await context.target()), gatewayUrl: context.auditUrl() }, context.signal);
  const answer = await recorded(audit, requestId, context.signal);
  if (context.json) context.write(`${JSON.stringify(answer)}\n`);
  else
    context.write(
      explain(
        requestId,
        answer.verdicts.map(({ event }) => event),
        context.root,
      ),
    );
}

/** A verdict arrives a moment after the answer that it was about. */
async function recorded(audit: Gateway, requestId: string, signal: AbortSignal) {
  const until = performance.now() + patienceMs;
  for (;;) {
    try {
      return await audit.json(answerSchema, 'GET', `/v1/verdicts/${encodeURIComponent(requestId)}`);
    } catch (error) {
      const absent = error instanceof CliFailure && error.exitCode === exitCodes.absent;
      if (!absent) throw error;
      if (performance.now() > until) throw unknown(requestId);
    }
    await sleep(250, undefined, { signal });
  }
}

const unknown = (requestId: string) =>
  new CliFailure(
    `no verdict about request ${requestId} is recorded for you`,
    'use the x-request-id of an answer, as somebody who may read verdicts of its tenant: soma login, soma whoami',
    exitCodes.absent,
  );

/** The verdicts of a request in words, oldest first. */
export function explain(requestId: string, verdicts: readonly RecordedVerdict[], root: string): string {
  return [`request   ${requestId}`, ...verdicts.map((verdict) => describe(verdict, root))].join('\n');
}

function describe({ time, tenant, actor, data }: RecordedVerdict, root: string): string {
  const { allow, reasons, rule, revision, latencyUs, status } = data;
  const page = pageOf(rule, root);
  const lines = [
    `verdict   ${allow ? 'allowed' : 'denied'}: ${reasons.join('; ')}`,
    `who       ${whoOf(actor, tenant)}`,
    `what      ${whatOf(data)}`,
    `on what   ${resourceOf(data)}`,
    `rule      ${rule}${page === undefined ? '' : `, explained in ${page}`}`,
    `bundle    ${revision === null ? 'none was asked: the request was refused before' : `revision ${revision}`}`,
    `when      ${time}, decided in ${latencyUs} µs${status === null ? '' : `, answered with ${status}`}`,
  ];
  return `${lines.join('\n')}\n`;
}

const kinds: Readonly<Record<string, string>> = {
  user: 'person',
  'service-account': 'service account',
  'api-key': 'API key of',
  workload: 'workload',
};

function whoOf({ kind, id, client }: RecordedVerdict['actor'], tenant: string | null): string {
  if (kind === 'system') return 'nobody known: no credential was accepted';
  const of = tenant === null ? 'of the platform' : `of tenant ${tenant}`;
  return `${kinds[kind] ?? kind} ${id} ${of}${client === null ? '' : `, through ${client}`}`;
}

function whatOf({ service, route, method, path, capability }: RecordedVerdict['data']): string {
  if (path === null) return `${method ?? 'an action'} at ${service}, for which no route is declared`;
  return `${route} (${method} ${path}) at ${service}, which needs ${capability}`;
}

function resourceOf({ resource }: RecordedVerdict['data']): string {
  if (resource === null) return 'it did not come so far';
  return resource.id === null ? `${resource.type} in general` : `${resource.type} ${resource.id}`;
}

/** The page that explains a rule: that of its policy, or of governance for what is refused before any policy. */
function pageOf(rule: string, root: string): string | undefined {
  const [, area = ''] = rule.split('.');
  const folders: Readonly<Record<string, string>> = { governance: 'services/governance', engine: 'policies/runtime' };
  const page = `${folders[area] ?? `policies/${area}`}/README.md`;
  return /^[a-z_]+$/.test(area) && existsSync(join(root, page)) ? page : undefined;
}
