import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { V1Pod } from '@kubernetes/client-node';
import {
  type BareAnswer,
  type CoverageReport,
  type CoveredPod,
  coverageOf,
  sampleMethod,
  samplePath,
} from '@somagent/governance/coverage.ts';
import type { ListedRoute } from '@somagent/governance/route-list.ts';
import { z } from 'zod';
import type { Cluster } from './cluster.ts';
import { CliFailure, exitCodes } from './failure.ts';
import { Gateway } from './gateway.ts';
import { platformSelector } from './pods.ts';
import { formatTable } from './print.ts';
import type { WhyContext } from './why.ts';

const listSchema = z.array(
  z.object({
    method: z.string(),
    path: z.string(),
    operationId: z.string().nullable(),
    capability: z.string().nullable(),
    relation: z.string().nullable(),
    audit: z.enum(['none', 'read', 'write', 'admin']).nullable(),
  }),
);

const problemSchema = z.object({ type: z.string() });
/** How OpenAI's API, which the gateway speaks too, says that there is no token. */
const openAiSchema = z.object({ error: z.object({ code: z.literal('invalid_api_key') }) });
const factsSchema = z.object({
  roles: z.record(z.string(), z.array(z.string())),
  callers: z.record(z.string(), z.record(z.string(), z.array(z.string()))),
  credentials: z.record(z.string(), z.array(z.string())),
});

/** What `soma coverage` needs of its surroundings. */
export interface CoverageContext extends WhyContext {
  readonly cluster: () => Promise<Cluster>;
}

/** Time that a verdict may take to the audit log, milliseconds. */
const patienceMs = 30_000;

/**
 * Computes from the running platform which endpoints are protected, and prints it.
 * @throws CliFailure when one is not.
 */
export async function coverage(context: CoverageContext): Promise<void> {
  const report = await measureCoverage(context);
  context.write(context.json ? `${JSON.stringify(report)}\n` : describe(report));
  if (report.gaps.length === 0) return;
  throw new CliFailure(
    `${report.gaps.length} of ${report.endpoints} endpoints are not protected`,
    'declare each by declareRoute() and serve it by createGovernedApp(): services/governance/README.md',
    exitCodes.failed,
  );
}

/** The report, from the route lists of all pods, what their servers really answer, the verdict log and the policy. */
export async function measureCoverage(context: CoverageContext): Promise<CoverageReport> {
  const cluster = await context.cluster();
  const pods = (await cluster.pods(platformSelector)).filter(servesApi);
  const covered: CoveredPod[] = [];
  for (const pod of pods) covered.push(await askPod(cluster, pod));
  const audit = await Gateway.signIn({ ...(await context.target()), gatewayUrl: context.auditUrl() }, context.signal);
  return coverageOf({
    pods: covered,
    capabilities: knownCapabilities(context.root),
    recorded: await recordedIn(audit, covered, context.signal),
  });
}

const portOf = (pod: V1Pod, name: string): number | undefined =>
  pod.spec?.containers.flatMap(({ ports = [] }) => ports).find((port) => port.name === name)?.containerPort;

/** Pods of our own services that take requests; those of others (Postgres, Keycloak ...) have no port `health`. */
const servesApi = (pod: V1Pod): boolean =>
  pod.status?.phase === 'Running' && portOf(pod, 'health') !== undefined && portOf(pod, 'https') !== undefined;

async function askPod(cluster: Cluster, pod: V1Pod): Promise<CoveredPod> {
  const service = pod.metadata?.labels?.['app.kubernetes.io/name'] ?? '(unnamed)';
  const name = `${pod.metadata?.namespace}/${pod.metadata?.name}`;
  const listed = await cluster.askPod(pod, `:${portOf(pod, 'health')}`, 'GET', '/routes');
  const parsed = listed.status === 200 ? listSchema.safeParse(JSON.parse(listed.body)) : undefined;
  if (parsed?.success !== true) return { service, pod: name, routes: null, answers: [] };
  const answers: BareAnswer[] = [];
  for (const route of parsed.data) answers.push(await askRoute(cluster, pod, route));
  return { service, pod: name, routes: parsed.data, answers };
}

/** The API server takes its own credential out of what it passes on: the pod sees none. */
async function askRoute(cluster: Cluster, pod: V1Pod, { method, path }: ListedRoute): Promise<BareAnswer> {
  const target = `https:${portOf(pod, 'https')}`;
  const answer = await cluster.askPod(pod, target, sampleMethod(method), samplePath(path));
  return {
    method,
    path,
    status: answer.status,
    problem: problemOf(parse(answer.body)),
    requestId: answer.headers['x-request-id'] ?? null,
  };
}

function problemOf(body: unknown): string | null {
  if (openAiSchema.safeParse(body).success) return 'urn:somagent:problem:token-missing';
  return problemSchema.safeParse(body).data?.type ?? null;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Every capability that a role has, a workload on a list of callers, or a credential that is no caller's. */
function knownCapabilities(root: string): ReadonlySet<string> {
  const { roles, callers, credentials } = factsSchema.parse(
    JSON.parse(readFileSync(join(root, 'policies', 'facts', 'data.json'), 'utf8')),
  );
  const ofWorkloads = Object.values(callers).flatMap((services) => Object.values(services).flat());
  return new Set([...Object.values(roles).flat(), ...ofWorkloads, ...Object.values(credentials).flat()]);
}

/** Which of the refusals have arrived in the verdict log. */
async function recordedIn(
  audit: Gateway,
  pods: readonly CoveredPod[],
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const ids = pods.flatMap(({ answers }) => answers.flatMap(({ requestId }) => requestId ?? []));
  const recorded = new Set<string>();
  const until = performance.now() + patienceMs;
  for (;;) {
    for (const id of ids.filter((each) => !recorded.has(each))) if (await isRecorded(audit, id)) recorded.add(id);
    if (recorded.size === ids.length || performance.now() > until) return recorded;
    await sleep(500, undefined, { signal });
  }
}

async function isRecorded(audit: Gateway, requestId: string): Promise<boolean> {
  try {
    await audit.json(z.looseObject({ requestId: z.string() }), 'GET', `/v1/verdicts/${encodeURIComponent(requestId)}`);
    return true;
  } catch (error) {
    if (error instanceof CliFailure && error.exitCode === exitCodes.absent) return false;
    throw error;
  }
}

/** The report in words. */
export function describe({ endpoints, protected: count, gaps }: CoverageReport): string {
  const share = endpoints === 0 ? 0 : (count / endpoints) * 100;
  const head = `${count} of ${endpoints} endpoints are protected (${share.toFixed(share === 100 ? 0 : 1)} %)\n`;
  if (gaps.length === 0) return head;
  const rows = gaps.map(({ pod, endpoint, problems }) => [pod, endpoint, problems.join('; ')]);
  return head + formatTable(['POD', 'ENDPOINT', 'PROBLEM'], rows);
}
