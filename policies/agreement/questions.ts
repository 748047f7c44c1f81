import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Entrypoint, PolicyInput } from '@somagent/policy';
import { corpusFolder } from '../bundle/corpus.ts';
import type { JudgedObject } from '../pack/judge.ts';
import type { Random } from './random.ts';

/** A question and the decision that it is put to. */
export interface Question {
  readonly entrypoint: Entrypoint;
  readonly input: unknown;
}

interface Facts {
  readonly roles: Readonly<Record<string, readonly string[]>>;
  readonly tools: Readonly<Record<string, unknown>>;
  readonly classes: Readonly<Record<string, string>>;
  readonly callers: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

const facts = JSON.parse(readFileSync(join(corpusFolder, 'facts/data.json'), 'utf8')) as Facts;
const everyCapability = [...new Set(Object.values(facts.roles).flat()), 'key:verify', 'unknown:noun', 'nonsense'];
const decisions = ['gateway', 'orchestrator', 'tools', 'data', 'training'] as const;

/** A question about a request: begun from one that is likely to be allowed, then spoiled in up to three places. */
export function requestQuestion(random: Random): Question {
  const decision = random.pick(decisions);
  const role = random.pick(Object.keys(facts.roles));
  const capability = capabilityFor(decision, role, random);
  const question = {
    subject: {
      tenant: 'acme' as string | null,
      id: 'ada',
      kind: random.pick(['user', 'user', 'service-account', 'api-key']) as PolicyInput['subject']['kind'],
      roles: random.chance(0.2) ? [role, random.pick(Object.keys(facts.roles))] : [role],
      teams: [],
      client: random.pick(['acme-agent', 'globex-agent', null]),
      scopes: null as string[] | null,
    },
    action: {
      service: 'gateway',
      route: 'any',
      method: 'POST',
      capability,
      audit: random.pick(['none', 'read', 'read', 'write', 'admin'] as const),
    },
    resource: resourceFor(decision, random),
    relation: random.chance(0.5)
      ? { required: 'can_use', held: true as boolean | null }
      : { required: null, held: null },
    control: {
      halted: false,
      suspended: null as string | null,
      revoked: false,
      training: random.pick(['locked', 'unlocked']),
    },
    context: { time: '2026-01-01T00:00:00.000Z', requestId: 'r' },
  };
  if (question.subject.kind === 'api-key') question.subject.scopes = [capability];
  if (random.chance(0.12)) becomeWorkload(question, random);
  for (let spoils = random.chance(0.3) ? random.pick([1, 1, 2, 3]) : 0; spoils > 0; spoils -= 1)
    spoil(question, random);
  return {
    entrypoint: `soma/${decision}/verdict`,
    input: random.chance(0.02) ? withoutField(question, random) : question,
  };
}

function capabilityFor(decision: (typeof decisions)[number], role: string, random: Random): string {
  if (decision === 'tools' && random.chance(0.8)) return 'tool:call';
  const held = facts.roles[role] ?? [];
  const fitting = decision === 'training' ? held.filter((each) => each.startsWith('training:')) : held;
  return random.pick(fitting.length === 0 || random.chance(0.1) ? everyCapability : fitting);
}

function resourceFor(decision: (typeof decisions)[number], random: Random) {
  const type =
    decision === 'tools'
      ? 'tool'
      : decision === 'data'
        ? random.pick([...Object.keys(facts.classes), 'rumour'])
        : 'session';
  const id = decision === 'tools' ? random.pick([...Object.keys(facts.tools), 'gone']) : 'x-1';
  const proposedBy = random.pick(['grace', 'grace', 'ada']);
  return { tenant: 'acme' as string | null, type, id, ...(decision === 'training' && { proposedBy }) };
}

interface Spoilable {
  readonly subject: { tenant: unknown; id: unknown; kind: unknown; roles: unknown; scopes: unknown; client: unknown };
  readonly action: { service: unknown; capability: unknown; audit: unknown };
  readonly resource: { tenant: unknown; type: unknown; id: unknown };
  readonly relation: { required: unknown; held: unknown };
  readonly control: { halted: unknown; suspended: unknown; revoked: unknown; training: unknown };
}

function becomeWorkload({ subject, action }: Spoilable, random: Random): void {
  const service = random.pick(Object.keys(facts.callers));
  const callers = facts.callers[service] ?? {};
  const name = random.pick(Object.keys(callers));
  const namespace = random.pick(['north-services', 'north-services', 'north-data', 'eu-central-identity', 'default']);
  Object.assign(subject, {
    kind: 'workload',
    id: `system:serviceaccount:${namespace}:${name}`,
    roles: [],
    scopes: null,
  });
  if (random.chance(0.3)) subject.tenant = null;
  Object.assign(action, { service, capability: random.pick(callers[name] ?? ['control:read']) });
}

const odd = [null, 0, 1, '', 'odd', true, false, [], {}, ['operator'], { a: 1 }, 'ünïcode "quoted" \\ \n', 1.5, -1e21];

const spoilers: readonly ((question: Spoilable, random: Random) => void)[] = [
  ({ resource }, random) => Object.assign(resource, { tenant: random.pick(['globex', null, 'acme', 1]) }),
  ({ subject }, random) => Object.assign(subject, { tenant: random.pick(['globex', null]) }),
  ({ subject }, random) =>
    Object.assign(subject, {
      roles: random.pick([[], ['operator'], ['auditor'], ['unknown'], ['auditor', 'agent'], 'operator']),
    }),
  ({ subject }, random) =>
    Object.assign(subject, { kind: random.pick(['user', 'service-account', 'api-key', 'workload', 'system']) }),
  ({ subject }, random) =>
    Object.assign(subject, { scopes: random.pick([[], ['session:read'], null, everyCapability]) }),
  ({ subject }, random) =>
    Object.assign(subject, {
      id: random.pick(['', 'grace', 'system:serviceaccount:north-services:gateway', 'a:b:c:d:e']),
    }),
  ({ action }, random) => Object.assign(action, { capability: random.pick(everyCapability) }),
  ({ action }, random) => Object.assign(action, { audit: random.pick(['none', 'read', 'write', 'admin', 'other']) }),
  ({ relation }, random) =>
    Object.assign(
      relation,
      random.pick([
        { required: 'can_use', held: false },
        { required: 'can_use', held: null },
        { required: null, held: null },
      ]),
    ),
  ({ control }) => Object.assign(control, { halted: true }),
  ({ control }) => Object.assign(control, { revoked: true }),
  ({ control }, random) => Object.assign(control, { suspended: random.pick(['tenant', 'user']) }),
  ({ control }, random) => Object.assign(control, { training: random.pick(['locked', 'unlocked', 'open']) }),
  (question, random) => {
    const part = random.pick(Object.values(question) as Record<string, unknown>[]);
    part[random.pick(Object.keys(part))] = random.pick(odd);
  },
];

function spoil(question: Spoilable, random: Random): void {
  random.pick(spoilers)(question, random);
}

function withoutField(question: object, random: Random): object {
  const copy = structuredClone(question) as Record<string, Record<string, unknown>>;
  const name = random.pick(Object.keys(copy));
  if (random.chance(0.3)) delete copy[name];
  else delete copy[name]?.[random.pick(Object.keys(copy[name] ?? {}))];
  return copy;
}

/** A question about a Kubernetes object: begun from one that keeps every rule, then spoiled in up to three places. */
export function deployQuestion(random: Random): Question {
  const object = random.chance(0.75) ? workloadObject(random) : otherObject(random);
  for (let spoils = random.chance(0.4) ? random.pick([1, 1, 2, 3]) : 0; spoils > 0; spoils -= 1)
    spoilObject(object, random);
  const guard = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: {
      name: 'server',
      namespace: random.pick(['north-services', 'north-services', 'north-services', 'north-data']),
    },
    spec: {
      podSelector: random.pick([
        { matchLabels: { app: 'server' } },
        { matchLabels: { app: 'server' } },
        { matchLabels: { app: 'x' } },
        {},
      ]),
    },
  };
  const networkPolicies = random.chance(0.5) ? null : random.pick([[guard], [guard], [guard], []]);
  const registries = random.chance(0.6)
    ? null
    : random.pick([['localhost:5000'], ['localhost:5000'], ['registry.example.com']]);
  return { entrypoint: 'soma/deploy/verdict', input: { object, context: { networkPolicies, registries } } };
}

// biome-ignore lint/suspicious/noExplicitAny: manifests are JSON of every shape
type Loose = any;

function workloadObject(random: Random): Loose {
  const kind = random.pick([
    'Pod',
    'Deployment',
    'StatefulSet',
    'DaemonSet',
    'ReplicaSet',
    'Job',
    'CronJob',
    'RayCluster',
  ]);
  const metadata = { name: 'server', namespace: 'north-services', labels: { app: 'server' } };
  const template = { metadata: { labels: { app: 'server' } }, spec: podSpec(random) };
  const spec: Record<string, unknown> = {
    Pod: template.spec,
    CronJob: { jobTemplate: { spec: { template } } },
    RayCluster: { headGroupSpec: { template }, workerGroupSpecs: [{ template: { spec: podSpec(random) } }] },
  };
  return { apiVersion: 'apps/v1', kind, metadata, spec: spec[kind] ?? { template } };
}

function podSpec(random: Random): Loose {
  const container = (name: string): Loose => ({
    name,
    image: random.pick([
      'localhost:5000/somagent/x:1',
      'localhost:5000/somagent/x@sha256:00',
      'localhost:5000/a/b:tag',
    ]),
    resources: { requests: { cpu: '50m', memory: '64Mi' }, limits: { memory: '128Mi' } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
  });
  return {
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: random.chance(0.2) ? [container('server'), container('side')] : [container('server')],
    ...(random.chance(0.2) && { initContainers: [container('init')] }),
    volumes: [{ name: 'tmp', emptyDir: {} }],
  };
}

function otherObject(random: Random): Loose {
  const named = (kind: string, more: object) => ({
    apiVersion: 'v1',
    kind,
    metadata: { name: 'server', namespace: 'north-services' },
    ...more,
  });
  return random.pick([
    named('Secret', random.pick([{}, {}, { data: { a: 'Yg==' } }, { stringData: { a: 'b' } }])),
    named('Role', {
      rules: [
        {
          apiGroups: random.pick([[''], [''], ['*']]),
          resources: ['pods'],
          verbs: random.pick([['get'], ['get'], ['*']]),
        },
      ],
    }),
    named('RoleBinding', {
      roleRef: { kind: 'ClusterRole', name: random.pick(['reader', 'reader', 'cluster-admin', 'edit']) },
    }),
    named('Namespace', {
      metadata: {
        name: 'north-x',
        labels: { 'pod-security.kubernetes.io/enforce': random.pick(['restricted', 'restricted', 'baseline']) },
      },
    }),
    named('ConfigMap', { data: { a: 'b' } }),
    named('NetworkPolicy', { spec: { podSelector: {} } }),
  ]);
}

function specOf({ spec }: Loose): Loose {
  return spec?.jobTemplate?.spec?.template?.spec ?? spec?.headGroupSpec?.template?.spec ?? spec?.template?.spec ?? spec;
}

const objectSpoilers: readonly ((spec: Loose, container: Loose, random: Random) => void)[] = [
  (_, { securityContext }, random) =>
    Object.assign(securityContext, { privileged: random.pick([true, false, null, 'true']) }),
  (_, { securityContext }, random) =>
    Object.assign(securityContext, { allowPrivilegeEscalation: random.pick([true, null, false]) }),
  (_, { securityContext }, random) =>
    Object.assign(securityContext, { readOnlyRootFilesystem: random.pick([false, null, true]) }),
  (_, { securityContext }, random) =>
    Object.assign(securityContext, {
      capabilities: random.pick([
        { drop: ['NET_RAW'] },
        {},
        null,
        { drop: ['ALL'], add: ['SYS_ADMIN'] },
        { drop: 'ALL' },
      ]),
    }),
  (_, { securityContext }, random) =>
    Object.assign(securityContext, {
      runAsUser: random.pick([0, 1, null]),
      runAsNonRoot: random.pick([true, false, null]),
    }),
  (_, container, random) => Object.assign(container, { securityContext: random.pick([null, {}, 'none']) }),
  (_, container, random) =>
    Object.assign(container, {
      image: random.pick([
        'evil.test/x:1',
        'localhost:5000/x:latest',
        'localhost:5000/x',
        'x',
        '',
        null,
        'registry.example.com/x:1',
        'localhost:5000/ü:1',
      ]),
    }),
  (_, container, random) =>
    Object.assign(container, {
      resources: random.pick([
        {},
        null,
        { limits: { memory: '1Gi' } },
        { requests: { cpu: 1 }, limits: { memory: 2 } },
      ]),
    }),
  (_, container, random) => Object.assign(container, { name: random.pick([null, 'other', 'ünï']) }),
  (spec, _, random) =>
    Object.assign(spec, {
      securityContext: random.pick([
        null,
        {},
        { runAsNonRoot: false },
        { runAsNonRoot: true, runAsUser: 0, seccompProfile: { type: 'Unconfined' } },
      ]),
    }),
  (spec, _, random) =>
    Object.assign(spec, { [random.pick(['hostPID', 'hostIPC', 'hostNetwork'])]: random.pick([true, false, null]) }),
  (spec, _, random) =>
    Object.assign(spec, {
      volumes: random.pick([[{ name: 'h', hostPath: { path: '/etc' } }], [{ hostPath: {} }], [], null, 'x']),
    }),
  (spec, _, random) => Object.assign(spec, { containers: random.pick([null, [], {}, 'none']) }),
];

function spoilObject(object: Loose, random: Random): void {
  if (random.chance(0.08)) {
    Object.assign(object.metadata, random.pick([{ name: 1 }, { labels: null }, { namespace: 'north-data' }]));
    return;
  }
  const spec = specOf(object);
  const container = spec?.containers?.[0];
  if (typeof container?.securityContext !== 'object' || container.securityContext === null) return;
  random.pick(objectSpoilers)(spec, container, random);
}

/** The object of a question about one. */
export const objectOf = ({ input }: Question): JudgedObject => (input as { object: JudgedObject }).object;
